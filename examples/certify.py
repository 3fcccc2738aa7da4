"""Certifies an operating point of a model: python examples/certify.py MODEL ROWS."""

import sys

import ziggurat

folder, rows = sys.argv[1:]
promise = ziggurat.Promise({"relaxed": 0.02}, confidence=0.95, criterion="agreement")  # at most 2 % other answers
model = ziggurat.load(folder).calibrate(rows, promise)

point = model.point("relaxed")
proof = point.certificate
print(f"{point.name}: at most {point.target:.0%} of the answers change, with {point.confidence:.0%} confidence")
print(f"{proof.gain:.2f} times as fast as full depth; {proof.rows} rows certified it")

"""Answers lines of standard input as they come: python examples/stream.py MODEL [POINT]."""

import sys

import ziggurat

folder, point = [*sys.argv[1:], "full"][:2]
model = ziggurat.load(folder)
arrivals = ([line.strip()] for line in sys.stdin)
for number, answer in model.stream(arrivals, at=point, linger=0.02):
    print(number, answer.label, f"{answer.trace.microseconds:.0f} µs", flush=True)

"""Puts a model without layers in front of another: python examples/cascade.py ROWS MODEL OUT."""

import sys

import ziggurat

rows, large, out = sys.argv[1:]
small = ziggurat.train(rows, recipe="static", teacher=large, out=f"{out}-static")
model = ziggurat.cascade([small, large], rows=rows, out=out)
model = model.calibrate(rows, ziggurat.Promise({"relaxed": 0.02}, criterion="agreement"))

for answer in model.answer(["Oil prices fall again", "Who won the match?"], at="relaxed"):
    print(answer.label, "by", model.rungs[answer.trace.rung].name)

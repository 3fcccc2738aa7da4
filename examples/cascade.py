"""Puts a model without layers in front of another: python examples/cascade.py ROWS MODEL OUT."""

import sys

import ziggurat

rows, large, out = sys.argv[1:]
small = f"{out}-static"
ziggurat.train_classifier(rows, small, recipe="static", teacher=large)
ziggurat.build_cascade([small, large], out, rows)
ziggurat.calibrate_classifier(out, rows, ziggurat.Promise({"relaxed": 0.02}, criterion="agreement"))

model = ziggurat.AdaptiveClassifier.from_pretrained(out)
for answer in model.predict(["Oil prices fall again", "Who won the match?"], operating_point="relaxed"):
    print(answer.label, "by", model.rungs[answer.trace.rung].name)

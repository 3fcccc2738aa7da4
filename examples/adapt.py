"""Adds exits to a fine-tuned classifier: python examples/adapt.py CHECKPOINT ROWS OUT."""

import sys

import ziggurat

checkpoint, rows, out = sys.argv[1:]
ziggurat.adapt_classifier(checkpoint, rows, out)

model = ziggurat.AdaptiveClassifier.from_pretrained(out)
for text in ("Oil prices fall again", "Who won the match?"):
    full, fast = (model.predict([text], operating_point=point)[0] for point in ("full", "fast"))
    print(f"{text}: {full.label} at full depth, {fast.label} after {fast.trace.layers} layers")

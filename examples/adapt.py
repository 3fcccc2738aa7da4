"""Adds exits to a fine-tuned classifier: python examples/adapt.py CHECKPOINT ROWS OUT."""

import sys

import ziggurat

checkpoint, rows, out = sys.argv[1:]
model = ziggurat.adapt(checkpoint, rows, out=out)

texts = ["Oil prices fall again", "Who won the match?"]
full, fast = model.answer(texts, at="full"), model.answer(texts, at="fast")
for number, text in enumerate(texts):
    layers, cost = fast.layers[number], fast.flops[number] / full.flops[number]
    print(f"{text}: {fast.labels[number]} after {layers} layers, {cost:.0%} of the FLOPs of full depth")

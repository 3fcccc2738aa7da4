"""Shows how a model came to its answer: python examples/explain.py MODEL TEXT."""

import sys

import ziggurat

folder, text = sys.argv[1:]
explanation = ziggurat.load(folder).explain(text, at="fast")
for rung in explanation.rungs:
    print(f"{rung.rung}: {rung.answer['label']}, score {rung.score:.2f}, threshold {rung.threshold}")
print(f"answer: {explanation.answer['label']}; at full depth: {explanation.full['label']}")
for token in explanation.tokens:
    print(f"  {token.piece:<12} " + ("stayed" if token.left_at is None else f"dropped at layer {token.left_at}"))

"""Shows how a model came to its answer: python examples/explain.py MODEL TEXT."""

import sys

from ziggurat.explain.explain import explain

folder, text = sys.argv[1:]
explanation = explain(folder, text, "fast")
for rung in explanation["rungs"]:
    print(f"{rung['rung']}: {rung['label']}, score {rung['score']:.2f}, threshold {rung['threshold']}")
print(f"answer: {explanation['label']}; at full depth: {explanation['full']['label']}")
for token in explanation["tokens"]:
    print(f"  {token['piece']:<12} " + ("stayed" if token["left_at"] is None else f"left at layer {token['left_at']}"))

"""How one input got its answer: rungs, scores, dropped tokens."""

"""Policy room: exit scores, pruning rules, and the rules that compare them with thresholds. Numpy only, no torch."""

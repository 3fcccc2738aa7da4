"""What a model costs, how good its answers are, and how long they take."""

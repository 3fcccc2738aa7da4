"""What a model answers: one record for each problem says what its outputs stand for and how answers are judged."""

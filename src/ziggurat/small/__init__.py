"""Models without layers, for the first tier of a cascade: n-grams and a BiLSTM, each with its training."""

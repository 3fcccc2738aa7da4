"""Training: rows and an encoder in, a model folder out. Stages run on `transformers.Trainer`."""

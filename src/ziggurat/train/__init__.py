"""Train room: stages are functions that take and return a model; the loops are transformers.Trainer's."""

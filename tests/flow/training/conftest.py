from tests.kit.training import model, run, select_rows, stage, train_rows  # noqa: F401

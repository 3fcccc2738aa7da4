"""How fast the engine is; README.md says which question each script answers."""

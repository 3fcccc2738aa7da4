"""How fast the engine is; README.md has a line for each script."""

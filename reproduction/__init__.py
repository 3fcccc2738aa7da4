"""Measurements of published methods; README.md has a line for each script."""

"""For contributors; README.md has a line for each script."""

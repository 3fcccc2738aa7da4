"""For contributors; README.md says what each script does."""

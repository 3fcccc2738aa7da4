"""What published methods save; README.md says which question each script answers."""

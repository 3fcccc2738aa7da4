"""What Ziggurat must do, in layers: see README.md."""

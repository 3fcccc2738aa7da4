"""Data room: files and hub names in, rows with roles and packed batches out. No torch."""

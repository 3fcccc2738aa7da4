"""Encoder room: architecture and cost as data (no torch), and one differentiable forward over packed batches."""

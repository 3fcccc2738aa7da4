"""Measures quality, cost and speed of models."""

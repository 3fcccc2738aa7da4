"""Engines of others, each opened as its users would."""

"""Backends: what computes. Each keeps `engine.backend.Backend`."""

"""Makers and helpers that several tests share."""

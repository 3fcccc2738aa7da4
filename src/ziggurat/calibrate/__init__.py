"""Calibrates operating points: searches settings, certifies their losses and monitors them. No torch."""

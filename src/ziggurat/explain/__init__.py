"""Explains how one input was answered: rungs, scores, dropped tokens."""

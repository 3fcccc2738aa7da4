"""Calibrate room: chooses operating points from arrays of scores and predictions. No torch."""

"""Ziggurat: text classifiers that spend on each input only the compute it needs."""

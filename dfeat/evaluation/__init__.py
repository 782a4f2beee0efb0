"""Predictions of every model on every set and level, and verdicts on inpainted images."""

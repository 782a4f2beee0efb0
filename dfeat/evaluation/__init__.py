"""Predictions of every model on every set and level, and what models see in inpainted images."""

"""Predictions read and resampled, statistics, and the paper's printed values."""

"""Predictions read and checked, statistics, and the paper's printed values."""

"""Predictions of every model on every set and level, and what they say: statistics, tables, figures."""

from typing import Final

RECIPE: Final = 2
"""Of what is made from stored predictions: tables, claims, figures, report."""

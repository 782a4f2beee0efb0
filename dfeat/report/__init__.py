"""The results in stored predictions: statistics, tables, figures, claims, and the page that shows them."""

from typing import Final

RECIPE: Final = 2
"""For everything made from stored predictions: tables, claims, figures, report."""

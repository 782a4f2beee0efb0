"""What the stored predictions say: statistics, tables, figures, claims, and the page that shows them."""

from typing import Final

RECIPE: Final = 2
"""Of what is made from stored predictions: tables, claims, figures, report."""

"""The results in stored predictions: statistics, tables, figures, claims, and the page that shows them."""

from typing import Final

RECIPE: Final = 7
"""For the tables. Claims, figures and the page have recipes of their own."""

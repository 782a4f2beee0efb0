"""The paper's sentences, put to its own numbers and to a run's."""

from typing import Final

RECIPE: Final = 6

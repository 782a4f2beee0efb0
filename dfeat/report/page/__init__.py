"""The report: one HTML page with the tables, curves, figures, pictures, claims, cost and origin of a run.

What enters: a run's report folder, its settings, and the captions that `snakemake --report` shows too. What leaves:
`index.html`, which needs no other file and no network; it names what was not made. `page` composes it from `findings`, `views`,
`charts`, `thumbnails` and `run_origin`, `templates/` lays it out. Sorting and filtering are DataTables', as itables ships it; the
curves are Vega-Lite's, as vl-convert ships it. Both are inlined.
"""

from typing import Final

from dfeat.report.page.page import write_report

__all__ = ["RECIPE", "write_report"]

RECIPE: Final = 7

"""From stored predictions to paper: table, figure, report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import AllSettings, ConfigFiles, Out, all_settings, app, example
from dfeat.errors import UserError


@app.command(
    epilog=example("dfeat table table1 --results results/demo --config config.yaml --config config/demo.yaml --out out")
)
def table(
    name: Annotated[
        str,
        typer.Argument(
            help="table1, table2, efficiency, claims, sweep, object, part_cost, calibration, per_class or label_preservation"
        ),
    ],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Make a table (csv, md, tex), or claims.md, from the stored predictions; efficiency also reads benchmarks."""
    from dfeat.costs.counts import count
    from dfeat.report.claims.claims import write_claims
    from dfeat.report.tables.efficiency import write_efficiency
    from dfeat.report.tables.label_preservation import write_label_preservation
    from dfeat.report.tables.published import write_table
    from dfeat.report.tables.studies import STUDIES, write_study

    chosen = all_settings(config, settings)
    evaluation = results / "evaluation"
    makers: dict[str, Callable[[], None]] = {
        "table1": lambda: write_table("table1", evaluation, chosen, out),
        "table2": lambda: write_table("table2", evaluation, chosen, out),
        "efficiency": lambda: write_efficiency(results, chosen, count(chosen), out),
        "claims": lambda: write_claims(evaluation, chosen, out),
    }
    makers["label_preservation"] = partial(write_label_preservation, results, chosen, out)
    makers |= {study: partial(write_study, study, results, chosen, out) for study in STUDIES}
    if name not in makers:
        raise UserError(f"no table {name!r}; use {', '.join(makers)}")
    makers[name]()


@app.command(
    epilog=example(
        "dfeat ablation timestep --results results/demo --config config.yaml --config config/demo.yaml --out out"
    )
)
def ablation(
    name: Annotated[str, typer.Argument(help="a grid of the settings' section ablation")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Compare the points of a grid of settings (csv, md), from predictions that `snakemake ablation_NAME` makes."""
    from dfeat.report.tables.ablations import write_ablation

    write_ablation(name, results, all_settings(config, settings), out)


@app.command(
    epilog=example(
        "dfeat figure figure2 --results results/demo --config config.yaml --config config/demo.yaml --out out"
    )
)
def figure(
    name: Annotated[
        str, typer.Argument(help="figure2, figure3, accuracy, gain, cost, part_cost, gallery, sheet or ablation_NAME")
    ],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Draw a figure (png, svg)."""
    from dfeat.report.figures.examples import draw_figure

    draw_figure(name, results, all_settings(config, settings), out)


@app.command(
    epilog=example(
        "dfeat report --results results/demo --config config.yaml --config config/demo.yaml --out out/index.html"
    )
)
def report(
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
    captions: Annotated[Path, typer.Option(help="folder of <figure or table>.rst")] = Path("workflow/report"),
) -> None:
    """Put tables, curves, figures, claims, cost and origin on one page to open in a browser."""
    from dfeat.report.page import write_report

    write_report(results, all_settings(config, settings), out, captions)

"""From stored predictions to paper: table, figure, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import AllSettings, ConfigFiles, Out, all_settings, app, example


@app.command(
    epilog=example("dfeat table table1 --results results/demo --config config.yaml --config config/demo.yaml --out out")
)
def table(
    name: Annotated[str, typer.Argument(help="its name; an unknown one is answered with the list")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Make a table, or claims.md, from stored predictions.

    As csv, md and, for Tables 1 and 2, tex. `ablation_NAME` compares the points of a grid of settings, from what
    `snakemake ablation_NAME` makes; `efficiency` also reads benchmarks.
    """
    from dfeat.report.catalogue import find
    from dfeat.report.made import make

    chosen = all_settings(config, settings)
    make(find("table", name, chosen), results, chosen, out)


@app.command(
    hidden=True,
    epilog=example(
        "dfeat ablation timestep --results results/demo --config config.yaml --config config/demo.yaml --out out"
    ),
)
def ablation(
    name: Annotated[str, typer.Argument(help="a grid of the settings' section ablation")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Do what `dfeat table ablation_NAME` does.

    In this form the command is recorded of finished runs.
    """
    from dfeat.report.catalogue import find
    from dfeat.report.made import make
    from dfeat.report.tables.ablations import check_grid

    chosen = all_settings(config, settings)
    check_grid(name, chosen)
    make(find("table", f"ablation_{name}", chosen), results, chosen, out)


@app.command(
    epilog=example(
        "dfeat figure figure2 --results results/demo --config config.yaml --config config/demo.yaml --out out"
    )
)
def figure(
    name: Annotated[str, typer.Argument(help="its name; an unknown one is answered with the list")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    out: Out,
    config: ConfigFiles = None,
    settings: AllSettings = None,
) -> None:
    """Draw a figure (png, pdf, svg)."""
    from dfeat.report.catalogue import find
    from dfeat.report.made import make

    chosen = all_settings(config, settings)
    make(find("figure", name, chosen), results, chosen, out)


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
    """Put tables, figures and claims on one HTML page.

    With curves, cost and origin; it needs no network.
    """
    from dfeat.report.made import make_page

    make_page(results, all_settings(config, settings), out, captions)

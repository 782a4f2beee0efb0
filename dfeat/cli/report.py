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
    """Make a table (csv, md, tex), or claims.md, from the stored predictions; efficiency also reads benchmarks."""
    from dfeat.report.catalogue import find
    from dfeat.report.made import make

    chosen = all_settings(config, settings)
    make(find("table", name, chosen), results, chosen, out)


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
    """Draw a figure (png, svg)."""
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
    """Put tables, curves, figures, claims, cost and origin on one page to open in a browser."""
    from dfeat.report.made import make_page

    make_page(results, all_settings(config, settings), out, captions)

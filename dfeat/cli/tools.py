"""Verbs beside the rules: adopt, demo-data, doctor, fetch, plan, schema, status, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfeat.cli.common import AllSettings, ConfigFiles, Out, all_settings, app, example
from dfeat.errors import UserError

if TYPE_CHECKING:
    from dfeat.config import Settings


@app.command(epilog=example("dfeat adopt results/demo --config config.yaml --config config/demo.yaml"))
def adopt(
    run: Annotated[Path, typer.Argument(help="results/<run>, copied or moved to this working folder")],
    config: ConfigFiles = None,
    snakefile: Annotated[Path, typer.Option(help="the project's Snakefile")] = Path("Snakefile"),
) -> None:
    """Let Snakemake take what is whole and as configured of a copied or moved run for made, and make the rest again."""
    from dfeat.adopt import adopt as adopt_run
    from dfeat.adopt import as_text, project_of

    own = Path("config.yaml")
    base = own if own.exists() else project_of(snakefile) / own  # what Snakemake lays the other files over
    configs = [base, *(file for file in config or () if file.resolve() != base.resolve())]
    typer.echo(as_text(run, adopt_run(run, all_settings(configs, None), configs, snakefile)))


@app.command(epilog=example("dfeat demo-data --out out/demo-data"))
def demo_data(
    out: Out,
    seed: int = 0,
    train: Annotated[int, typer.Option(min=1, help="training images a class")] = 60,
    val: Annotated[int, typer.Option(min=1, help="simulated-occlusion images a class")] = 40,
    real: Annotated[int, typer.Option(min=1, help="really occluded images a class")] = 15,
    parts: Annotated[int, typer.Option(min=0, help="further images a class with part annotations")] = 0,
) -> None:
    """Draw the built-in data sets in the layouts of the real ones."""
    from dfeat.demo.worlds import write_demo_data

    write_demo_data(out, seed=seed, train=train, val=val, real=real, parts=parts)
    typer.echo(f"PartImageNet, imagenet/val and dfeat_real, as drawn objects, in {out}")


@app.command(epilog=example("dfeat doctor --config config.yaml --config config/single-gpu.yaml"))
def doctor(
    config: ConfigFiles = None,
    settings: AllSettings = None,
    as_json: Annotated[bool, typer.Option("--json", help="the report for programs")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="let torch name the devices; takes seconds")] = False,
) -> None:
    """Look for what would spoil a run before it starts: data, weights, disk, time. Exits 2 where something would."""
    import json

    from dfeat.doctor import examine
    from dfeat.doctor.text import as_plain, as_text

    chosen = all_settings(config, settings)
    report = examine(chosen, ask_torch=torch)
    typer.echo(json.dumps(as_plain(report), indent=1) if as_json else as_text(report, chosen))
    if report.faults:
        raise typer.Exit(2)


@app.command(epilog=example("dfeat fetch --config config.yaml --dry-run"))
def fetch(
    config: ConfigFiles = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be fetched and how large it is")] = False,
) -> None:
    """Fetch the run's models from the Hub into weights/, verify them, and pin their commits in config/pinned.yaml."""
    from dfeat.fetch import fetch as fetch_models

    fetch_models(all_settings(config, None), dry_run, typer.echo)


@app.command(epilog=example("dfeat plan --config config.yaml --config config/fast.yaml --device A100"))
def plan(
    config: ConfigFiles = None,
    settings: AllSettings = None,
    device: Annotated[str | None, typer.Option(help="T4, A100, H100 or H200; default: resources.device")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="measure this machine's GPU first, in two minutes, and write its figures here")
    ] = None,
    measured: Annotated[Path | None, typer.Option(help="file of --calibrate; default: resources.measured")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the plan for programs")] = False,
) -> None:
    """Estimate FLOPs, bytes and GPU-hours of each step of the configured run on a device, before anything is computed."""
    import json

    from dfeat.costs.measured import speeds_of
    from dfeat.costs.plan import as_plain, as_text, make_plan
    from dfeat.doctor import images_of

    chosen = all_settings(config, settings)
    if calibrate and measured:
        raise UserError("give either --calibrate, which measures and writes a file, or --measured, which reads one")
    if calibrate:
        _calibrated(chosen, calibrate)
    made = make_plan(chosen, images_of(chosen), speeds_of(chosen, device, calibrate or measured))
    typer.echo(json.dumps(as_plain(made), indent=1) if as_json else as_text(made), nl=as_json)


def _calibrated(settings: Settings, out: Path) -> None:
    """Measure this machine's GPU on the steps of a run and write the figures to `out`."""
    from dfeat.costs.calibrate import calibrate
    from dfeat.costs.plan import check_planned
    from dfeat.devices import compute_on
    from dfeat.storage.atomic import write_json

    check_planned(settings)
    device = compute_on(1, settings.resources.threads, f"plan --calibrate {out}")
    write_json(out, calibrate(settings, device).model_dump(mode="json"))


@app.command(epilog=example("dfeat schema --out workflow/schemas/config.schema.json"))
def schema(out: Out) -> None:
    """Write the JSON Schema of config.yaml."""
    from dfeat.config import config_schema
    from dfeat.storage.atomic import write_text

    write_text(out, config_schema())


@app.command(epilog=example("dfeat status results/demo"))
def status(
    run: Annotated[Path, typer.Argument(help="results/<run>")],
    config: ConfigFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="the status for programs, with every job")] = False,
) -> None:
    """Say how a run stands: what is made, what runs where since when, what failed and why, and how long the rest takes.

    By the configuration that its last Snakemake started with, or that of --config.
    """
    import json

    from dfeat.status import as_plain, status_of
    from dfeat.status.text import as_text

    found = status_of(run, all_settings(config, None) if config else None)
    typer.echo(json.dumps(as_plain(found), indent=1) if as_json else as_text(found), nl=as_json)


@app.command(epilog=example("dfeat verify results/demo"))
def verify(run: Annotated[Path, typer.Argument(help="results/<run>")]) -> None:
    """Compare every artifact of a run with what was written: lists each, exits 1 if one is damaged or foreign."""
    from collections import Counter

    from dfeat.verify import verify_run

    states: Counter[str] = Counter()
    for finding in verify_run(run):
        states[finding.state] += 1
        typer.echo(f"{finding.state:9}  {finding.path}" + (f"\n           {finding.why}" if finding.why else ""))
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    if states["bad"]:
        raise typer.Exit(1)

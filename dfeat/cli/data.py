"""From raw files to checked images: index, parts, pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import IndexFolder, Out, SettingsJson, app, example
from dfeat.errors import UserError


@app.command(
    epilog=example('dfeat index train --settings \'{"root": "results/demo/raw/PartImageNet"}\' --out out/train')
)
def index(
    name: Annotated[str, typer.Argument(help="'train', or the name of an evaluation set")],
    settings: SettingsJson,
    out: Out,
    classes: Annotated[Path | None, typer.Option(help="the train set's classes.json, for an evaluation set")] = None,
) -> None:
    """List the images of a set, check every record, and write index.csv and problems.csv."""
    import json

    from dfeat.data.index import build_evaluation_index, build_train_index
    from dfeat.data.settings import EvaluationSet, TrainSet
    from dfeat.section import parse

    if name == "train":
        built = build_train_index(parse(TrainSet, settings, "--settings"), out)
    elif classes is None:
        raise UserError(f"the set {name!r} needs --classes, the classes.json in the train set's index")
    else:
        built = build_evaluation_index(name, parse(EvaluationSet, settings, "--settings"), classes, out)
    found = json.loads((out / "source.json").read_text(encoding="utf-8"))
    typer.echo(
        f"{name}: {len(built.records)} images, {len(built.classes)} classes; a {found['container']} in the layout "
        f"{found['layout']!r}; {found['problems']} problems in {out / 'problems.csv'}"
    )


@app.command(epilog=example("dfeat parts --index results/demo/data/train --out out/parts.json"))
def parts(index: IndexFolder, out: Out, settings: SettingsJson = "{}") -> None:
    """Choose the parts to hide: the half of an object's parts that covers the most."""
    from dfeat.occlusion.parts import choose_all
    from dfeat.occlusion.settings import PartsStage
    from dfeat.section import parse

    typer.echo(f"{choose_all(index, parse(PartsStage, settings, '--settings'), out)} images have parts to hide")


@app.command(epilog=example("dfeat pixels --index results/demo/data/train --out out/pixels.h5"))
def pixels(
    out: Out,
    index: Annotated[Path | None, typer.Option(help="folder that `dfeat index` wrote")] = None,
    inpainted: Annotated[list[Path] | None, typer.Option(help="inpaint shard, once for each")] = None,
    settings: SettingsJson = "{}",
) -> None:
    """Decode images once into the cache that training and evaluation read."""
    from dfeat.data.pixels import cache_index, cache_inpainted
    from dfeat.data.settings import PixelsStage
    from dfeat.section import parse

    stage = parse(PixelsStage, settings, "--settings")
    if bool(index) == bool(inpainted):
        raise UserError("give either --index or --inpainted")
    count = cache_index(index, stage, out) if index else cache_inpainted(inpainted or [], stage, out)
    typer.echo(f"{count} images decoded into {out}")

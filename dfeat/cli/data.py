"""From raw files to checked images: index, parts, pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import Base, IndexFolder, Out, SettingsJson, app, example, linked_from
from dfeat.errors import UserError


@app.command(
    epilog=example('dfeat index train --settings \'{"root": "results/demo/raw/PartImageNet"}\' --out out/train')
)
def index(
    name: Annotated[str, typer.Argument(help="'train', or the name of an evaluation set")],
    settings: SettingsJson,
    out: Out,
    classes: Annotated[Path | None, typer.Option(help="the train set's classes.json, for an evaluation set")] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="where the index of held-out images goes, for a train set that holds some out")
    ] = None,
    base: Base = None,
) -> None:
    """List the images of a set and check every record.

    Writes index.csv and problems.csv.
    """
    import json

    from dfeat.data.indexing import build_evaluation_index, build_train_index
    from dfeat.data.settings import EvaluationSet, TrainSet
    from dfeat.section import parse

    chosen = parse(TrainSet if name == "train" else EvaluationSet, settings, "--settings")
    if isinstance(chosen, EvaluationSet) and classes is None:
        raise UserError(f"the set {name!r} needs --classes, the classes.json in the train set's index")
    held_out = chosen.holdout if isinstance(chosen, TrainSet) else 0
    if bool(held_out) != (holdout is not None):
        raise UserError(
            f"--holdout {holdout} is given, but the settings of {name!r} hold no image out; leave it out"
            if holdout
            else f"the settings hold out {held_out} images a class; give --holdout, the folder of their index"
        )
    files = ["annotations.json"] if isinstance(chosen, TrainSet) else []
    folders = [folder for folder in (holdout, out) if folder is not None]
    names = (*files, "index.csv", "problems.csv", "classes.json", "source.json")
    outputs = [folder / file for folder in folders for file in names]
    if linked_from(base, "index", "dfeat.data.indexing", outputs, [classes], chosen):
        return
    if isinstance(chosen, TrainSet):
        built = build_train_index(chosen, out, holdout)
    else:
        assert isinstance(chosen, EvaluationSet) and classes is not None
        built = build_evaluation_index(name, chosen, classes, out)
    found = json.loads((out / "source.json").read_text(encoding="utf-8"))
    kept = f" and {found['held_out']} held out" if holdout else ""
    typer.echo(
        f"{name}: {len(built.records)} images{kept}, {len({r.label for r in built.records})} classes; a {found['container']} in the layout "
        f"{found['layout']!r}; {found['problems']} problems in {out / 'problems.csv'}"
    )


@app.command(epilog=example("dfeat parts --index results/demo/data/train --out out/parts.json"))
def parts(index: IndexFolder, out: Out, settings: SettingsJson = "{}", base: Base = None) -> None:
    """Choose the parts of each object to hide.

    The half of its parts that covers the most.
    """
    from dfeat.occlusion.parts import choose_all
    from dfeat.occlusion.settings import PartsStage
    from dfeat.section import parse

    stage = parse(PartsStage, settings, "--settings")
    inputs = [index / "index.csv", index / "annotations.json"]
    if not linked_from(base, "parts", "dfeat.occlusion.parts", [out], inputs, stage):
        typer.echo(f"{choose_all(index, stage, out)} images have parts to hide")


@app.command(epilog=example("dfeat pixels --index results/demo/data/train --out out/pixels.h5"))
def pixels(
    out: Out,
    index: Annotated[Path | None, typer.Option(help="folder that `dfeat index` wrote")] = None,
    inpainted: Annotated[list[Path] | None, typer.Option(help="inpaint shard, once for each")] = None,
    settings: SettingsJson = "{}",
    base: Base = None,
) -> None:
    """Decode the images once, into a cache.

    Training and evaluation read it.
    """
    from dfeat.data.pixels import cache_index, cache_inpainted
    from dfeat.data.settings import PixelsStage
    from dfeat.section import parse

    stage = parse(PixelsStage, settings, "--settings")
    if bool(index) == bool(inpainted):
        raise UserError("give either --index or --inpainted")
    if linked_from(
        base, "pixels", "dfeat.data.pixels", [out], [index / "index.csv"] if index else inpainted or [], stage
    ):
        return
    count = cache_index(index, stage, out) if index else cache_inpainted(inpainted or [], stage, out)
    typer.echo(f"{count} images decoded into {out}")


@app.command(epilog=example("dfeat near results/demo/raw/imagenet/val --index results/demo/data/train"))
def near(
    photographs: Annotated[Path, typer.Argument(help="folder or archive of images, such as your own test set")],
    index: Annotated[list[Path], typer.Option(help="a set's index, results/<run>/data/<set>; once for each set")],
    distance: Annotated[int, typer.Option(min=0, max=32, help="bits of 64 in which two hashes may differ")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="images read side by side")] = 1,
    out: Annotated[Path | None, typer.Option(help="a .csv file of the pairs")] = None,
) -> None:
    """List photographs that resemble images of a run."""
    from dfeat.data.index import read_index
    from dfeat.data.near import as_csv
    from dfeat.data.near import near as find_near
    from dfeat.storage.atomic import write_text

    pairs = find_near(photographs, [read_index(folder) for folder in index], distance, threads)
    if out is not None:
        write_text(out, as_csv(pairs))
    for pair in pairs:
        way = ", mirrored" if pair.mirrored else ""
        typer.echo(f"{pair.photograph}: {pair.set} {pair.key} ({pair.file}), {pair.distance} of 64 bits{way}")
    typer.echo(f"{len({pair.photograph for pair in pairs})} photographs resemble an image of the run")

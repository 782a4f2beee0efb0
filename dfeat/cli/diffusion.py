"""The frozen diffusion model: inpaint, latents, features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import (
    Base,
    Gpus,
    IndexFolder,
    Keep,
    Out,
    Outs,
    SettingsJson,
    ShardOf,
    Threads,
    Workers,
    app,
    check_inputs,
    example,
    left_to_make,
    linked_from,
    one_each,
    shard_of,
)


@app.command(
    epilog=example(
        "dfeat inpaint --index results/demo/data/train --parts results/demo/occlusion/parts.json"
        ' --settings \'{"model": {"path": "demo"}, "resolution": 64}\' --shard 0/100 --out out/inpaint.h5'
    )
)
def inpaint(
    index: IndexFolder,
    parts: Annotated[Path, typer.Option(help="parts.json")],
    settings: SettingsJson,
    out: Out,
    shard: ShardOf = "0/1",
    threads: Threads = 4,
    gpus: Gpus = 1,
    workers: Workers = 0,
    base: Base = None,
) -> None:
    """Inpaint the hidden parts of the training images.

    One shard of them.
    """
    from dfeat.diffusion.settings import InpaintStage
    from dfeat.section import parse

    stage, rows = parse(InpaintStage, settings, "--settings"), shard_of(shard)
    check_inputs(index=[index / "index.csv"], parts=[parts])
    inputs = [index / "index.csv", parts]
    if linked_from(base, "inpaint", "dfeat.diffusion.inpaint", [out], inputs, stage, stage.model):
        return

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.diffusion.inpaint import inpaint_shard

    with attempt(out):
        device = compute_on(gpus, threads, f"inpaint {out}")
        done = inpaint_shard(index, parts, stage, out, device, rows, workers)
    typer.echo(f"inpainted images in {out}: {done}")


@app.command(
    epilog=example(
        "dfeat latents --index results/demo/data/imagenet_val --view drop:40"
        ' --settings \'{"model": {"path": "demo"}, "resolution": 64}\' --out out/latents.h5'
    )
)
def latents(
    index: IndexFolder,
    view: Annotated[list[str], typer.Option(help="clean, parts, or drop:P (percent); once for each level of a set")],
    settings: SettingsJson,
    out: Outs,
    parts: Annotated[Path | None, typer.Option(help="parts.json, for the view 'parts'")] = None,
    shard: ShardOf = "0/1",
    threads: Threads = 4,
    gpus: Gpus = 1,
    workers: Workers = 0,
    keep: Keep = False,
    base: Base = None,
) -> None:
    """Encode views of each image with the VAE.

    Once: features of any setting start from them.
    """
    from dfeat.diffusion.settings import LatentsStage
    from dfeat.section import parse

    stage, rows = parse(LatentsStage, settings, "--settings"), shard_of(shard)
    one_each("--view", view, out)
    check_inputs(index=[index / "index.csv"], parts=[parts])
    inputs = [index / "index.csv", *([parts] if parts else [])]
    left = left_to_make(base, keep, "latents", dict.fromkeys(out, inputs), stage, stage.model)
    if not left:
        return

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.diffusion.latents import encode_views

    outs = dict(zip(view, out, strict=True))
    standing = {name for name, path in outs.items() if path not in left}
    with attempt(out[0]):
        device = compute_on(gpus, threads, f"latents {left[0]}")
        done = encode_views(index, outs, stage, device, parts, rows, workers, standing)
    typer.echo(f"latents in {', '.join(map(str, left))}: {done}")


@app.command(
    epilog=example(
        "dfeat features --latents results/demo/diffusion/latents/train/0-of-1.h5"
        ' --settings \'{"model": {"path": "demo"}}\' --out out/features.h5'
    )
)
def features(
    latents: Annotated[list[Path], typer.Option(help="latents shard, once each")],
    settings: SettingsJson,
    out: Outs,
    threads: Threads = 4,
    gpus: Gpus = 1,
    keep: Keep = False,
    base: Base = None,
) -> None:
    """Extract U-Net features from cached latents.

    Intermediate ones, with the null prompt.
    """
    from dfeat.diffusion.settings import FeaturesStage
    from dfeat.section import parse

    stage = parse(FeaturesStage, settings, "--settings")
    one_each("--latents", latents, out)
    check_inputs(latents=latents)
    source = dict(zip(out, latents, strict=True))
    inputs = {path: [of] for path, of in source.items()}
    left = left_to_make(base, keep, "features", inputs, stage, stage.model)
    if not left:
        return

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.diffusion.features import extract_all

    with attempt(out[0]):
        device = compute_on(gpus, threads, f"features {left[0]}")
        for path, done in zip(left, extract_all({source[path]: path for path in left}, stage, device), strict=True):
            typer.echo(f"features in {path}: {done}")

"""The frozen diffusion model: inpaint, latents, features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfeat.cli.common import (
    Base,
    Gpus,
    IndexFolder,
    Out,
    SettingsJson,
    ShardOf,
    Threads,
    Workers,
    app,
    check_inputs,
    example,
    linked_from,
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
    """Fill the chosen parts with the diffusion model, one shard of the training images."""
    from dfeat.diffusion.settings import InpaintStage
    from dfeat.section import parse

    stage, rows = parse(InpaintStage, settings, "--settings"), shard_of(shard)
    check_inputs(index=[index / "index.csv"], parts=[parts])
    inputs = [index / "index.csv", parts]
    if linked_from(base, "inpaint", "dfeat.diffusion.inpaint", [out], inputs, stage, stage.model):
        return

    from dfeat.devices import compute_on
    from dfeat.diffusion.inpaint import inpaint_shard

    device = compute_on(gpus, threads, f"inpaint {out}")
    typer.echo(f"inpainted images in {out}: {inpaint_shard(index, parts, stage, out, device, rows, workers)}")


@app.command(
    epilog=example(
        "dfeat latents --index results/demo/data/imagenet_val --view drop:40"
        ' --settings \'{"model": {"path": "demo"}, "resolution": 64}\' --out out/latents.h5'
    )
)
def latents(
    index: IndexFolder,
    view: Annotated[str, typer.Option(help="clean, parts, or drop:P (percent)")],
    settings: SettingsJson,
    out: Out,
    parts: Annotated[Path | None, typer.Option(help="parts.json, for the view 'parts'")] = None,
    shard: ShardOf = "0/1",
    threads: Threads = 4,
    gpus: Gpus = 1,
    workers: Workers = 0,
    base: Base = None,
) -> None:
    """Encode a view of each image once with the VAE; features of any setting start from it."""
    from dfeat.diffusion.settings import LatentsStage
    from dfeat.section import parse

    stage, rows = parse(LatentsStage, settings, "--settings"), shard_of(shard)
    check_inputs(index=[index / "index.csv"], parts=[parts])
    inputs = [index / "index.csv", *([parts] if parts else [])]
    if linked_from(base, "latents", "dfeat.diffusion.latents", [out], inputs, stage, stage.model):
        return

    from dfeat.devices import compute_on
    from dfeat.diffusion.latents import encode_view

    device = compute_on(gpus, threads, f"latents {out}")
    typer.echo(f"latents in {out}: {encode_view(index, view, stage, out, device, parts, rows, workers)}")


@app.command(
    epilog=example(
        "dfeat features --latents results/demo/diffusion/latents/train/0-of-1.h5"
        ' --settings \'{"model": {"path": "demo"}}\' --out out/features.h5'
    )
)
def features(
    latents: Annotated[Path, typer.Option(help="latents shard")],
    settings: SettingsJson,
    out: Out,
    threads: Threads = 4,
    gpus: Gpus = 1,
    base: Base = None,
) -> None:
    """Extract intermediate U-Net features with the null prompt from cached latents."""
    from dfeat.diffusion.settings import FeaturesStage
    from dfeat.section import parse

    stage = parse(FeaturesStage, settings, "--settings")
    check_inputs(latents=[latents])
    if linked_from(base, "features", "dfeat.diffusion.features", [out], [latents], stage, stage.model):
        return

    from dfeat.devices import compute_on
    from dfeat.diffusion.features import extract_features

    device = compute_on(gpus, threads, f"features {out}")
    typer.echo(f"features in {out}: {extract_features(latents, stage, out, device)}")

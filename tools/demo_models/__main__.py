"""Train one of the models that ship with the package: `python -m tools.demo_models PART`.

    python -m tools.demo_models diffusion --index results/demo/data/train --minutes 90 --out out/model

What enters: the train set's index (diffusion) or a backbone's settings. What leaves: the files in
`dfeat/demo/models/`, each with the log of its training beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from dfeat.data.index import Index, read_index
from dfeat.devices import set_threads
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError
from dfeat.progress import exit_on_user_error
from dfeat.section import parse
from dfeat.training.settings import Backbone
from tools.demo_models.backbones import pretrain
from tools.demo_models.diffusion import refine_decoder, train

VAE_SHARE = 0.25
"""Share of the diffusion model's training time that the autoencoder gets."""


def train_diffusion(index_folder: Path, out: Path, minutes: float, seed: int, start: Path | None) -> None:
    """Train the latent diffusion model on the images of a train index alone.

    If `start` is given, its autoencoder starts from that of the model there.
    """
    index = read_index(index_folder)
    images = _images(index)
    names = [index.classes[record.label].name for record in index.records]
    seconds = minutes * 60
    train(
        images,
        names,
        out,
        vae_seconds=VAE_SHARE * seconds,
        unet_seconds=(1 - VAE_SHARE) * seconds,
        seed=seed,
        prompt=InpaintSettings().prompt,
        vae_from=start,
    )


def train_decoder(index_folder: Path, out: Path, steps: int, seed: int, start: Path) -> None:
    """Train the decoder of the model in `start` alone, on the images of a train index."""
    refine_decoder(_images(read_index(index_folder)), start, out, steps=steps, seed=seed)


def train_backbone(name: str, settings: str, out: Path, epochs: int, seed: int, start: Path | None) -> None:
    """Pretrain the backbone of `settings` (JSON: timm name and kwargs) and write it to `out`/`name`.safetensors.

    If `start` is given, it starts from the weights there and continues their log.
    """
    backbone = parse(Backbone, settings, "--settings")
    pretrain(backbone, out / f"{name}.safetensors", epochs=epochs, seed=seed, start=start)


def _images(index: Index) -> NDArray[np.uint8]:
    return np.stack([index.load(record) for record in index.records])


def demo_model(
    part: Annotated[
        str, typer.Argument(help="diffusion, decoder (of a diffusion model), or the name of the backbone in --settings")
    ],
    out: Annotated[Path, typer.Option(help="folder of the result")],
    index: Annotated[Path | None, typer.Option(help="the train set's index, for the diffusion model")] = None,
    settings: Annotated[
        str, typer.Option(help="a backbone, as JSON: its entry of training.backbones in config.yaml")
    ] = "{}",
    start: Annotated[Path | None, typer.Option(help="model folder or weights to start from")] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="training time of the diffusion model")] = 90,
    steps: Annotated[int, typer.Option(min=1, help="training length of a decoder")] = 2500,
    epochs: Annotated[int, typer.Option(min=1, help="training length of a backbone")] = 40,
    seed: int = 0,
    threads: Annotated[int, typer.Option(min=1, help="torch threads; results depend on it")] = 2,
) -> None:
    """Train a model that ships with the package: the latent diffusion model, or a backbone."""
    set_threads(threads)
    if part not in ("diffusion", "decoder"):
        train_backbone(part, settings, out, epochs, seed, start)
    elif index is None:
        raise UserError(
            "--index is missing; give the train set's index, on whose images alone the diffusion model is trained"
        )
    elif part == "diffusion":
        train_diffusion(index, out, minutes, seed, start)
    elif start is None:
        raise UserError(
            "--start is missing; give the folder of the diffusion model whose decoder is to be trained further"
        )
    else:
        train_decoder(index, out, steps, seed, start)


def main() -> None:
    """Run the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(demo_model)
    exit_on_user_error(app)


if __name__ == "__main__":
    main()

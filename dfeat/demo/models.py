"""How the shipped models were made: `dfeat demo-model` for each of them.

What enters: the train set's index (diffusion) or a backbone's settings. What leaves: the files that lie in
`dfeat/demo/models/`, with the log of their training beside them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfeat.data.index import Index, read_index
from dfeat.demo.train_backbones import pretrain
from dfeat.demo.train_diffusion import refine_decoder, train
from dfeat.settings import Backbone, InpaintSettings, parse

VAE_SHARE = 0.25
"""The share of the training time that the autoencoder gets."""


def train_diffusion(index_folder: Path, out: Path, minutes: float, seed: int, start: Path | None) -> None:
    """Train the latent diffusion model on the images of a train index, and on nothing else.

    Its autoencoder goes on from that of the model in `start`, where given.
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
    """Pretrain a backbone, given as JSON settings with its timm name and kwargs, into `out`/`name`.safetensors.

    It goes on from the weights in `start`, where given, and with its log.
    """
    backbone = parse(Backbone, settings, "--settings")
    pretrain(backbone, out / f"{name}.safetensors", epochs=epochs, seed=seed, start=start)


def _images(index: Index) -> NDArray[np.uint8]:
    return np.stack([index.load(record) for record in index.records])

"""How the shipped models were made: `dfeat demo-model` for each of them.

What enters: the train set's index (diffusion) or a backbone's settings. What leaves: the files that lie in
`dfeat/demo/models/`, with the log of their training beside them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfeat.data.index import read_index
from dfeat.demo.train_backbones import pretrain
from dfeat.demo.train_diffusion import train
from dfeat.settings import Backbone, InpaintSettings, parse

VAE_SHARE = 0.25
"""The share of the training time that the autoencoder gets."""


def train_diffusion(index_folder: Path, out: Path, minutes: float, seed: int) -> None:
    """Train the latent diffusion model on the images of a train index, and on nothing else."""
    index = read_index(index_folder)
    images = np.stack([index.load(record) for record in index.records])
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
    )


def train_backbone(name: str, settings: str, out: Path, epochs: int, seed: int) -> None:
    """Pretrain a backbone, given as JSON settings with its timm name and kwargs, into `out`/`name`.safetensors."""
    pretrain(
        parse(Backbone, settings, f"training.backbones.{name}"), out / f"{name}.safetensors", epochs=epochs, seed=seed
    )

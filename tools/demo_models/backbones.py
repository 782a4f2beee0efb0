"""Pretrain the two built-in backbones on drawings of a split that no other set shares.

What enters: a `Backbone` of config/demo.yaml. What leaves: its weights without the head (fp16 safetensors) and a log.
The recipe is a small version of that of current ImageNet weights: AdamW, cosine schedule, random crops, CutMix, random
erasing, label smoothing.
"""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dfeat.demo.canvas import SIZE
from dfeat.demo.dresses import WNIDS
from dfeat.demo.worlds import draw_one, jpeg
from dfeat.occlusion.patches import drop_on_image
from dfeat.storage.atomic import write_bytes, write_text
from dfeat.training.network import FusionNetwork, normalised, untrained_backbone
from dfeat.training.settings import Backbone

PER_CLASS = 250
BATCH = 64
MOST_BOXES, MOST_ERASED = 24, 0.6
"""Random erasing: at most so many boxes per image, and the largest share of it that they cover if they do not overlap."""


def draw_set(split: str, per_class: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A split in memory, as its JPEG files decode: images (n, 64, 64, 3) uint8 and class indices (n,)."""
    images, labels = [], []
    for class_index in range(len(WNIDS)):
        for number in range(per_class):
            encoded = jpeg(draw_one(split, class_index, number, seed).image)
            images.append(np.asarray(Image.open(io.BytesIO(encoded))))
            labels.append(class_index)
    return np.stack(images), np.array(labels)


def pretrain(backbone: Backbone, out: Path, *, epochs: int, seed: int, start: Path | None = None) -> None:
    """Train for `epochs` epochs on 5,000 drawings of `seed`; write the weights to `out` and the log to `out` as .jsonl.

    Training starts from scratch, or as another cycle from the weights in `start` with a new head, and then continues
    the log beside them.
    """
    from safetensors.torch import load_file, save

    torch.manual_seed(seed)
    bare = untrained_backbone(backbone)
    lines: list[str] = []
    if start is not None:
        bare.load_state_dict(load_file(start))
        lines = start.with_suffix(".jsonl").read_text().splitlines()
        lines.append(json.dumps({"epochs": epochs, "seed": seed, "note": "another cycle, from the weights before"}))
    model = FusionNetwork(bare, len(WNIDS))
    images, labels = draw_set("pretraining", PER_CLASS, seed)
    held_out = draw_set("pretraining check", 20, seed)
    x, y = normalised(images, torch.device("cpu")), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    steps, done, started = epochs * len(x) // BATCH, 0, time.monotonic()
    for epoch in range(epochs):
        model.train()
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            # Linear warm-up over 100 steps times a half cosine: 1e-3 min(1, (t + 1) / 100) (1 + cos(pi t / T)) / 2
            rate = 0.5 * (1 + math.cos(math.pi * min(1, done / steps)))
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * min(1, (done + 1) / 100) * rate
            _step(model, optimizer, *_augmented(x[rows], y[rows], generator))
            done += 1
        if epoch % 5 == 4 or epoch == epochs - 1:
            row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - started), **_check(model, *held_out)}
            lines.append(json.dumps(row))
            write_text(out.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.backbone.state_dict().items()
    }
    write_bytes(out, save({name: value.contiguous() for name, value in weights.items()}))


def _step(model: FusionNetwork, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor) -> None:
    loss = F.cross_entropy(model(images), targets, label_smoothing=0.1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()


def _augmented(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift and flip a batch (B, 3, S, S); then CutMix with probability 0.4, else random erasing of each image.

    Returns the images and the class probabilities (B, C).
    """
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(3)
    top, left = torch.randint(13, (2,), generator=generator).tolist()
    images = F.pad(images, (6, 6, 6, 6), mode="replicate")[:, :, top : top + SIZE, left : left + SIZE].clone()
    targets = F.one_hot(labels, len(WNIDS)).float()
    if torch.rand((), generator=generator) < 0.4:
        partner = torch.randperm(len(images), generator=generator)
        a, b, c, d = _box(float(torch.rand((), generator=generator)), generator)
        mixed = images.clone()
        mixed[:, :, a:b, c:d] = images[partner][:, :, a:b, c:d]
        # CutMix (Yun et al., 2019): y = lambda y_a + (1 - lambda) y_b, lambda the share of the image that is kept.
        kept = 1 - (b - a) * (d - c) / SIZE**2
        return mixed.contiguous(memory_format=torch.channels_last), kept * targets + (1 - kept) * targets[partner]
    for image in images:
        count = int(torch.randint(1, MOST_BOXES + 1, (), generator=generator))
        share = float(torch.rand((), generator=generator)) * MOST_ERASED / count
        for _ in range(count):
            a, b, c, d = _box(share, generator)
            image[:, a:b, c:d] = torch.randn((), generator=generator)
    return images.contiguous(memory_format=torch.channels_last), targets


def _box(share: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """A random square box with `share` of the image's area, clipped to the image: top, bottom, left, right."""
    half = int(SIZE * math.sqrt(share)) // 2
    row, column = torch.randint(SIZE, (2,), generator=generator).tolist()
    return max(row - half, 0), min(row + half, SIZE), max(column - half, 0), min(column + half, SIZE)


@torch.no_grad()
def _check(model: FusionNetwork, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy on held-out drawings, clean and with 40 % of the patches of an 8 x 8 grid dropped."""
    model.eval()
    rng = np.random.default_rng(0)
    dropped = images * ~np.stack([drop_on_image(SIZE, SIZE, 8, 0.4, rng) for _ in images])[..., None]
    y = torch.from_numpy(labels)

    def accuracy(pixels: np.ndarray) -> float:
        logits = torch.cat([model(chunk) for chunk in normalised(pixels, torch.device("cpu")).split(200)])
        return round(float((logits.argmax(1) == y).float().mean()), 4)

    return {"clean": accuracy(images), "drop40": accuracy(dropped)}

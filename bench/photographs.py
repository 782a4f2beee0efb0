"""Drawn photographs: noise with the spectrum of natural images, as JPEG files of ImageNet's typical size.

What enters: their number. What leaves: a folder of them in the layout of a user's own set, its index and pixel cache; or
one in the layout of PartImageNet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.classes import imagenet_wnids
from dfeat.data.index import Index
from dfeat.data.indexing import build_evaluation_index
from dfeat.data.pixels import cache_index
from dfeat.data.settings import EvaluationSet, PixelsStage
from dfeat.randomness import rng_for
from dfeat.storage.atomic import write_json

HEIGHT, WIDTH = 375, 500
CLASSES: Final = 4
QUALITY: Final = 90
"""JPEG quality at which a drawn photograph takes 112 KB, about as much as ImageNet's."""


def photograph(rng: np.random.Generator, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Noise (height, width, 3) uint8 with the 1/f amplitude spectrum of natural images, and grain."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1

    def field(power: float) -> NDArray[np.float64]:
        spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
        # amplitude(f) = 1 / f^power
        noise = np.fft.irfft2(spectrum / frequency**power, s=(height, width))
        return np.asarray(noise / noise.std())

    light, grain = field(1.0), rng.normal(0, 3, (height, width))
    colours = np.stack([120 + 45 * light + 20 * field(1.3) + grain for _ in range(3)], axis=-1)
    return colours.clip(0, 255).astype(np.uint8)


def write_photographs(folder: Path, count: int) -> Index:
    """Write `count` photographs to `folder`/images, one folder per class, and index and pixel cache to `folder`/set."""
    wnids = imagenet_wnids()[:CLASSES]
    for number in range(count):
        path = folder / "images" / wnids[number % CLASSES] / f"{number:05}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(rng_for(0, str(number), "photograph"))).save(path, quality=QUALITY)
    classes = folder / "classes.json"
    write_json(classes, [{"wnid": wnid, "name": wnid} for wnid in wnids])
    index = build_evaluation_index("set", EvaluationSet(root=str(folder / "images")), classes, folder / "set")
    cache_index(folder / "set", PixelsStage(), folder / "set" / "pixels.h5")
    return index


def write_photographs_with_parts(root: Path, count: int) -> None:
    """Write drawn photographs in PartImageNet's layout, each with three rectangles as parts; 16 drawings, shifted."""
    wnids = imagenet_wnids()[:2]
    drawn = [photograph(rng_for(0, str(number), "photograph")) for number in range(min(count, 16))]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        name = f"{wnids[number % 2]}_{number}.JPEG"
        path = root / "train" / wnids[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(drawn[number % len(drawn)], number, axis=1)).save(path, quality=90)
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for part, left in enumerate((60, 200, 330)):
            box = [left, 80, left + 100, 80, left + 100, 280, left, 280]
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": part, "segmentation": [box], "iscrowd": 0,
                "area": 20_000, "bbox": [left, 80, 100, 200],
            })  # fmt: skip
    names = ("Quadruped Head", "Quadruped Body", "Quadruped Foot")
    categories = [{"id": part, "name": name, "supercategory": "Quadruped"} for part, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))

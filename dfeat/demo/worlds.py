"""The built-in data sets, written to disk in the layouts of the real ones.

What enters: a seed and sizes. What leaves, under one root: `PartImageNet/` (images by wnid and COCO part
annotations, as the original release), `imagenet/val/` (folders by wnid), `dfeat/` (folders by wnid, objects
behind drawn occluders), and `drawn.json`, written last to mark the sets as complete. The same seed gives the same bytes.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.demo.canvas import SIZE, polygon_mask
from dfeat.demo.drawing import Drawing, draw
from dfeat.demo.dresses import WNIDS
from dfeat.demo.occluders import draw_occluder
from dfeat.randomness import rng_for
from dfeat.storage.atomic import write_bytes, write_json, write_text

RECIPE: Final = 1
PART_NAMES: Final = {
    0: "Quadruped Head", 1: "Quadruped Body", 2: "Quadruped Foot", 3: "Quadruped Tail", 4: "Biped Head", 5: "Biped Body",
    6: "Biped Hand", 7: "Biped Foot", 8: "Biped Tail", 9: "Fish Head", 10: "Fish Body", 11: "Fish Fin", 12: "Fish Tail",
    13: "Bird Head", 14: "Bird Body", 15: "Bird Wing", 17: "Bird Tail", 27: "Bicycle Body", 28: "Bicycle Head",
    29: "Bicycle Seat", 30: "Bicycle Tier",
}  # fmt: skip
"""PartImageNet's category ids and names (its own spelling) of the parts that are drawn."""


def write_demo_data(
    root: Path, *, seed: int = 0, train: int = 60, val: int = 40, real: int = 15, parts: int = 0
) -> None:
    """Write the sets under `root`, with the given numbers of images per class; `parts` images are held out of training."""
    _write_parts(root / "PartImageNet", "train", seed, train)
    if parts:
        _write_parts(root / "PartImageNet_held_out", "test", seed, parts)
    for class_index, wnid in enumerate(WNIDS):
        for number in range(val):
            image = jpeg(draw_one("val", class_index, number, seed).image)
            write_bytes(root / "imagenet/val" / wnid / f"{wnid}_val_{number:05d}.JPEG", image, recorded=False)
        for number in range(real):
            image = jpeg(draw_occluded(class_index, number, seed))
            write_bytes(root / "dfeat_real" / wnid / f"{wnid}_real_{number:03d}.jpg", image, recorded=False)
    counts = {"train": train, "val": val, "real": real} | ({"parts": parts} if parts else {})
    write_json(root / "drawn.json", {"seed": seed, **counts, "classes": list(WNIDS)})


def draw_one(split: str, class_index: int, number: int, seed: int) -> Drawing:
    """The drawing of that number of a class in a split; splits share no random numbers."""
    return draw(class_index, rng_for(seed, f"{WNIDS[class_index]}_{number}", f"draw {split}"))


def draw_occluded(class_index: int, number: int, seed: int) -> NDArray[np.uint8]:
    """An object with something in front of it that hides 15 to 30 % of it, (64, 64, 3) uint8."""
    drawing = draw_one("real", class_index, number, seed)
    mask = polygon_mask([polygon for _, polygon in drawing.parts], SIZE)
    return draw_occluder(drawing.image, mask, rng_for(seed, f"{WNIDS[class_index]}_{number}", "occluder"))


def _write_parts(root: Path, split: str, seed: int, per_class: int) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for class_index, wnid in enumerate(WNIDS):
        for number in range(per_class):
            drawing = draw_one(split, class_index, number, seed)
            name = f"{wnid}_{number}.JPEG"
            write_bytes(root / split / wnid / name, jpeg(drawing.image), recorded=False)
            images.append({"id": len(images), "file_name": name, "height": SIZE, "width": SIZE})
            for category, polygon in drawing.parts:
                annotations.append(_annotation(len(annotations), len(images) - 1, category, polygon))
    categories = [{"id": number, "name": name, "supercategory": name.split()[0]} for number, name in PART_NAMES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(root / f"{split}.json", json.dumps(content) + "\n")


def _annotation(number: int, image: int, category: int, polygon: NDArray[np.float64]) -> dict[str, Any]:
    inside = np.clip(polygon, 0, SIZE).round(2)
    low, high = inside.min(0), inside.max(0)
    x, y = inside.T
    area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [inside.ravel().tolist()],
        "area": round(area, 2),
        "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
        "iscrowd": 0,
    }


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An image (H, W, 3) as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()

"""Small real data sets, made anew for each test."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfeat.data.settings import TrainSet

MACAQUE, TENCH, CAR = "n02487347", "n01440764", "n02958343"
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]


def encoded(size: tuple[int, int] = (24, 16), mode: str = "RGB", format: str = "JPEG", **kwargs: Any) -> bytes:
    """A gradient picture of (width, height) as the bytes of a file."""
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).convert(mode).save(buffer, format, **kwargs)
    return buffer.getvalue()


def coco(names: list[str], size: tuple[int, int] = (24, 16)) -> dict[str, Any]:
    """A COCO document with one image record for each name and two parts on each."""
    images = [{"id": i, "file_name": n, "width": size[0], "height": size[1]} for i, n in enumerate(names)]
    annotations = [
        {
            "id": 2 * i + c,
            "image_id": i,
            "category_id": c,
            "segmentation": [list(SQUARE)],
            "area": 100.0,
            "bbox": [2.0, 2.0, 10.0, 10.0],
            "iscrowd": 0,
        }
        for i in range(len(names))
        for c in (0, 1)
    ]
    categories = [
        {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
        {"id": 1, "name": "Quadruped Body", "supercategory": "Quadruped"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(root: Path, files: dict[str, Any]) -> Path:
    """Write files: bytes as they are, text as UTF-8, anything else as JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


def zipped(root: Path, target: Path, prefix: str = "") -> Path:
    """All files under `root` in a zip archive."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(root).as_posix())
    return target


def train_set(root: Path, **kwargs: Any) -> TrainSet:
    return TrainSet(root=str(root), **kwargs)


def problems_of(folder: Path) -> list[dict[str, str]]:
    """The rows of problems.csv."""
    with (folder / "problems.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def two_images(tmp_path: Path) -> Path:
    """A set in the `ood` layout with one split and two images."""
    names = [f"{MACAQUE}_1.JPEG", f"{TENCH}_2.JPEG"]
    files: dict[str, Any] = {f"train/{name.partition('_')[0]}/{name}": encoded() for name in names}
    return write(tmp_path / "two", {**files, "train.json": coco(names)})

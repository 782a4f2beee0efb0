"""Index and part choice at the size of PartImageNet: seconds, memory, and milliseconds an image.

What enters: nothing. What leaves: rows against the limits that these steps keep. A set of that size is drawn in the
layout of the original release: three splits, 158 classes, the 40 part categories with as many instances as such
objects have, overlapping outlines of 12 to 80 points, pictures of the usual sizes. The pictures are plain grey files
of a few KB, so the time of reading 100 KB each from a disk is not in the figures; and the outlines are drawn, not
PartImageNet's. Index and part choice run as a user runs them, each in a process of its own.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.table import Comparison, Result
from dfeat.data.classes import imagenet_wnids
from dfeat.occlusion.parts import choice_row
from dfeat.occlusion.settings import PartsStage
from dfeat.randomness import rng_for

IMAGES: Final = 24_095
CLASSES: Final = 158
SPLITS: Final = (16_540, 2_957, 4_598)
SIZES: Final = ((500, 375), (500, 375), (500, 375), (375, 500), (500, 333), (640, 480))
PARTS: Final = {
    "Quadruped": {"Head": 1, "Body": 1, "Foot": 4, "Tail": 1},
    "Biped": {"Head": 1, "Body": 1, "Hand": 2, "Foot": 2, "Tail": 1},
    "Fish": {"Head": 1, "Body": 1, "Fin": 3, "Tail": 1},
    "Bird": {"Head": 1, "Body": 1, "Wing": 2, "Foot": 2, "Tail": 1},
    "Snake": {"Head": 1, "Body": 1},
    "Reptile": {"Head": 1, "Body": 1, "Foot": 4, "Tail": 1},
    "Car": {"Body": 1, "Tier": 3, "Side Mirror": 2},
    "Bicycle": {"Body": 1, "Head": 1, "Seat": 1, "Tier": 2},
    "Boat": {"Body": 1, "Sail": 2},
    "Aeroplane": {"Head": 1, "Body": 1, "Engine": 4, "Wing": 2, "Tail": 1},
    "Bottle": {"Mouth": 1, "Body": 1},
}
"""PartImageNet's 40 part categories, in the order of their ids, with the most instances that are drawn of each."""
MANY_PARTS: Final = 16


@dataclass(frozen=True)
class Run:
    """What a process took: seconds by the clock, seconds of processor time, and its largest memory in MB."""

    seconds: float
    processor: float
    megabytes: float


def run(images: int = IMAGES, **_: Any) -> Result:
    """Draw a set, index it and choose its parts; compare with 3 minutes and 2 GB in all, and 20 ms an image.

    Seconds are by the clock, and mean something on a machine that is idle; milliseconds are of processor time.
    """
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        folder = Path(name)
        with ProcessPoolExecutor(
            1, get_context("spawn")
        ) as other:  # what it takes would count as its children's memory
            annotations = other.submit(write_set, folder / "set", images).result()
        settings = {"root": str(folder / "set"), "expected_images": None, "expected_classes": None}
        index = measured("index", "train", "--settings", json.dumps(settings), "--out", str(folder / "train"))
        parts = measured("parts", "--index", str(folder / "train"), "--out", str(folder / "parts.json"))
        drawn = _milliseconds_of_each(folder / "train" / "annotations.json")
    many = [_milliseconds(overlapping(MANY_PARTS, number), 375, 500) for number in range(50)]
    rows = [
        _within("index and parts", index.seconds + parts.seconds, 180, "s"),
        _within("index and parts, memory", max(index.megabytes, parts.megabytes), 2000, "MB"),
        _within("part choice, slowest image", max(drawn), 20, "ms"),
        _within(f"part choice, slowest of {MANY_PARTS} overlapping parts", max(many), 20, "ms"),
    ]
    notes: dict[str, Any] = {"drawn": f"{images:,} images, {annotations:,} annotations"}
    for step, took in {"index": index, "parts": parts}.items():
        notes[step] = f"{took.seconds:.1f} s, {took.processor:.1f} s of processor time, {took.megabytes:.0f} MB"
    notes["part choice, median"] = f"{median(drawn):.2f} ms; {MANY_PARTS} overlapping parts {median(many):.2f} ms"
    return Result(rows, notes)


def _within(step: str, measured: float, limit: float, unit: str) -> Comparison:
    return Comparison(step, measured, limit, unit, 1.0, "no peer: the limit that is kept", bound="at most")


def measured(*words: str) -> Run:
    """Run a verb in a process of its own, to its end.

    A small process starts it: what its starter holds in memory counts as a process's own largest, until it holds more.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", _START_AND_MEASURE, sys.executable, "-m", "dfeat.cli", *words]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    seconds = time.perf_counter() - started
    status, processor, kilobytes = json.loads(said)
    if status:
        raise RuntimeError(f"dfeat {words[0]} ended with status {status}")
    return Run(seconds, processor, kilobytes / 1000)


_START_AND_MEASURE: Final = """
import os, sys
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)])
_, status, used = os.wait4(process, 0)
print([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss])
"""


def _milliseconds_of_each(annotations: Path) -> list[float]:
    content = json.loads(annotations.read_text(encoding="utf-8"))
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    return [_milliseconds(of_image[image["id"]], image["height"], image["width"]) for image in content["images"]]


def _milliseconds(annotations: list[dict[str, Any]], height: int, width: int) -> float:
    """From the outlines of one image to its row of parts.json, in milliseconds of processor time."""
    started = time.thread_time()
    choice_row(annotations, height, width, PartsStage())
    return 1000 * (time.thread_time() - started)


def write_set(root: Path, images: int) -> int:
    """Draw a set of so many images in the layout of PartImageNet_OOD under `root`; returns how many annotations."""
    wnids = imagenet_wnids()[:: len(imagenet_wnids()) // CLASSES][:CLASSES]
    pictures = {size: _grey(*size) for size in SIZES}
    bounds = [round(images * sum(SPLITS[:split]) / IMAGES) for split in range(len(SPLITS) + 1)]
    annotations = 0
    for split, first, last in zip(("train", "val", "test"), bounds, bounds[1:], strict=False):
        document = _document(range(first, last), wnids)
        annotations += len(document["annotations"])
        for image in document["images"]:
            path = root / split / image["file_name"].partition("_")[0] / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pictures[image["width"], image["height"]])
        (root / f"{split}.json").write_text(json.dumps(document))
    return annotations


def _document(numbers: range, wnids: tuple[str, ...]) -> dict[str, Any]:
    names = [(group, part) for group, parts in PARTS.items() for part in parts]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in numbers:
        rng = rng_for(0, str(number), "bench index")
        width, height = SIZES[rng.integers(len(SIZES))]
        group = list(PARTS)[number % CLASSES % len(PARTS)]
        file_name = f"{wnids[number % CLASSES]}_{number}.JPEG"
        images.append({"id": len(images), "file_name": file_name, "width": width, "height": height})
        for part, most in PARTS[group].items():
            for _ in range(rng.integers(1, most + 1)):
                outline = _outline(rng, width, height, large=part == "Body")
                low, high = outline.min(axis=0), outline.max(axis=0)
                annotations.append({
                    "id": len(annotations), "image_id": len(images) - 1, "category_id": names.index((group, part)),
                    "segmentation": [outline.ravel().tolist()], "area": float((high - low).prod() / 2),
                    "bbox": [*low.tolist(), *(high - low).tolist()], "iscrowd": 0,
                })  # fmt: skip
    categories = [{"id": i, "name": f"{group} {part}", "supercategory": group} for i, (group, part) in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _outline(rng: np.random.Generator, width: int, height: int, large: bool) -> NDArray[np.float64]:
    """A closed outline around some point near the picture's middle, (points, 2), two decimals as annotators' tools."""
    points = int(rng.integers(12, 81))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radius = (0.35 if large else rng.uniform(0.05, 0.2)) * rng.uniform(0.7, 1.0, points)
    centre = np.array([width, height]) * (0.5 + (0.02 if large else 0.25) * rng.uniform(-1, 1, 2))
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None] * np.array([width, height])
    return (centre + along).clip(0, (width, height)).round(2)


def overlapping(parts: int, seed: int) -> list[dict[str, Any]]:
    """Annotations of a picture of 500 x 375 with so many parts, each a category of its own, most of them overlapping."""
    rng = rng_for(seed, str(parts), "bench overlap")
    outlines = [_outline(rng, 500, 375, large=number % 2 == 0) for number in range(parts)]
    return [{"id": i, "category_id": i, "segmentation": [o.ravel().tolist()]} for i, o in enumerate(outlines)]


def _grey(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(buffer, "JPEG")
    return buffer.getvalue()

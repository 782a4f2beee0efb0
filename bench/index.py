"""Index and part choice at the size of PartImageNet: seconds, memory, and milliseconds per image.

What enters: nothing. What leaves: comparisons with the limits of these steps. A set of that size is drawn in the layout
of the original release: three splits, 158 classes, the 40 part categories with realistic numbers of instances,
overlapping outlines of 12 to 80 points, pictures of the usual sizes. The pictures are plain grey files of a few KB, so
the figures exclude the time to read 100 KB each from a disk. Index and part choice run by their verbs, each in its own
process.
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
"""PartImageNet's 40 part categories in the order of their ids, with the largest number of instances drawn of each."""
MANY_PARTS: Final = 16


@dataclass(frozen=True)
class Run:
    """A finished process: wall time and processor time in seconds, and peak memory in MB."""

    seconds: float
    processor: float
    megabytes: float


def run(images: int = IMAGES, **_: Any) -> Result:
    """Draw a set, index it and choose its parts; compare with 3 minutes and 2 GB in total, and 20 ms per image.

    Seconds are wall time, so run this on an idle machine; milliseconds are processor time.
    """
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        folder = Path(name)
        # In another process: this one's memory would count towards the peak of the processes that it starts.
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
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
    return Comparison(step, measured, limit, unit, 1.0, "no peer: the step's limit", bound="at most")


def measured(*words: str) -> Run:
    """Run a verb of `dfeat` in its own process and measure it. Raises RuntimeError if it fails.

    A small process starts it, because a child's peak memory is at least what its parent held when it started.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", _START_AND_MEASURE, sys.executable, "-m", "dfeat.cli", *words]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    seconds = time.perf_counter() - started
    status, processor, kilobytes = json.loads(printed)
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
    """Milliseconds of processor time from the outlines of one image to its row of parts.json."""
    started = time.thread_time()
    choice_row(annotations, height, width, PartsStage())
    return 1000 * (time.thread_time() - started)


def write_set(root: Path, images: int) -> int:
    """Write a drawn set of `images` images in the layout of PartImageNet_OOD to `root`; returns its annotations' number."""
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
                    "segmentation": [outline.ravel().tolist()], "area": _area(outline),
                    "bbox": [*low.tolist(), *(high - low).tolist()], "iscrowd": 0,
                })  # fmt: skip
    categories = [{"id": i, "name": f"{group} {part}", "supercategory": group} for i, (group, part) in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _outline(rng: np.random.Generator, width: int, height: int, large: bool) -> NDArray[np.float64]:
    """A closed outline (points, 2) around a point near the picture's middle, with two decimals, as annotation tools write."""
    points = int(rng.integers(12, 81))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radius = (0.35 if large else rng.uniform(0.05, 0.2)) * rng.uniform(0.7, 1.0, points)
    centre = np.array([width, height]) * (0.5 + (0.02 if large else 0.25) * rng.uniform(-1, 1, 2))
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None] * np.array([width, height])
    return (centre + along).clip(0, (width, height)).round(2)


def _area(outline: NDArray[np.float64]) -> float:
    """The area inside a closed outline (points, 2)."""
    x, y = outline.T
    # Shoelace formula: A = |sum of x_i y_(i+1) - x_(i+1) y_i| / 2
    return float(abs(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2)


def overlapping(parts: int, seed: int) -> list[dict[str, Any]]:
    """Annotations of a picture of 500 x 375 with `parts` parts of different categories, most of them overlapping."""
    rng = rng_for(seed, str(parts), "bench overlap")
    outlines = [_outline(rng, 500, 375, large=number % 2 == 0) for number in range(parts)]
    return [{"id": i, "category_id": i, "segmentation": [o.ravel().tolist()]} for i, o in enumerate(outlines)]


def _grey(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(buffer, "JPEG")
    return buffer.getvalue()

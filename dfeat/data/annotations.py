"""Part annotations: checks each COCO record before pycocotools sees it; no record makes this raise or hang.

What enters: parsed JSON of any shape. What leaves: a `Part` whose segmentation pycocotools reads without
trouble, or none, and a row in `Problems` for everything mended or dropped. Shapes: see `segmentation.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeGuard

from dfeat.data.records import Problems, text_of
from dfeat.data.segmentation import MAX_ID, Fault, Unusable, clean_segmentation, whole_number


@dataclass(frozen=True)
class Part:
    """A usable part annotation. `segmentation` is JSON text, which takes less memory than lists."""

    category_id: int
    segmentation: str
    area: float
    bbox: tuple[float, ...]
    iscrowd: int


def identifier(value: Any) -> int | str | None:
    """An id by which records refer to each other: a whole number, or else a non-empty text; otherwise None."""
    number = whole_number(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value else None


def clean_part(
    record: Any, width: int, height: int, categories: set[int], problems: Problems, name: str
) -> Part | None:
    """The part that `record` describes on an image of `width` x `height` pixels, or None; faults go to `problems`."""
    if not isinstance(record, dict):
        problems.add(name, "annotation", f"is {text_of(record)}, not a record", "dropped")
        return None
    faults: list[Fault] = []
    try:
        category = _category(record.get("category_id"), categories, faults)
        shape = clean_segmentation(record.get("segmentation"), width, height, faults)
    except Unusable as fault:
        faults.append(fault.row("annotation dropped"))
        return None
    finally:
        for part, what, done in faults:
            problems.add(name, part, what, done)
    area, bbox = shape.area, shape.bbox
    reported = record.get("area")
    if _is_real(reported) and float(reported) > 0:
        area = float(reported)
    else:
        problems.add(name, "area", f"is {text_of(reported)}", f"computed: {area:g}")
    box = record.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(_is_real(value) for value in box):
        bbox = tuple(float(value) for value in box)
    else:
        problems.add(name, "bbox", f"is {text_of(box)}, not four numbers", "computed")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        problems.add(name, "iscrowd", f"is {text_of(crowd)}", "taken as 0")
    return Part(category, json.dumps(shape.segmentation, separators=(",", ":")), area, bbox, int(crowd == 1))


def _category(value: Any, categories: set[int], faults: list[Fault]) -> int:
    number = whole_number(value)
    if number is None or number not in categories:
        raise Unusable("category_id", f"is {text_of(value)}, no category of the file")
    if not isinstance(value, int):
        faults.append(("category_id", f"is {text_of(value)}, not an integer", f"taken as {number}"))
    return number


def _is_real(value: Any) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and abs(value) < MAX_ID
    except OverflowError:
        return False

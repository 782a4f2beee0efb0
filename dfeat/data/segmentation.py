"""Checks one segmentation, polygons or RLE, so that pycocotools can read it; in no case raises anything but `Unusable`.

What enters: the value of a COCO annotation's `segmentation`, of any shape, and the image's size. What leaves:
a `Shape`, polygons of finite numbers in the image or compressed RLE of the image's size, covering at least a
pixel. pycocotools 2.0.11 crashes the process (a fault in C, no exception) on NaN and huge coordinates,
raises on short polygons, and accepts RLE of a wrong size silently, so every check comes before it is called.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dfeat.data.records import text_of

MAX_ID: Final = 2**53
AGREES: Final = 0.1
"""Share by which an area or a side may differ from the mask's before it contradicts it: masks are drawn in several ways."""
BOX_AGREES: Final = 2.0
"""Pixels by which a side of a box may differ besides: rounding, and counting from 1."""
TOLERANCE: Final = 1.0
"""Pixels by which a polygon may leave the image without a fault: rounding, which pycocotools clips."""
MAX_OUTLINE: Final = 1e6
"""Pixels of the longest outline that is accepted: pycocotools allocates some 50 bytes for each."""
MAX_COORDINATE: Final = 1e7
MAX_RUN: Final = 2**31
"""Pixels of the longest run of an RLE that is accepted; larger than any image that is read."""
Points = NDArray[np.float64]
Fault = tuple[str, str, str]
"""(field, what, done) of one record."""


class Unusable(Exception):
    """A field that cannot be used, and why."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field} {what}")
        self.field, self.what = field, what

    def row(self, done: str) -> Fault:
        """The fault as a row of problems.csv."""
        return self.field, self.what, done


@dataclass(frozen=True)
class Shape:
    """A usable segmentation: lists of x, y or compressed RLE; area in pixels, box as x, y, width, height."""

    segmentation: list[list[float]] | dict[str, Any]
    area: float
    bbox: tuple[float, ...]
    outline: float = 0.0
    """Pixels along its edges: by one for each of them two ways to count an area may differ. 0 for RLE."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the image."""

    def has_area(self, area: float) -> bool:
        """Whether an area may be that of the shape: of its polygons, or of the mask that pycocotools makes of them."""
        tolerance = AGREES * self.area + self.outline
        return abs(area - self.area) <= tolerance or abs(area - self._mask_area()) <= tolerance

    def _mask_area(self) -> float:
        """Pixels of the mask, those that polygons share counted once."""
        if isinstance(self.segmentation, dict):
            return self.area
        width, height = self.size
        return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(self.segmentation, height, width))))

    def has_box(self, box: tuple[float, ...]) -> bool:
        """Whether a box (left, top, width, height) may be that of the shape."""
        corners = [(side, side + length) for side, length in ((box[0], box[2]), (box[1], box[3]))]
        own = [(side, side + length) for side, length in ((self.bbox[0], self.bbox[2]), (self.bbox[1], self.bbox[3]))]
        ends = zip(corners, own, strict=True)
        return all(
            abs(ours - theirs) <= BOX_AGREES + AGREES * (there[1] - there[0])
            for here, there in ends
            for ours, theirs in zip(here, there, strict=True)
        )


def whole_number(value: Any) -> int | None:
    """`value` as an int if it denotes one (3, 3.0, "3"), otherwise None; booleans are not numbers here."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) <= MAX_ID else None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) and abs(value) <= MAX_ID else None
    if isinstance(value, str) and len(value) < 20 and re.fullmatch(r"\s*-?\d+\s*", value):
        return whole_number(int(value))
    return None


def clean_segmentation(value: Any, width: int, height: int, faults: list[Fault]) -> Shape:
    """Repair a segmentation, with a row in `faults` for each repair. Raises Unusable if nothing usable is left."""
    if isinstance(value, dict):
        return _rle_shape(value, width, height)
    if not isinstance(value, list):
        raise _unusable(f"is {text_of(value)}, neither polygons nor RLE")
    if not value:
        raise _unusable("is empty")
    if not any(isinstance(part, list) for part in value):
        faults.append(("segmentation", "is one flat list", "taken as one polygon"))
        value = [value]
    polygons: list[Points] = []
    unusable: list[Unusable] = []
    for polygon in value:
        try:
            polygons.append(_clean_polygon(polygon, width, height, faults))
        except Unusable as fault:
            unusable.append(fault)
    if not polygons:
        faults += [fault.row("annotation dropped") for fault in unusable[:-1]]
        raise unusable[-1]
    faults += [fault.row("polygon dropped") for fault in unusable]
    points = np.concatenate(polygons)
    low, high = points.min(axis=0).clip(0), np.minimum(points.max(axis=0), (width, height))
    bbox = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    area, outline = math.fsum(map(_enclosed, polygons)), math.fsum(map(_outline, polygons))
    return Shape([polygon.reshape(-1).tolist() for polygon in polygons], area, bbox, outline, (width, height))


def _unusable(what: str) -> Unusable:
    return Unusable("segmentation", what)


def _clean_polygon(polygon: Any, width: int, height: int, faults: list[Fault]) -> Points:
    if not isinstance(polygon, list):
        raise _unusable(f"a polygon is {text_of(polygon)}, not a list")
    if len(polygon) < 6 or len(polygon) % 2:
        raise _unusable(f"a polygon has {len(polygon)} numbers; an even number from 6 on is needed")
    numbers = _numbers(polygon, faults)
    if not np.isfinite(numbers).all():
        raise _unusable("a polygon contains NaN or infinity")
    if np.abs(numbers).max() > MAX_COORDINATE:
        raise _unusable(f"a polygon has a coordinate of {np.abs(numbers).max():.3g}")
    points = numbers.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    if (low < -TOLERANCE).any() or high[0] > width + TOLERANCE or high[1] > height + TOLERANCE:
        points = clip_polygon(points, width, height)
        if len(points) < 3:
            raise _unusable("a polygon lies outside the image")
        faults.append(("segmentation", "a polygon leaves the image", "cut at the image's border"))
    if np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum() > MAX_OUTLINE:
        raise _unusable(f"a polygon has an outline of more than {MAX_OUTLINE:,.0f} pixels")
    if not _covers_pixels(points, width, height):
        raise _unusable("a polygon covers no pixel")
    return points


def _numbers(values: list[Any], faults: list[Fault]) -> Points:
    try:
        if all(type(value) is float or type(value) is int for value in values):
            return np.array(values, dtype=np.float64)
        if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in values):
            raise ValueError
        numbers = np.array([float(value) for value in values], dtype=np.float64)
    except OverflowError:
        raise _unusable("a polygon has a number beyond all bounds") from None
    except ValueError:
        raise _unusable("a polygon contains something that is not a number") from None
    faults.append(("segmentation", "a polygon has numbers written as text", "read as numbers"))
    return numbers


def _covers_pixels(points: Points, width: int, height: int) -> bool:
    """Whether the polygon covers a pixel; rasterises it only if it may be too thin."""
    outline = _outline(points)
    if outline == 0:
        return False
    # 2 * area / perimeter is the width of a long thin shape; above 2 pixels it is taken to cover one.
    if 2 * _enclosed(points) / outline > 2:
        return True
    rles = coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
    return int(coco_mask.area(rles[0])) > 0


def _outline(points: Points) -> float:
    return float(np.hypot(*np.diff(points, axis=0, append=points[:1]).T).sum())


def _enclosed(points: Points) -> float:
    x, y = points[:, 0], points[:, 1]
    # Shoelace formula: A = |sum_i (x_i y_(i+1) - y_i x_(i+1))| / 2
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def clip_polygon(points: Points, width: int, height: int) -> Points:
    """Cut a polygon (n, 2) at the image's border (Sutherland and Hodgman 1974)."""
    for axis, bound, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        if not len(points):
            break
        inside = (points[:, axis] - bound) * sign >= 0
        kept: list[Points] = []
        for here, there, here_in, there_in in zip(
            points, np.roll(points, -1, axis=0), inside, np.roll(inside, -1), strict=True
        ):
            if here_in:
                kept.append(here)
            if here_in != there_in:
                crossing = here + (there - here) * ((bound - here[axis]) / (there[axis] - here[axis]))
                crossing[axis] = bound
                kept.append(crossing)
        points = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return points


def _rle_shape(value: dict[str, Any], width: int, height: int) -> Shape:
    """RLE in any of its three forms, made canonical and compressed."""
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list | tuple) or [whole_number(side) for side in size] != [height, width]:
        found = "x".join(text_of(side) for side in size[:3]) if isinstance(size, list | tuple) else text_of(size)
        raise _unusable(f"is RLE of size {found}; the image is {height}x{width} (height x width)")
    if isinstance(counts, str | bytes):
        decoded = decode_counts(counts.encode("utf-8", "replace") if isinstance(counts, str) else counts)
        runs = None if decoded is None else decoded.tolist()
    elif isinstance(counts, list):
        runs = counts if all(type(count) is int for count in counts) else None
    else:
        raise _unusable(f"is RLE whose counts are {text_of(counts)}")
    if not runs or min(runs) < 0:
        raise _unusable("is RLE whose counts are no run lengths")
    # The runs alternate outside and inside and cover the image: they must add up to its area.
    if sum(runs) != width * height:
        raise _unusable(f"is RLE whose counts add up to {text_of(sum(runs))}, not {width * height}")
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    area = float(coco_mask.area(rle))
    if area == 0:
        raise _unusable("is RLE that covers no pixel")
    bbox = tuple(float(side) for side in coco_mask.toBbox(rle))
    return Shape({"size": [height, width], "counts": rle["counts"].decode("ascii")}, area, bbox)


def decode_counts(text: bytes) -> NDArray[np.int64] | None:
    """Run lengths of a compressed RLE (COCO's rleFrString), or None where the text is none.

    Each run is a little-endian number in 5-bit groups, character 48 + group, bit 32 meaning "more follow";
    from the fourth run on it is the difference to the run before the last.
    """
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        return None
    last = np.flatnonzero(groups & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    # x = sum_j (group_j & 31) << 5 j, j the place of the group within its number
    shift = 5 * (np.arange(len(groups)) - np.repeat(first, last - first + 1))
    if shift.max() > 30:
        return None
    runs = np.add.reduceat((groups & 31) << shift, first)
    # two's complement: bit 16 of the last group is the sign
    runs -= np.where(groups[last] & 16, 32 << shift[last], 0)
    # r_i = x_i + r_(i-2) from i = 3 on: r_1, r_3, ... and r_2, r_4, ... are running sums
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return None if np.abs(runs).max() > MAX_RUN else runs

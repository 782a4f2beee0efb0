"""Parse a COCO annotation file of which any record may be malformed; no record makes this raise or hang.

What enters: a JSON file of a `Source`. What leaves: its categories, its images by id, its annotations by image and, of
an annotation, a `Part` whose segmentation pycocotools reads without trouble, with a row in `Problems` for each record
that is mended or dropped. Shapes: see `segmentation.py`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeGuard

from dfeat.data.classes import is_wnid
from dfeat.data.records import Problems, text_of
from dfeat.data.segmentation import MAX_ID, Fault, Shape, Unusable, clean_segmentation, whole_number
from dfeat.data.sources import Source
from dfeat.errors import UserError

SPLITS: Final = ("train", "val", "test")
MAX_JSON: Final = 512 << 20
"""Bytes of the largest annotation file; COCO's own has 450 MB. Parsed it takes some six times that in memory."""


@dataclass(frozen=True)
class AnnotationFile:
    """A COCO file inside the source: its split ("" where its name tells none), its layout, its content."""

    name: str
    split: str
    layout: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A usable part annotation. `segmentation` is JSON text, which takes less memory than lists."""

    category_id: int
    segmentation: str
    area: float
    bbox: tuple[float, ...]
    iscrowd: int


def layout_of(name: str) -> tuple[str, str]:
    """(layout, split) that the path of an annotation file stands for."""
    parts = PurePosixPath(name).parts
    stem = PurePosixPath(name).stem.lower()
    if is_wnid(stem):
        return "by_class", ""
    if stem not in SPLITS:
        tokens = stem.replace("-", "_").split("_")
        return "coco", next((split for split in SPLITS if split in tokens), "")
    if len(parts) >= 3 and parts[-2].lower() == stem and parts[-3].lower() == "annotations":
        return "seg", stem
    return "ood", stem


def read_annotations(source: Source, name: str, problems: Problems) -> AnnotationFile | None:
    """Parse a file of the source; None, with a row in `problems`, where it is no COCO annotation file."""
    try:
        raw = source.read(name)
        if len(raw) > MAX_JSON:
            raise UserError(f"{name} has {len(raw):,} bytes, more than the {MAX_JSON:,} of any annotation file")
        content = json.loads(raw)
    except UserError as error:
        problems.add(name, "file", str(error), "ignored")
        return None
    except RecursionError:
        problems.add(name, "file", "is nested too deeply", "ignored")
        return None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        problems.add(name, "file", f"is not readable JSON ({error})", "ignored")
        return None
    lists = content if isinstance(content, dict) else {}
    lacking = [key for key in ("images", "annotations", "categories") if not isinstance(lists.get(key), list)]
    if lacking:
        problems.add(name, "file", f"is no COCO annotation file: it has no list of {', '.join(lacking)}", "ignored")
        return None
    layout, split = layout_of(name)
    return AnnotationFile(name, split, layout, content)


def read_categories(file: AnnotationFile, problems: Problems, known: dict[int, dict[str, Any]]) -> dict[int, int]:
    """The file's categories, each id with the one it has among those `known`, to which they are added.

    The file of one class counts categories of its own, which get the next ids. In others an id is the same category in every
    file: UserError where it has two names.
    """
    here: dict[int, int] = {}
    for position, record in enumerate(file.content["categories"]):
        number = whole_number(record.get("id")) if isinstance(record, dict) else None
        name = record.get("name") if isinstance(record, dict) else None
        where = f"{file.name} category {position}"
        if number is None or not 0 <= number < 2**31 or not isinstance(name, str) or not name.strip():
            problems.add(where, "category", "has no usable id and name", "dropped with its annotations")
            continue
        name, above = text_of(name), record.get("supercategory")
        supercategory = text_of(above) if isinstance(above, str) else ""
        if number in here:
            problems.add(where, "id", f"category {number} stands there twice", "taken once")
        own = here.get(number, len(known)) if file.layout == "by_class" else number
        other = known.setdefault(own, {"id": own, "name": name, "supercategory": supercategory})
        if other["name"] != name:
            raise UserError(
                f"{file.name}: category {number} is {name!r} there and {other['name']!r} before; "
                "the splits belong to different data sets, keep only those that belong together"
            )
        here[number] = own
    return here


def read_images(file: AnnotationFile, problems: Problems) -> dict[int | str, dict[str, Any] | None]:
    """Image records by id. An id that different images share is None: whose its annotations are is not known."""
    images: dict[int | str, dict[str, Any] | None] = {}
    for position, record in enumerate(file.content["images"]):
        where = f"{file.name} image {position}"
        if not isinstance(record, dict):
            problems.add(where, "image", f"is {text_of(record)}, not a record", "dropped")
            continue
        name = record.get("file_name")
        number = identifier(record.get("id"))
        if not isinstance(name, str) or not name:
            problems.add(where, "file_name", f"is {text_of(name)}", "image dropped with its annotations")
            if number is not None:
                images.setdefault(number, None)
        elif number is None:
            problems.add(name, "id", f"is {text_of(record.get('id'))}", "image dropped with its annotations")
        elif number in images:
            other = images[number]
            if other is not None and other["file_name"] == name:
                problems.add(name, "id", f"image {number} stands there twice", "taken once")
            else:
                for shared in [name] if other is None else [name, other["file_name"]]:
                    problems.add(shared, "id", f"image id {number} belongs to several images", "all of them dropped")
                images[number] = None
        else:
            if isinstance(record["id"], str) and number != record["id"]:
                problems.add(name, "id", f"is the text {text_of(record['id'])}", f"taken as {number}")
            images[number] = record
    return images


def read_grouped(
    file: AnnotationFile, image_ids: set[int | str], problems: Problems
) -> dict[int | str, list[tuple[Any, dict[str, Any]]]]:
    """(id, annotation) by image id; ids that are missing or stand there twice are noted."""
    grouped: dict[int | str, list[tuple[Any, dict[str, Any]]]] = defaultdict(list)
    seen: dict[int | str, dict[str, Any]] = {}
    for position, record in enumerate(file.content["annotations"]):
        where = f"{file.name} annotation at {position}"
        if not isinstance(record, dict):
            problems.add(where, "annotation", f"is {text_of(record)}, not a record", "dropped")
            continue
        image_id = identifier(record.get("image_id"))
        if image_id is None or image_id not in image_ids:
            problems.add(where, "image_id", f"is {text_of(record.get('image_id'))}, no image of the file", "dropped")
            continue
        number = identifier(record.get("id"))
        if number is None:
            problems.add(where, "id", f"is {text_of(record.get('id'))}", "given a new id")
        elif number in seen:
            if _same(seen[number], record):
                problems.add(where, "id", f"annotation {number} stands there twice", "taken once")
                continue
            problems.add(where, "id", f"annotation id {number} belongs to several annotations", "given a new id")
        else:
            seen[number] = record
        grouped[image_id].append((position if number is None else number, record))
    return grouped


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:
        return False


def identifier(value: Any) -> int | str | None:
    """An id by which records refer to each other: a whole number, or else a non-empty text; otherwise None."""
    number = whole_number(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value else None


def clean_part(
    record: Any, width: int, height: int, categories: dict[int, int], problems: Problems, name: str
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
    # A polygon that was cut or dropped has a row of its own, and `area` and `bbox` were measured with it.
    reshaped = any(part == "segmentation" and ("cut" in done or "dropped" in done) for part, _, done in faults)
    noted = Problems(problems.set_name) if reshaped else problems
    area, bbox = _area(record.get("area"), shape, noted, name), _bbox(record.get("bbox"), shape, noted, name)
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        problems.add(name, "iscrowd", f"is {text_of(crowd)}", "taken as 0")
    return Part(category, json.dumps(shape.segmentation, separators=(",", ":")), area, bbox, int(crowd == 1))


def _area(reported: Any, shape: Shape, problems: Problems, name: str) -> float:
    """The area that a record has, or that of its shape where it has none or contradicts it."""
    if not _is_real(reported) or float(reported) <= 0:
        problems.add(name, "area", f"is {text_of(reported)}", f"computed: {shape.area:g}")
    elif shape.has_area(float(reported)):
        return float(reported)
    else:
        problems.add(name, "area", f"is {text_of(reported)}, and the mask has {shape.area:g} pixels", "computed")
    return shape.area


def _bbox(reported: Any, shape: Shape, problems: Problems, name: str) -> tuple[float, ...]:
    """The box that a record has, or that of its shape where it has none or contradicts it."""
    if not isinstance(reported, list) or len(reported) != 4 or not all(_is_real(value) for value in reported):
        problems.add(name, "bbox", f"is {text_of(reported)}, not four numbers", "computed")
        return shape.bbox
    box = tuple(float(value) for value in reported)
    if shape.has_box(box):
        return box
    shown = ", ".join(f"{value:g}" for value in box)
    there = ", ".join(f"{value:g}" for value in shape.bbox)
    problems.add(name, "bbox", f"is [{shown}], and the mask has [{there}] (left, top, width, height)", "computed")
    return shape.bbox


def _category(value: Any, categories: dict[int, int], faults: list[Fault]) -> int:
    number = whole_number(value)
    if number is None or number not in categories:
        raise Unusable("category_id", f"is {text_of(value)}, no category of the file")
    if not isinstance(value, int):
        faults.append(("category_id", f"is {text_of(value)}, not an integer", f"taken as {number}"))
    return categories[number]


def _is_real(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_ID

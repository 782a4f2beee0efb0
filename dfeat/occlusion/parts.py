"""Part choice: the half of an object's parts whose union is largest (Sec. 3, "Input Augmentation").

What enters: the training index with its checked COCO annotations. What leaves: `parts.json`, per image n, k, the chosen
part categories, the area and share of their union, and the masks of that union and of the whole object as COCO RLE.
Images that would show less than `occlusion.min_visible` of their object stand apart, under `own_twin`.

"For an object with n parts we use n/2 or (n + 1)/2 parts [...] we choose the part combinations that result in
the maximum area of occlusion." The area is that of the union, so overlapping masks are not counted twice.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dfeat.data.index import read_index
from dfeat.data.segmentation import decode_counts
from dfeat.errors import UserError
from dfeat.methods.runs import Runs
from dfeat.occlusion.settings import PartsStage
from dfeat.storage.atomic import write_json
from dfeat.storage.expected import check_settings
from dfeat.storage.records import parsed, read_digested, refusal

RECIPE: Final = 2
Rle = dict[str, Any]
EXACT_PARTS: Final = 16
"""The largest number of overlapping parts for which all combinations are compared; above it the choice is greedy."""


@dataclass(frozen=True)
class Choice:
    """The parts chosen of one image: positions in the list of masks, and the area of their union in pixels."""

    chosen: tuple[int, ...]
    area: int


def choose_parts(masks: NDArray[np.bool_], share: float = 0.5) -> Choice:
    """`choose_rles` for part masks (n, H, W)."""
    return choose_rles(coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))), share)


def choose_rles(rles: list[Rle], share: float = 0.5) -> Choice:
    """Choose k = ceil(share * n) of n part masks, COCO RLEs of one size, so that their union is largest.

    Exact up to EXACT_PARTS masks, overlapping or not, and for any number of disjoint ones; ties go to the lowest
    positions. Above that the choice is greedy, which covers at least 1 - 1/e of the best union (Nemhauser, Wolsey and
    Fisher, 1978). No mask is decoded, so the cost grows with the length of the outlines, not with the area.
    """
    areas = coco_mask.area(rles)
    # Disjoint parts: |A_1 u ... u A_n| = sum |A_i|, so the k largest areas are the largest union.
    k = math.ceil(share * len(rles))
    if int(areas.sum()) == int(coco_mask.area(coco_mask.merge(rles))):
        return _choose_largest(areas, k)
    return _choose_exact(rles, k) if len(rles) <= EXACT_PARTS else _choose_greedily(rles, k)


def _choose_largest(areas: NDArray[Any], k: int) -> Choice:
    """The k largest of disjoint parts."""
    order = np.lexsort((np.arange(len(areas)), -areas.astype(np.int64)))[:k]
    return Choice(tuple(sorted(order.tolist())), int(areas[order].sum()))


def _choose_exact(rles: list[Rle], k: int) -> Choice:
    """Compare all combinations of k parts.

    A pixel's pattern S is the set of parts that cover it, as n bits; f(S) is the number of pixels of that pattern. A
    combination c misses the pixels whose pattern lies in its complement, so it covers total - F(complement of c) with
    F(T) = sum of f(S) over all subsets S of T. The zeta transform gives F for all 2^n sets T in n passes.
    """
    n = len(rles)
    subsets = _pattern_areas(rles)
    total = int(subsets.sum())
    for position in range(n):
        # F(T) += F(T without part `position`) for every T that has it: axis 1 is that bit.
        pairs = subsets.reshape(-1, 2, 1 << position)
        pairs[:, 1] += pairs[:, 0]
    of_size_k = _combinations(n, k)
    # |union of c| = total - F(complement of c)
    areas = total - subsets[(1 << n) - 1 - of_size_k]
    best = of_size_k[areas == areas.max()]
    for position in range(n):  # among equal areas keep the lowest positions
        having = best[best >> position & 1 == 1]
        best = having if len(having) else best
    return Choice(tuple(p for p in range(n) if int(best[0]) >> p & 1), int(areas.max()))


@cache
def _combinations(n: int, k: int) -> NDArray[np.int64]:
    """All combinations of k of n positions, as bit patterns, (n choose k,)."""
    patterns = np.arange(1 << n)
    return patterns[np.bitwise_count(patterns) == k]


def _pattern_areas(rles: list[Rle]) -> NDArray[np.int64]:
    """The number of pixels of each pattern, (2^n,); bit p of the index stands for part p.

    In an RLE's order (column by column) the pattern changes only where a run of some part ends. So the sorted run ends
    of all parts split the image into stretches of one pattern. The last stretch has length 0; pixels before the first
    run end have pattern 0, which every complement contains and which is therefore left out of both total and F.
    """
    ends = [_run_ends(rle) for rle in rles]
    at = np.concatenate(ends)
    order = np.argsort(at, kind="stable")
    toggled = np.repeat(1 << np.arange(len(rles)), [len(end) for end in ends])
    # A run end of part p flips bit p: a pattern is the XOR of all flips so far.
    patterns = np.bitwise_xor.accumulate(toggled[order])
    lengths = np.diff(at[order], append=at[order[-1]])
    return np.bincount(patterns, weights=lengths, minlength=1 << len(rles)).astype(np.int64)


def _run_ends(rle: Rle) -> NDArray[np.int64]:
    """Positions at which an RLE's runs end; runs alternate between pixels outside and inside the mask."""
    runs = decode_counts(rle["counts"])
    assert runs is not None, "pycocotools writes what decode_counts reads"
    return runs.cumsum()


def _choose_greedily(rles: list[Rle], k: int) -> Choice:
    """Take k times the part that adds the most pixels.

    A part's gain never grows, so its last known gain is an upper bound, and only the head of a queue ordered by these
    bounds needs recomputing (lazy greedy; Minoux, 1978).
    """
    covered: Rle | None = None
    area = 0
    queue = [(-int(part), position) for position, part in enumerate(coco_mask.area(rles))]
    heapq.heapify(queue)
    chosen: list[int] = []
    while len(chosen) < k:
        _, position = heapq.heappop(queue)
        united = rles[position] if covered is None else coco_mask.merge([covered, rles[position]])
        gain = int(coco_mask.area(united)) - area
        if queue and (-gain, position) > queue[0]:
            heapq.heappush(queue, (-gain, position))
        else:
            covered, area = united, area + gain
            chosen.append(position)
    return Choice(tuple(sorted(chosen)), area)


def part_rles(annotations: Iterable[dict[str, Any]], height: int, width: int, unit: str) -> dict[int, Rle]:
    """The parts of one image that cover a pixel, as COCO RLEs of (height, width), in ascending order of their id.

    With `unit` "category" the instances of a part category are united under its id; with "annotation" each annotation
    is a part, under its own id.
    """
    instances: dict[int, list[Rle]] = {}
    for annotation in annotations:
        name = annotation["category_id" if unit == "category" else "id"]
        instances.setdefault(name, []).extend(_as_rles(annotation["segmentation"], height, width))
    united = {name: coco_mask.merge(instances[name]) for name in sorted(instances)}
    return {name: rle for name, rle in united.items() if coco_mask.area(rle) > 0}


def rle_mask(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode a COCO RLE into a boolean mask (height, width)."""
    counts = rle["counts"]
    plain = {"size": rle["size"], "counts": counts.encode() if isinstance(counts, str) else counts}
    return np.asarray(coco_mask.decode(plain)).astype(bool)


def _as_rles(segmentation: Any, height: int, width: int) -> list[Rle]:
    """A checked COCO segmentation (polygons, or RLE with counts as list or text) as compressed RLEs."""
    if isinstance(segmentation, list):
        return list(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return [coco_mask.frPyObjects(segmentation, height, width)]
    counts = segmentation["counts"]
    return [{"size": segmentation["size"], "counts": counts.encode() if isinstance(counts, str) else counts}]


def _plain(rle: Rle) -> Rle:
    """The RLE with types that JSON can encode."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def choose_all(index_folder: Path, settings: PartsStage, out: Path) -> int:
    """Choose the parts of every annotated image of the index and write parts.json; return the number of images.

    An image without a usable part is left out: training uses it unchanged, without an augmented twin. So is one that
    would show less than `settings.min_visible` of its object; its row stands under `own_twin`. Raises UserError if the
    index has no annotations, no image with a usable part, or none that shows enough.
    """
    index = read_index(index_folder)
    coco = index.annotations()
    if coco is None:
        raise UserError(f"{index_folder} has no part annotations; parts are chosen for the training set only")
    names = {category["id"]: category["name"] for category in coco["categories"]}
    rows: dict[str, Any] = {}
    for image, parts in sorted(annotated_images(coco), key=lambda pair: pair[0]["key"]):
        row = choice_row(parts, image["height"], image["width"], settings)
        if row is not None:
            rows[image["key"]] = row
    if not rows:
        raise UserError(f"no image of {index_folder} has a usable part; see {index_folder / 'problems.csv'}")
    images = {key: row for key, row in rows.items() if visible_share(row) >= settings.min_visible}
    if not images:
        most = max(map(visible_share, rows.values()))
        raise UserError(
            f"occlusion.min_visible is {settings.min_visible}, but no image of {index_folder} would show so much of its "
            f"object: the largest share is {most:.3f}; set it below that"
        )
    content = {
        "recipe": RECIPE,
        "settings": settings.model_dump(mode="json"),
        "index": index.digest,
        "categories": {str(number): name for number, name in sorted(names.items())},
        "images": images,
    }
    if settings.min_visible:
        content["own_twin"] = {key: row for key, row in rows.items() if key not in images}
    write_json(out, content)
    return len(images)


def annotated_images(coco: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each image record of a cleaned COCO file with its annotations, in the order of the file."""
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    return [(image, by_image[image["id"]]) for image in coco["images"]]


def choice_row(
    annotations: list[dict[str, Any]], height: int, width: int, settings: PartsStage
) -> dict[str, Any] | None:
    """An image's row of parts.json, from its checked annotations; None if no part covers a pixel."""
    parts = part_rles(annotations, height, width, settings.unit)
    if not parts:
        return None
    names, rles = list(parts), list(parts.values())
    choice = choose_rles(rles, settings.share)
    whole = coco_mask.merge(rles)
    return {
        "n": len(names),
        "k": len(choice.chosen),
        "parts": names,
        "chosen": [names[position] for position in choice.chosen],
        "area": choice.area,
        "share": round(choice.area / (height * width), 6),
        "object_area": int(coco_mask.area(whole)),
        "mask": _plain(coco_mask.merge([rles[position] for position in choice.chosen])),
        "object": _plain(whole),
    }


def visible_share(row: dict[str, Any]) -> float:
    """The share of an object's area that its occluded twin shows, from the image's row of parts.json."""
    return float((row["object_area"] - row["area"]) / row["object_area"])


@dataclass(frozen=True)
class Parts:
    """The content of parts.json: a row for each image that has an occluded twin. Masks are decoded on demand."""

    rows: dict[str, dict[str, Any]]
    categories: dict[int, str]
    index: str = ""
    """SHA-256 of the index.csv whose images these are."""
    digest: str = ""
    """SHA-256 of parts.json itself."""
    own_twins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The rows of images that would show less of their object than `min_visible`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings of `dfeat parts` by which the parts were chosen, as JSON."""
    _runs: dict[tuple[str, str], Runs] = field(default_factory=dict, repr=False, compare=False)

    def mask(self, key: str, which: str = "mask") -> NDArray[np.bool_]:
        """The union of the chosen parts ("mask") or of all parts ("object") of an image, (H, W).

        An image of `own_twins` has an "object" and no "mask".
        """
        row = self.own_twins[key] if which == "object" and key in self.own_twins else self.rows[key]
        return rle_mask(row[which])

    def runs(self, key: str, which: str = "mask") -> Runs:
        """The same as runs, which are kept: training takes crops of every mask in each epoch."""
        if (key, which) not in self._runs:
            self._runs[key, which] = Runs.of(self.mask(key, which))
        return self._runs[key, which]


def read_parts(path: Path, *, index: str | None = None) -> Parts:
    """Read parts.json. Raises UserError if it is missing, damaged, or not made from the index of that digest."""
    raw, digest = read_digested(path, "parts")
    content = parsed(path, raw, "parts")
    try:
        categories = {int(number): name for number, name in content["categories"].items()}
        own_twins, settings = content.get("own_twin", {}), content.get("settings", {})
        parts = Parts(content["images"], categories, content.get("index", ""), digest, own_twins, settings)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise refusal(path, f"it is not a parts.json ({error})", "parts") from None
    if index is not None and parts.index != index:
        raise refusal(path, "it was made from another index", "parts")
    check_settings(path, settings, "parts")
    return parts

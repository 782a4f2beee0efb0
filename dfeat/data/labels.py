"""Label files of ImageNet val, in the forms in circulation.

What enters: a text file. What leaves: `Labels`, image key -> wnid. Forms: lines of file name and wnid (also
Kaggle's LOC_val_solution.csv), lines of file name and class index, one wnid a line, one class index a line
(0 to 999, sorted wnids, as timm has them), or the devkit's ids (1 to 1000). The devkit's ids are in an order
of its own, so they are read only with its own list, meta.mat or a text of wnids, beside the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dfeat.data.classes import WNID, imagenet_wnids, is_wnid
from dfeat.data.images import is_image_name
from dfeat.errors import UserError

_NUMBER = re.compile(r"_val_(\d{8})(?:\D|$)", re.ASCII | re.IGNORECASE)
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LISTS = (
    "meta.mat",
    "map_clsloc.txt",
    "synsets.txt",
    "imagenet_lsvrc_2012_synsets.txt",
    "imagenet_lsvrc_2015_synsets.txt",
)


@dataclass
class Labels:
    """Classes by image key in lower case, or by the number in the image's name."""

    by_key: dict[str, str] = field(default_factory=dict)
    by_number: tuple[str, ...] = ()

    def find(self, key: str) -> str | None:
        """The wnid of an image, or None."""
        if key.casefold() in self.by_key:
            return self.by_key[key.casefold()]
        number = _NUMBER.search(key)
        place = int(number.group(1)) if number else 0
        return self.by_number[place - 1] if 1 <= place <= len(self.by_number) else None

    def without_image(self, keys: Collection[str], wnids: Collection[str]) -> tuple[int, list[str]]:
        """How many images of these classes (of all, where there are none) have a label, and which of them are not in `keys`."""
        numbers = {int(number.group(1)) for number in map(_NUMBER.search, keys) if number}
        there = {key.casefold() for key in keys}
        named = [(key, wnid, key in there) for key, wnid in self.by_key.items()]
        named += [(f"number {place}", wnid, place in numbers) for place, wnid in enumerate(self.by_number, 1)]
        wanted = [(key, found) for key, wnid, found in named if not wnids or wnid in wnids]
        return len(wanted), [key for key, found in wanted if not found]


def read_labels(path: Path) -> Labels:
    """Read a label file of any form. Raises UserError, naming the line, where it has none of them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the label file {path}: {error}") from None
    rows = [
        (number, re.split(r"[\s,;]+", line.strip().strip('"'))) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rows:
        raise UserError(f"the label file {path} is empty")
    if all(len(cells) == 1 for _, cells in rows):
        return Labels(by_number=_one_a_line(path, rows))
    by_key: dict[str, str] = {}
    for number, cells in rows:
        key, wnid = _key(cells), _class(cells)
        if key and wnid:
            before = by_key.setdefault(key.casefold(), wnid)
            if before != wnid:
                raise UserError(f"{path}, line {number}: {key} has the class {wnid} there and {before} before")
        elif number != rows[0][0]:  # the first line may be a header
            raise UserError(f"{path}, line {number}: no file name and wnid in {' '.join(cells)[:80]!r}")
    return Labels(by_key=by_key)


def _key(cells: list[str]) -> str | None:
    for cell in cells:
        name = PurePosixPath(cell.strip('"').replace("\\", "/")).name
        if is_image_name(name):
            return PurePosixPath(name).stem
        if _NUMBER.search(name):
            return name
    return None


def _class(cells: list[str]) -> str | None:
    for cell in cells:
        if is_wnid(cell.strip('"')):
            return cell.strip('"')
    if len(cells) == 2 and cells[1].isdecimal() and int(cells[1]) < len(imagenet_wnids()):
        return imagenet_wnids()[int(cells[1])]
    return None


def _one_a_line(path: Path, rows: list[tuple[int, list[str]]]) -> tuple[str, ...]:
    cells = [cell for _, (cell,) in rows]
    if all(is_wnid(cell) for cell in cells):
        return tuple(cells)
    for number, (cell,) in rows:
        if not cell.isdecimal() or len(cell) > 4 or int(cell) > 1000:
            raise UserError(f"{path}, line {number}: {cell[:80]!r} is neither a wnid nor a class index from 0 to 1000")
    indices = [int(cell) for cell in cells]
    if path.name == _GROUND_TRUTH or max(indices) == 1000:
        if min(indices) < 1:
            raise UserError(
                f"{path} has both 0 and 1000; class indices go from 0 to 999, the devkit's ids from 1 to 1000"
            )
        order = _devkit_order(path)
        return tuple(order[index - 1] for index in indices)
    return tuple(imagenet_wnids()[index] for index in indices)


def _devkit_order(labels: Path) -> tuple[str, ...]:
    """The wnids in the order of the devkit's ids, from a list beside the label file."""
    for folder in (labels.parent, labels.parent / "data", labels.parent.parent):
        for name in LISTS:
            if (folder / name).is_file():
                path = folder / name
                order = _from_meta(path) if path.suffix == ".mat" else _from_text(path)
                return _checked(order, path)
    raise UserError(
        f"{labels} has the devkit's ids (1 to 1000), which are in an order of its own; put the devkit's meta.mat "
        f"beside it (ILSVRC2012_devkit_t12/data/meta.mat), or give a file with wnids"
    )


def _from_meta(path: Path) -> dict[int, str]:
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(str(path), squeeze_me=True)["synsets"]
        return {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
    except Exception as error:  # on a broken .mat scipy raises exceptions of any type
        raise UserError(f"{path} is not the devkit's meta.mat ({error}); copy it again") from None


def _from_text(path: Path) -> dict[int, str]:
    order: dict[int, str] = {}
    for place, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        wnid = WNID.search(line)
        if wnid:
            number = re.search(r"(?:^|\s)(\d{1,4})(?:\s|$)", line)
            order[int(number.group(1)) if number else place] = wnid.group()
    return order


def _checked(order: dict[int, str], path: Path) -> tuple[str, ...]:
    wnids = tuple(order.get(number, "") for number in range(1, 1001))
    if set(wnids) != set(imagenet_wnids()):
        raise UserError(f"{path} does not name the 1,000 classes of ImageNet-1k for the ids 1 to 1000")
    if wnids == imagenet_wnids():
        raise UserError(
            f"{path} lists the wnids sorted; the devkit's ids are in another order, so labels read with it would be "
            "wrong: use the devkit's meta.mat"
        )
    return wnids

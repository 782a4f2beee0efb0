"""Near-duplicates: photographs of a folder that are, or nearly are, images of a run, on which a model may have been trained.

What enters: a folder of images, and indexes of a run. What leaves: pairs whose perceptual hashes differ in few bits. The
hash is pHash (Zauner 2010), 64 bits of the signs of low frequencies, as the library ImageHash computes it: resizing,
compression and small edits change few bits, another photograph about half of them. A cut to a part of an image is not found.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dfeat.data.files import images_of
from dfeat.data.images import decode
from dfeat.data.index import Index
from dfeat.data.records import Record
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.progress import progress, say

Hashes = NDArray[np.uint64]
Opened = Callable[[str], list[Image.Image]]
COLUMNS: Final = ("photograph", "set", "key", "file", "distance", "mirrored")


class Pair(NamedTuple):
    """A photograph, the image that it resembles, the bits in which their hashes differ, and whether one is mirrored."""

    photograph: str
    set: str
    key: str
    file: str
    distance: int
    mirrored: bool


def near(folder: Path, indexes: Iterable[Index], distance: int, threads: int = 1) -> list[Pair]:
    """All pairs of a photograph under `folder` and an image of the indexes that differ in at most `distance` of 64 bits.

    They are sorted by photograph, then by distance. Raises UserError for a folder without images.
    """
    source = Source(folder)
    names = images_of(source)
    if not names:
        raise UserError(f"{folder} holds no image; give the folder (or .zip) of your photographs")

    def opened(name: str) -> list[Image.Image]:
        picture = decode(source.read(name), name)[0]
        return [picture, ImageOps.mirror(picture)]

    photographs = _hashes(names, opened, threads, "photographs")
    pairs = []
    for index in indexes:
        records = {record.key: record for record in index.records}
        theirs = _hashes(list(records), partial(_of_record, index, records), threads, index.set_name)
        keys, hashes = list(theirs), np.array(list(theirs.values()), np.uint64).reshape(-1)
        for name, own in photographs.items():
            apart = np.bitwise_count(hashes ^ own[:, None])  # (2, N): as it is, and mirrored
            for place in np.flatnonzero(apart.min(axis=0) <= distance):
                record, (plain, mirrored) = records[keys[place]], apart[:, place].tolist()
                bits = min(plain, mirrored)
                pairs.append(Pair(name, index.set_name, record.key, record.file, bits, mirrored < plain))
    return sorted(pairs, key=lambda pair: (pair.photograph, pair.distance, pair.set, pair.key))


def _of_record(index: Index, records: dict[str, Record], key: str) -> list[Image.Image]:
    return [Image.fromarray(index.load(records[key]))]


def _hashes(names: list[str], opened: Opened, threads: int, what: str) -> dict[str, Hashes]:
    """The hashes (n,) of the n pictures of each image that can be read; the others are named on standard error."""

    def one(name: str) -> Hashes | UserError:
        try:
            bits = [imagehash.phash(picture).hash.ravel() for picture in opened(name)]
        except UserError as error:
            return error
        return np.packbits(bits, axis=1).view(np.uint64)[:, 0]

    found: dict[str, Hashes] = {}
    bar = progress(len(names), f"near {what}")
    with ThreadPoolExecutor(threads) as pool:
        for name, made in zip(names, pool.map(one, names), strict=True):
            bar.update()
            if isinstance(made, UserError):
                say(f"near leaves out {name}: {made}")
            else:
                found[name] = made
    bar.close()
    return found


def as_csv(pairs: Iterable[Pair]) -> str:
    """The pairs as a CSV table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((*pair[:5], str(pair.mirrored).lower()) for pair in pairs)
    return text.getvalue()

"""Training items of each method beside those of None: how much longer its pictures, masks and features take to prepare.

Batches of 64 items, half of them twins, of 224 px, from the pixel cache of drawn photographs with drawn parts, in one
process with one thread and no workers. An epoch is made first: it reads what later ones keep. Times are processor times of
the thread, on which other programs have little influence.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.index import overlapping
from bench.photographs import HEIGHT, WIDTH, write_photographs
from bench.table import Comparison, Result, side_by_side
from dfeat.data.index import Index
from dfeat.data.pixels import PixelCache
from dfeat.methods import METHODS, REFERENCE
from dfeat.occlusion.parts import Parts, choice_row
from dfeat.occlusion.settings import PartsStage
from dfeat.storage.shards import Rows
from dfeat.training.dataset import TrainingBatches
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Sources

IMAGES: Final = 128
BAR: Final = 1.5
"""Of a picture that is cropped: a method that draws partners crops one more for each twin, and so 1.5 for an item."""
MOST_PARTS: Final = 6


def run(rounds: int = 5, images: int = IMAGES, **_: Any) -> Result:
    """Time an epoch of every method, `rounds` times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
            sources = sources_of(write_photographs(Path(name), images))
            ways = {one.name: _epoch(one.name, sources) for one in METHODS}
            timed = side_by_side(ways, rounds, clock=time.thread_time)
    finally:
        torch.set_num_threads(threads)
    of_item = {name: 1000 * timed.median(name) / (2 * images) for name in ways}
    pictures = {one.name: 1.5 if "partner_seed" in one.reads else 1.0 for one in METHODS}
    rows = [
        Comparison(
            f"item of {name}", of_item[name], of_item[REFERENCE], "ms", BAR * pictures[name], "an item of None", "at most",
            timed.ratio(name, REFERENCE),
        )
        for name in ways
        if name != REFERENCE
    ]  # fmt: skip
    shares = [row["share"] for row in sources.parts.rows.values()]
    rates = {f"{name}, items/s": round(1000 / took) for name, took in of_item.items()}
    return Result(rows, {"hidden": f"{100 * np.mean(shares):.0f} % of a photograph"} | rates)


def sources_of(index: Index) -> Sources:
    """What all methods read: the photographs, drawn parts, the photographs again as inpaintings, and random features."""
    keys = [record.key for record in index.records]
    labels = {record.key: record.label for record in index.records}
    drawn = [overlapping(2 + number % (MOST_PARTS - 1), number) for number in range(len(keys))]
    chosen = (choice_row(parts, HEIGHT, WIDTH, PartsStage()) for parts in drawn)
    rows = {key: row for key, row in zip(keys, chosen, strict=True) if row is not None}
    cache, wnids = PixelCache(index.folder / "pixels.h5"), [info.wnid for info in index.classes]
    payload = np.random.default_rng(0).standard_normal((len(keys), 5120), np.float32).astype(np.float16)
    features = Rows(payload, {key: row for row, key in enumerate(keys)}, "{}", "")
    return Sources(cache, keys, labels, wnids, Parts(rows, {}), cache, features, features)


def _epoch(name: str, sources: Sources) -> Callable[[], None]:
    """The batches of the first epoch of a method, one after another."""
    batches = TrainingBatches(name, sources, TrainingSettings(batch_size=64), 0, 0)

    def make() -> None:
        for step in range(batches.steps_per_epoch):
            batches[step]

    return make

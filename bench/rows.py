"""Random reads of feature rows: ours, by numpy's memory map of the same rows, and by HDF5 row by row.

Batches have 64 rows of 41 KB (1,280 channels pooled to 4 x 4, float16), in a random order of all rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from bench.table import Comparison, Result, Timed, side_by_side
from dfeat.storage.shards import PAYLOADS, Shard, read_rows, write_shard

ROWS: Final = 4096
WIDTH: Final = 1280 * 4 * 4
BATCH: Final = 64
KIND: Final = "features"


def run(rounds: int = 5, count: int = ROWS, **_: Any) -> Result:
    """Write the rows once, and time reading all of them in random batches in each way, `rounds` times."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, WIDTH), np.float32).astype(np.float16)
    keys = [f"n{number:08}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        shard, plain = Path(name) / "features.h5", Path(name) / "features.npy"
        write_shard(shard, Shard(KIND, 1, {}, "", keys, rows))
        np.save(plain, rows)
        del rows
        order = rng.permutation(count).reshape(-1, BATCH)
        with h5py.File(shard, "r") as file:
            dataset = file[PAYLOADS[KIND]]
            mapped, loaded = read_rows([shard], KIND, fits=0).payload, read_rows([shard], KIND).payload
            memmap = np.load(plain, mmap_mode="r")
            ways: dict[str, Callable[[], Any]] = {
                "mapped": lambda: _read(order, lambda batch: mapped[batch]),
                "loaded": lambda: _read(order, lambda batch: loaded[batch]),
                "np.memmap": lambda: _read(order, lambda batch: memmap[batch]),
                "h5py d[i]": lambda: _read(order, lambda batch: np.stack([dataset[row] for row in batch])),
            }
            timed = side_by_side(ways, rounds)
    table = [
        _row(timed, count, "feature rows, mapped", "mapped", "np.memmap", 1.2, bound="at most"),
        _row(timed, count, "feature rows, loaded", "loaded", "np.memmap", 1.2, bound="at most"),
        _row(timed, count, "feature rows, mapped", "mapped", "h5py d[i]", 5.0),
    ]
    return Result(table, {"rows": f"{count:,} of {2 * WIDTH / 1e3:.0f} KB, batches of {BATCH}"})


def _read(order: NDArray[np.int64], read: Callable[[NDArray[np.int64]], NDArray[Any]]) -> None:
    for batch in order:
        assert read(batch).shape == (BATCH, WIDTH)


def _row(timed: Timed, count: int, step: str, ours: str, peer: str, bar: float, **options: Any) -> Comparison:
    upper = "bound" in options
    times = timed.ratio(ours, peer) if upper else timed.ratio(peer, ours)
    ours_us, peer_us = (1e6 * timed.median(way) / count for way in (ours, peer))
    return Comparison(step, ours_us, peer_us, "us/row", bar, peer, times=times, **options)

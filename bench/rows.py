"""Random reads of feature rows: ours, by numpy's memory map of the same rows, and by HDF5 row by row.

Batches have 64 rows of 41 KB (1,280 channels pooled to 4 x 4, float16), in a random order of all rows. Beside times,
which end at the speed of a copy, two counts that do not vary: read calls of the system for a row, and bytes hashed for each
byte of a shard that is opened.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench.table import Comparison, Result, Timed, side_by_side
from dfeat.storage.shards import PAYLOADS, Shard, open_hdf5, read_rows, write_shard

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
        with open_hdf5(shard) as file:
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
            mapped_calls, peer_calls = (read_calls(ways[way]) / count for way in ("mapped", "h5py d[i]"))
        hashed = hashed_bytes(lambda: read_rows([shard], KIND)) / shard.stat().st_size
    table = [
        _row(timed, count, "feature rows, mapped", "mapped", "np.memmap", 1.2),
        _row(timed, count, "feature rows, loaded", "loaded", "np.memmap", 1.2),
        Comparison(
            "feature rows, mapped", mapped_calls, peer_calls, "read calls/row", 0.01, "h5py d[i]", bound="at most"
        ),
        Comparison("shard opened", hashed, 1.0, "bytes hashed/byte", 1.0, "each byte hashed once", bound="at most"),
    ]
    slower = f"{timed.ratio('h5py d[i]', 'mapped'):.2f} times as long as a mapped one"
    return Result(table, {"rows": f"{count:,} of {2 * WIDTH / 1e3:.0f} KB, batches of {BATCH}", "h5py d[i]": slower})


def read_calls(read: Callable[[], Any]) -> int:
    """How often the process reads a file by a call of the system while `read` runs."""
    counts = []
    for work in (lambda: None, read):  # reading the count is a call, too
        before = _calls_so_far()
        work()
        counts.append(_calls_so_far() - before)
    return counts[1] - counts[0]


def _calls_so_far() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["syscr"])


def hashed_bytes(read: Callable[[], Any]) -> int:
    """How many bytes are hashed with SHA-256 while `read` runs."""
    plain, total = hashlib.sha256, 0

    class Counted:
        def __init__(self, content: Any = b"") -> None:
            self.hash = plain()
            self.update(content)

        def update(self, content: Any) -> None:
            nonlocal total
            total += memoryview(content).nbytes
            self.hash.update(content)

        def hexdigest(self) -> str:
            return self.hash.hexdigest()

    def of_file(file: io.BufferedReader, _name: str) -> Counted:
        return Counted(file.read())

    with patch.object(hashlib, "sha256", Counted), patch.object(hashlib, "file_digest", of_file):
        read()
    return total


def _read(order: NDArray[np.int64], read: Callable[[NDArray[np.int64]], NDArray[Any]]) -> None:
    for batch in order:
        assert read(batch).shape == (BATCH, WIDTH)


def _row(timed: Timed, count: int, step: str, ours: str, peer: str, bar: float) -> Comparison:
    ours_us, peer_us = (1e6 * timed.median(way) / count for way in (ours, peer))
    return Comparison(step, ours_us, peer_us, "us/row", bar, peer, "at most", timed.ratio(ours, peer))

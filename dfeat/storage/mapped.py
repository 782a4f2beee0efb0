"""Rows of shards that are too large for memory, read from their files when they are indexed.

A shard's payload is contiguous, uncompressed and of fixed-size rows, so it is a plain array at a known offset of the
HDF5 file. It is mapped with np.memmap there, past h5py, which neither shares pages among processes nor survives a fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedRows:
    """Rows of contiguous datasets in several files, indexed as one array: `rows[3]`, `rows[[5, 1]]`. Picklable."""

    def __init__(self, files: Sequence[tuple[Path, int, int]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Args: `files`, each (path, offset of the payload in bytes, rows); `shape` of all rows together, (rows, ...)."""
        self.files, self.shape, self.dtype = list(files), shape, dtype
        self._ends = np.cumsum([rows for _, _, rows in files])
        self._maps: list[NDArray[Any]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """One row, as a view of its file, or several, copied."""
        if isinstance(rows, int | np.integer):
            return self._row(int(rows))
        if len(self.files) == 1:
            return self._opened()[0][np.asarray(rows, np.int64)]
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self._row(int(row)) for row in rows]) if len(rows) else empty

    def loaded(self) -> NDArray[Any]:
        """All rows in memory, as one array."""
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *self._opened()])

    def _row(self, row: int) -> NDArray[Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._opened()[number][row - int(self._ends[number])]  # negative: counted from the file's last row

    def _opened(self) -> list[NDArray[Any]]:
        if self._maps is None:
            self._maps = [
                np.asarray(np.memmap(path, self.dtype, "r", offset, (rows, *self.shape[1:])))
                for path, offset, rows in self.files
            ]
        return self._maps

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": None}

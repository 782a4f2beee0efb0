"""What a golden keeps of a value: the digest of what is the same everywhere, and a few sums of what is not.

Texts, keys and integers are digested whole. Networks, and whatever is rounded to bytes after one, differ in their last
bits between processors: of such arrays the size, the mean, the root mean square and four sums with fixed random signs
are kept and compared within a share of the root mean square. No value can then lie on an edge of rounding, and another
draw, crop or image moves every sum.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

Kept = str | list[float]
exact = False
"""Whether arrays are digested to the last bit as well, to compare what one machine makes before and after a change."""
SUMS = 4
WITHIN = 2e-3
"""The share of the root mean square by which sums may differ."""


def text(*values: Any) -> str:
    """The digest of texts, bytes, integer arrays, and what JSON can say."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            assert not np.issubdtype(value.dtype, np.floating), "numbers that differ between processors have no digest"
            value = repr((value.shape, value.dtype.str)).encode() + np.ascontiguousarray(value).tobytes()
        elif not isinstance(value, bytes):
            value = (value if isinstance(value, str) else json.dumps(value, sort_keys=True)).encode()
        digest.update(len(value).to_bytes(8, "little") + value)
    return digest.hexdigest()[:16]


def numbers(array: Any) -> Kept:
    """Size, mean, root mean square and four sums with random signs of an array, each sum over the root of the size."""
    values = np.asarray(array, np.float64).ravel()
    if exact:
        return text(values.tobytes())
    rng = np.random.default_rng(0)
    signs = [rng.integers(0, 2, values.size) * 2 - 1 for _ in range(SUMS)]
    spread = np.sqrt(np.mean(values**2))
    sums = [sign @ values / np.sqrt(values.size) for sign in signs]
    return [values.size, *(float(f"{value:.6g}") for value in (values.mean(), spread, *sums))]


def same(recorded: Kept, made: Kept, within: float = WITHIN) -> bool:
    """Whether a value is the recorded one."""
    if isinstance(recorded, str) or isinstance(made, str):
        return recorded == made
    if recorded[0] != made[0]:
        return False
    allowed = within * max(recorded[2], 1e-12)
    return bool(np.all(np.abs(np.subtract(recorded, made)) <= allowed))


def differing(recorded: dict[str, Kept], made: dict[str, Kept], within: float = WITHIN) -> list[str]:
    """The names of the values that are not the recorded ones."""
    alike = {name for name in recorded.keys() & made.keys() if same(recorded[name], made[name], within)}
    return sorted((recorded.keys() | made.keys()) - alike)

"""The examples in README run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs(rng: np.random.Generator) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    images = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((2, 64, 64), bool)
    masks[:, 16:40, 20:50] = True
    names = {"images": images, "masks": masks}
    exec(compile(example, "README.md", "exec"), names)
    features, filled = names["features"], names["filled"]
    assert features.shape[0] == 2 and features.ndim == 2
    assert filled.shape == images.shape and filled.dtype == np.uint8
    assert not (filled[masks] == 0).all()
    exact = np.stack(names["exact"])
    assert (exact[~masks] == images[~masks]).all() and (exact[masks] == filled[masks]).all()

"""Benchmarks: the fast path compared with its peers, and how cost grows with size.

Each module named in `NAMES` is one benchmark, a function `run(**options) -> Result`. FLOPs are counted, so they do not
vary; times are measured side by side in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from bench.table import Result, as_text, write_rows
from dfeat.errors import UserError, nearest

NAMES: Final[dict[str, str]] = {
    "flops": "FLOPs of features and inpainting on the true Stable Diffusion 2.1 architecture",
    "features": "diffusion features on the true architecture, timed beside DIFT's procedure and a hook",
    "inpaint": "how the fast inpainting choices change the picture, on the built-in model",
    "index": "index and part choice for a drawn set of PartImageNet's size",
    "reading": "training images per second of one core, from the pixel cache and by timm from JPEG",
    "crops": "training items of every method beside those of None",
    "rows": "random reads of feature rows",
    "training": "time of a training step outside the network, and memory of a training",
    "evaluation": "five levels of occlusion compared with five forward passes",
    "scale": "time and memory per image in index, parts, latents and features",
    "statistics": "false marks, coverage, width and power of Table 1's tests in simulated worlds",
    "gpu": "rates of the true architectures on a CUDA device, share of its peak, share of time spent waiting",
}
"""The benchmarks by name, in the order in which they run; each is a module of this package."""
WITHOUT_GPU: Final = tuple(name for name in NAMES if name != "gpu")


def run(names: Sequence[str], out: Path | None = None, **options: Any) -> dict[str, Result]:
    """Run benchmarks one after another, print one table, and write it as JSON to `out` if given.

    `options` (rounds, resolution, sizes) are passed to each benchmark, which ignores those that it does not use. Raises
    UserError for an unknown name.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"no benchmark {name!r}{nearest(name, NAMES)}; use {', '.join(NAMES)}")
    results: dict[str, Result] = {}
    for name in names:
        results[name] = import_module(f"bench.{name}").run(**options)
    rows = [row for result in results.values() for row in result.rows]
    if rows:
        print(as_text(rows))
    for name, result in results.items():
        for key, value in result.notes.items():
            print(f"{name}: {key}: {value}")
    if out is not None:
        notes = {name: dict(result.notes) for name, result in results.items()}
        write_rows(out, {name: result.rows for name, result in results.items()}, notes)
    return results

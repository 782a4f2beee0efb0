"""Training images per second of one core: from the pixel cache, and by timm's training pipeline from JPEG files.

Both make batches of 64 random resized crops of 224 px (the same range of areas, bicubic) with flips, in one process
with one thread and no workers, from the same drawn photographs. timm's loader yields either bytes, which the device
normalises (its prefetcher), or normalised floats; each is compared with ours at the same point.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from bench.photographs import HEIGHT, WIDTH, write_photographs
from bench.table import Comparison, Result, Timed, side_by_side
from dfeat.data.index import Index
from dfeat.data.pixels import PixelCache
from dfeat.methods import REFERENCE
from dfeat.occlusion.parts import Parts
from dfeat.training.dataset import TrainingBatches
from dfeat.training.network import normalised
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Sources

IMAGES: Final = 128
CPU: Final = torch.device("cpu")


def run(rounds: int = 5, images: int = IMAGES, **_: Any) -> Result:
    """Time an epoch of each pipeline, `rounds` times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
            index = write_photographs(Path(name), images)
            size = sum(file.stat().st_size for file in (Path(name) / "images").rglob("*.JPEG")) / images
            timed = side_by_side(_ways(index), rounds)
    finally:
        torch.set_num_threads(threads)
    rows = [
        _row(
            timed,
            images,
            "training batch, bytes",
            "cache",
            "timm bytes",
            "timm's loader from JPEG, its prefetcher's bytes",
        ),
        _row(timed, images, "training batch, normalised", "cache, normalised", "timm", "timm's loader from JPEG"),
    ]
    notes: dict[str, Any] = {f"{way}, images/s": round(images / timed.median(way)) for way in timed.seconds}
    return Result(rows, {"photographs": f"{images} of {WIDTH}x{HEIGHT}, {size / 1e3:.0f} KB each"} | notes)


def _row(timed: Timed, images: int, step: str, ours: str, peer: str, peer_name: str) -> Comparison:
    ours_ms, peer_ms = (1000 * timed.median(way) / images for way in (ours, peer))
    return Comparison(step, ours_ms, peer_ms, "ms/image", 5.0, peer_name, times=timed.ratio(peer, ours))


def _ways(index: Index) -> dict[str, Callable[[], Any]]:
    settings = TrainingSettings(batch_size=64)
    labels = {record.key: record.label for record in index.records}
    sources = Sources(
        PixelCache(index.folder / "pixels.h5"),
        list(labels),
        labels,
        [info.wnid for info in index.classes],
        Parts({}, {}),
    )
    batches = TrainingBatches(REFERENCE, sources, settings, 0, 0)
    timm_bytes, timm = (_timm_loader(index, settings, prefetcher) for prefetcher in (True, False))

    def ours(finish: Callable[[torch.Tensor], Any]) -> None:
        for step in range(len(index.records) // settings.batch_size):
            finish(batches[step].images)

    return {
        "cache": lambda: ours(lambda images: images),
        "timm bytes": lambda: [images for images, _ in timm_bytes.loader],
        "cache, normalised": lambda: ours(lambda images: normalised(images, CPU)),
        "timm": lambda: [images for images, _ in timm],
    }


def _timm_loader(index: Index, settings: TrainingSettings, prefetcher: bool) -> Any:
    """timm's training pipeline with our crops and flips, without further augmentation."""
    from timm.data import ImageDataset, create_loader

    return create_loader(
        ImageDataset(str(index.root)),
        input_size=(3, settings.image_size, settings.image_size),
        batch_size=settings.batch_size,
        is_training=True,
        use_prefetcher=prefetcher,
        scale=settings.crop_scale,
        hflip=settings.flip,
        color_jitter=None,
        interpolation="bicubic",
        num_workers=0,
        persistent_workers=False,
        device=CPU,
    )

"""VAE latents of a view of each image, encoded once and cached for every setting of features.

What enters: an index and the names of views. What leaves: a shard each of latents (rows, 4, R/8, R/8) float16, the mean of
the VAE's posterior, unscaled. A view is the evaluation crop that the diffusion model sees: "clean" unchanged, "parts"
with the chosen parts blacked out (the occluded twin of training, Sec. 3), or "drop:P" with P % of the patches blacked
out (simulated occlusion, Sec. 4.1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.crops import Crop, random_crop, view_key
from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import evaluation_crop, resize
from dfeat.diffusion.fitting import Fitting
from dfeat.diffusion.models import compile_model, load_model
from dfeat.diffusion.settings import LatentsStage
from dfeat.diffusion.stream import Done, gathered, made_on, prepared, to_device
from dfeat.errors import UserError
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.occlusion.patches import scale_mask
from dfeat.occlusion.views import TestOcclusion
from dfeat.randomness import rng_for
from dfeat.storage.journal import journal_of
from dfeat.storage.shards import Shard, write_shard

RECIPE: Final = 3


def encode_view(
    index_folder: Path,
    view: str,
    settings: LatentsStage,
    out: Path,
    device: torch.device,
    parts_file: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Done:
    """Encode shard i of n of a view and write it to `out`, see `encode_views`."""
    return encode_views(index_folder, {view: out}, settings, device, parts_file, shard, workers)


def encode_views(
    index_folder: Path,
    outs: Mapping[str, Path],
    settings: LatentsStage,
    device: torch.device,
    parts_file: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    standing: Collection[str] = (),
) -> Done:
    """Encode shard i of n of each view and write it to its file; `workers` threads prepare the images.

    Several views are levels "drop:P" of a set: an image is decoded and resized once for all of them. Those in `standing`
    are not made again. The view "parts" requires `parts_file` and has a row only for images that have parts. With
    `settings.views` K > 1 a training image has K rows, with the keys `view_key(key, 0)` to `view_key(key, K - 1)`: random
    crops, whose `box` and `flip` the shard stores per row. Raises UserError for an unknown view or shard, and for inputs
    that do not belong together.
    """
    index, first = read_index(index_folder), next(iter(outs))
    parts = read_parts(parts_file, index=index.digest) if parts_file and first == "parts" else None
    rows = _rows_of(part_of(_records_of(index, outs, parts), shard), first, settings)
    model = load_model(settings.model, "latents", device, settings.resolution)
    compile_model(model, settings.compile)
    occlusion = _occlusion_of(index, settings) if first.startswith("drop:") else None

    described = settings.model_dump(mode="json")
    keys, crops = [row.key for row in rows], _crops_of(rows)
    claims = index.digest, parts.digest if parts else "", "/".join(map(str, shard))
    shards = {
        view: Shard(
            "latents", RECIPE, described | {"view": view}, model.digest, keys, [], crops, model.digests, *claims
        )
        for view in outs
    }
    views, size = [view for view in outs if view not in standing], settings.batch_size
    # A journal of all views lies beside the first; there a view's name follows its rows' keys.
    named = {(row.key, view): row.key if len(outs) == 1 else f"{row.key} {view}" for row in rows for view in outs}
    together = replace(shards[first], settings=described | {"view": " ".join(outs)}, keys=list(named.values()))

    def compute(images: list[NDArray[np.uint8]]) -> tuple[torch.Tensor, ...]:
        return (encode(model, np.stack(images)).half(),)

    fitting = Fitting(compute, size, f"latents {outs[first]}")
    with journal_of(outs[first], together, **made_on(device)) as journal:
        lacking = {row: [view for view in views if named[row.key, view] not in journal.rows] for row in rows}

        def prepare(row: ViewRow) -> list[NDArray[np.uint8]]:
            return view_images(index, row.record, lacking[row], settings, parts, row.crop, occlusion)

        images = prepared([row for row in rows if lacking[row]], prepare, workers, 2 * size)
        wanted, label = [named[row.key, view] for row in rows for view in views], f"latents {' '.join(views)}"
        payload, done = gathered(chain.from_iterable(images), wanted, fitting, fitting, journal, label)
        for number, view in enumerate(views):
            write_shard(outs[view], replace(shards[view], payload=payload[number :: len(views)]))
    return done


@dataclass(frozen=True)
class ViewRow:
    """A row to encode: an image, and its random crop where an image has several rows."""

    record: Record
    key: str
    crop: Crop | None


def _rows_of(records: Sequence[Record], view: str, settings: LatentsStage) -> list[ViewRow]:
    if settings.views == 1 or view.startswith("drop:"):
        return [ViewRow(record, record.key, None) for record in records]
    rows = []
    for record in records:
        for number in range(settings.views):
            rng = rng_for(settings.view_seed, f"{record.key} {number}", "view")
            crop = random_crop(record.height, record.width, settings.crop_scale, settings.flip, rng)
            rows.append(ViewRow(record, view_key(record.key, number), crop))
    return rows


def _crops_of(rows: Sequence[ViewRow]) -> dict[str, NDArray[Any]]:
    crops = [row.crop for row in rows if row.crop is not None]
    if not crops:
        return {}
    return {"box": np.array([crop.box for crop in crops]), "flip": np.array([crop.flip for crop in crops])}


def view_image(
    index: Index,
    record: Record,
    view: str,
    settings: LatentsStage,
    parts: Parts | None,
    crop: Crop | None = None,
    occlusion: TestOcclusion | None = None,
) -> NDArray[np.uint8]:
    """A view of an image, (R, R, 3) uint8, see `view_images`."""
    return view_images(index, record, [view], settings, parts, crop, occlusion)[0]


def view_images(
    index: Index,
    record: Record,
    views: Sequence[str],
    settings: LatentsStage,
    parts: Parts | None,
    crop: Crop | None = None,
    occlusion: TestOcclusion | None = None,
) -> list[NDArray[np.uint8]]:
    """Views of an image, each (R, R, 3) uint8: its evaluation crop or the given `crop`, occluded as the view demands.

    The image is decoded once. The view "parts" stands alone and requires `parts`. `occlusion` avoids rebuilding the test
    occlusion for each image of "drop:P".
    """
    image = index.load(record)
    if views[0] == "parts":
        assert parts is not None
        image = black_out(image, parts.mask(record.key))
    if crop is not None:
        square = resize(image[crop.pixels(*image.shape[:2])], settings.resolution, settings.resolution)
        return [square[:, ::-1] if crop.flip else square]
    square = evaluation_crop(image, settings.crop_pct, settings.resolution)

    def seen(view: str) -> NDArray[np.uint8]:
        if not view.startswith("drop:"):
            return square
        hidden = (occlusion or _occlusion_of(index, settings)).hidden(record, int(view[5:]))
        return black_out(square, scale_mask(hidden, settings.resolution))

    return [seen(view) for view in views]


def _occlusion_of(index: Index, settings: LatentsStage) -> TestOcclusion:
    return TestOcclusion.of(index, settings.occlusion, settings.study, settings.image_size, settings.crop_pct)


@torch.no_grad()
def encode(model: Any, images: NDArray[np.uint8]) -> torch.Tensor:
    """The mean of the VAE's posterior for images (B, R, R, 3) uint8: (B, 4, R/8, R/8), unscaled, contiguous."""
    pixels = to_model_range(images, model)
    with model.arithmetic():
        return model.encode(pixels).mode().contiguous()


def to_model_range(images: NDArray[np.uint8], model: Any) -> torch.Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) in [-1, 1], in the model's dtype and on its device, channels last."""
    pixels = to_device(images, model.device).permute(0, 3, 1, 2)
    return (pixels.to(torch.float32) / 255 * 2 - 1).to(model.dtype, memory_format=torch.channels_last)


def part_of(records: Sequence[Record], shard: tuple[int, int]) -> list[Record]:
    """The records of shard (i, n), contiguous and of even sizes. Raises UserError for a shard that has none."""
    number, count = shard
    if not 0 <= number < count:
        raise UserError(f"shard {number}/{count} does not exist; shards are numbered 0 to {count - 1}")
    chosen = list(records[len(records) * number // count : len(records) * (number + 1) // count])
    if not chosen:
        raise UserError(f"shard {number}/{count} has no images: there are {len(records)} in all; use fewer shards")
    return chosen


def _records_of(index: Index, views: Collection[str], parts: Parts | None) -> list[Record]:
    for view in views:
        levels = view.startswith("drop:") and view[5:].isdigit() and int(view[5:]) <= 100
        if not levels and view not in ("clean", "parts"):
            raise UserError(f"no view {view!r}; use clean, parts, or drop:P with P from 0 to 100 (percent)")
        if not levels and len(views) > 1:
            raise UserError(f"the view {view!r} is encoded alone; several views are all drop:P, levels of one set")
    if "parts" not in views:
        return list(index.records)
    if parts is None:
        raise UserError("the view 'parts' needs --parts, the parts.json that `dfeat parts` writes")
    return [record for record in index.records if record.key in parts.rows]

"""VAE latents of a view of each image, encoded once and cached: every feature setting starts from them.

What enters: an index and the name of a view. What leaves: a shard of latents (rows, 4, R/8, R/8) float16, the
posterior mean, not yet scaled. A view is what the diffusion model sees of an image, its evaluation crop

- clean: as it is,
- parts: with the chosen parts blacked out (training's occluded twin, Sec. 3),
- drop:P: with P % of the patches blacked out (Sec. 4.1, simulated occlusion).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.index import Index, Record, index_digest, read_index
from dfeat.data.pixels import evaluation_crop
from dfeat.diffusion.models import load_model
from dfeat.errors import UserError
from dfeat.occlusion.paint import black_out
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.occlusion.patches import drop_for, scale_mask
from dfeat.progress import progress
from dfeat.settings import LatentsStage
from dfeat.storage.shards import Shard, write_shard

RECIPE: Final = 2


def encode_view(
    index_folder: Path,
    view: str,
    settings: LatentsStage,
    out: Path,
    device: torch.device,
    parts_file: Path | None = None,
    shard: tuple[int, int] = (0, 1),
) -> int:
    """Encode shard (i, n) of a view and write it to `out`; returns the number of rows.

    The view "parts" needs `parts_file` and has a row only for images that have parts.
    """
    index, digest = read_index(index_folder), index_digest(index_folder)
    parts = read_parts(parts_file, index=digest) if parts_file and view == "parts" else None
    records = part_of(_records_of(index, view, parts), shard)
    model = load_model(settings.model, "latents", device, settings.resolution)
    latents: list[NDArray[Any]] = []
    images = (view_image(index, record, view, settings, parts) for record in records)
    for batch in batches(images, settings.batch_size, progress(len(records), f"latents {view}")):
        latents.append(encode(model, batch).half().cpu().numpy())
    payload = np.concatenate(latents)[: len(records)]
    described = settings.model_dump(mode="json") | {"view": view}
    keys = [record.key for record in records]
    shard_of_rows = Shard(
        "latents", RECIPE, described, model.digest, keys, payload, weights=model.digests, index=digest
    )
    write_shard(out, shard_of_rows)
    return len(records)


def view_image(
    index: Index, record: Record, view: str, settings: LatentsStage, parts: Parts | None
) -> NDArray[np.uint8]:
    """The evaluation crop of an image as the view shows it, (R, R, 3) uint8."""
    image = index.load(record)
    if view == "parts":
        assert parts is not None
        image = black_out(image, parts.mask(record.key))
    crop = evaluation_crop(image, settings.crop_pct, settings.resolution)
    if view.startswith("drop:"):
        dropped = drop_for(
            settings.occlusion,
            record.key,
            int(view[5:]),
            settings.image_size,
            (record.height, record.width),
            settings.crop_pct,
        )
        crop = black_out(crop, scale_mask(dropped, settings.resolution))
    return crop


@torch.no_grad()
def encode(model: Any, images: NDArray[np.uint8]) -> torch.Tensor:
    """Posterior mean of images (B, R, R, 3) uint8: (B, 4, R/8, R/8), not scaled, contiguous."""
    pixels = to_model_range(images, model)
    return model.vae.encode(pixels).latent_dist.mode().contiguous()


def to_model_range(images: NDArray[np.uint8], model: Any) -> torch.Tensor:
    """uint8 (B, H, W, 3) to [-1, 1] (B, 3, H, W) in the model's type and on its device, channels last."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(model.device).permute(0, 3, 1, 2)
    return (pixels.to(torch.float32) / 255 * 2 - 1).to(model.dtype, memory_format=torch.channels_last)


def batches(rows: Iterator[Any], size: int, bar: Any) -> Iterator[NDArray[Any]]:
    """Stack rows into batches of exactly `size`; the last is padded with its last row.

    At one batch shape a row's result does not depend on its neighbours; across shapes it would.
    """
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield np.stack(batch)
            bar.update(size)
            batch = []
    if batch:
        filled = len(batch)
        yield np.stack(batch + [batch[-1]] * (size - filled))
        bar.update(filled)
    bar.close()


def part_of(records: Sequence[Record], shard: tuple[int, int]) -> list[Record]:
    """Shard i of n: a contiguous run of the records, sizes differing by at most one."""
    number, count = shard
    if not 0 <= number < count:
        raise UserError(f"shard {number}/{count} does not exist; shards are numbered 0 to {count - 1}")
    return list(records[len(records) * number // count : len(records) * (number + 1) // count])


def _records_of(index: Index, view: str, parts: Parts | None) -> list[Record]:
    if view == "parts":
        if parts is None:
            raise UserError("the view 'parts' needs --parts, the parts.json that `dfeat parts` writes")
        return [record for record in index.records if record.key in parts.rows]
    if view == "clean" or (view.startswith("drop:") and view[5:].isdigit() and int(view[5:]) <= 100):
        return list(index.records)
    raise UserError(f"no view {view!r}; use clean, parts, or drop:P with P in percent")

"""Decoded pixels: the cache that training and evaluation read, and the crops they take of it.

What enters: an index (or inpainted images). What leaves: `pixels.h5`, every image decoded once, its short side
resized to `short_side` (by default bicubic, as timm's evaluation transform does), all of them one contiguous run of bytes
that is memory-mapped by its offset and shared by all trainings.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.index import read_index
from dfeat.data.settings import PixelsStage
from dfeat.errors import UserError
from dfeat.progress import progress
from dfeat.storage.atomic import reserve, staged
from dfeat.storage.provenance import settings_text
from dfeat.storage.records import refusal
from dfeat.storage.shards import SCHEMA, Shard, create_hdf5, open_shard, read_shard

RECIPE: Final = 3
Pixels = NDArray[np.uint8]
_METADATA, _METADATA_ROW = 1 << 16, 256
"""Upper bounds, in bytes, of HDF5's own metadata and of a row's key, shape and offset."""


def evaluation_crop(image: NDArray[Any], crop_pct: float, size: int) -> NDArray[Any]:
    """The central crop of an image (H, W, 3) or mask (H, W) that keeps `crop_pct` of its short side, as (size, size, 3).

    Resizes first and crops then, as timm's evaluation transform does: short side to size / crop_pct, bicubic.
    """
    short = int(np.floor(size / crop_pct))
    resized = resize_short_side(image, short)
    top, left = round((resized.shape[0] - size) / 2), round((resized.shape[1] - size) / 2)
    return resized[top : top + size, left : left + size]


def resize_short_side(image: NDArray[Any], short_side: int) -> NDArray[Any]:
    """Resize (H, W[, 3]) so that the short side is `short_side`, bicubic with antialiasing, aspect kept."""
    height, width = resized_shape(image.shape[0], image.shape[1], short_side)
    return resize(image, height, width)


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after resizing the short side, rounded as torchvision's Resize rounds (down)."""
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def resize(image: NDArray[Any], height: int, width: int, interpolation: str = "bicubic") -> NDArray[Any]:
    """Resize an image (H, W, 3) uint8 with antialiasing, "bicubic" or "bilinear"; a mask (H, W) bool by nearest pixel."""
    if image.shape[:2] == (height, width):
        return image
    if image.ndim == 2:
        picture = Image.fromarray(image.astype(np.uint8) * 255).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(picture) > 127
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[interpolation.upper()]))


def cache_index(index_folder: Path, settings: PixelsStage, out: Path) -> int:
    """Decode every image of an index into the cache `out`; return the number of images."""
    index = read_index(index_folder)
    shapes = [resized_shape(r.height, r.width, settings.short_side) for r in index.records]
    images = (index.load(record) for record in index.records)
    keys = [record.key for record in index.records]
    _write(out, keys, shapes, images, settings.model_dump(mode="json"), {"model": "", "index": index.digest})
    return len(index.records)


def cache_inpainted(shards: list[Path], settings: PixelsStage, out: Path) -> int:
    """Decode the images of inpaint shards into the cache `out`; return the number of images.

    If the shards hold several copies of each image, so does the cache, and its settings record their number. Raises
    UserError if the shards differ in it.
    """
    content = [read_shard(path, "inpaint") for path in shards]
    copies = [copies_in(shard) for shard in content]
    odd = next((path for path, count in zip(shards, copies, strict=True) if count != copies[0]), None)
    if odd is not None:
        raise UserError(
            f"{odd} has another number of copies of each image (diffusion.inpaint.copies) than {shards[0]}, which has "
            f"{copies[0]}; make the shards again with one value, by `dfeat inpaint`"
        )
    origin = {"model": content[0].model, "index": content[0].index, "parts": content[0].parts}
    _require_one_making(shards, content)
    rows = sorted((key, encoded) for shard in content for key, encoded in zip(shard.keys, shard.payload, strict=True))
    sizes = [Image.open(io.BytesIO(encoded)).size for _, encoded in rows]
    shapes = [resized_shape(height, width, settings.short_side) for width, height in sizes]
    images = (np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")) for _, encoded in rows)
    described = settings.model_dump(mode="json") | ({"copies": copies[0]} if copies[0] > 1 else {})
    _write(out, [key for key, _ in rows], shapes, images, described, origin)
    return len(rows)


def _require_one_making(paths: list[Path], shards: list[Shard]) -> None:
    """Raise UserError unless the shards were made from one index and one parts.json by one model with one set of settings,
    and each image has its rows in one of them."""
    seen: dict[str, Path] = {}
    for path, shard in zip(paths, shards, strict=True):
        made, first = ([one.settings, one.model, one.index, one.parts] for one in (shard, shards[0]))
        if made != first:
            reason = f"it was made with another model, other settings or from other inputs than {paths[0]}"
            raise refusal(path, reason, "inpaint")
        twice = next((key for key in shard.keys if key in seen), None)
        if twice is not None:
            raise refusal(path, f"it has rows that {seen[twice]} has too ({twice}, ...)", "inpaint")
        seen |= dict.fromkeys(shard.keys, path)


def copies_in(shard: Shard) -> int:
    """How many copies of each image an inpaint shard has."""
    return int(json.loads(shard.settings)["inpaint"].get("copies", 1))


def _write(
    out: Path,
    keys: list[str],
    shapes: list[tuple[int, int]],
    images: Iterable[Pixels],
    described: dict[str, Any],
    origin: dict[str, str],
) -> None:
    shape = np.array(shapes, np.int32).reshape(-1, 2)
    sizes = shape.astype(np.int64).prod(axis=1) * 3
    total = int(sizes.sum())
    # Before it is published the file has no record, so `PixelCache` hashes its pixels.
    with staged(out, verify=PixelCache) as temporary, create_hdf5(temporary) as file:
        # On a full disk HDF5 may fail only when it flushes, or close without an error over missing bytes.
        reserve(file.id.get_vfd_handle(), total + _METADATA + _METADATA_ROW * len(keys))
        file.create_dataset("key", data=np.array(keys, dtype=object), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("done", data=np.ones(len(keys), bool))
        file.create_dataset("shape", data=shape)
        file.create_dataset("offset", data=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64))
        pixels = file.create_dataset("pixels", (total,), np.uint8)
        digest, position = hashlib.sha256(), 0
        bar = progress(len(keys), "pixels")
        for image, (height, width) in zip(images, shapes, strict=True):
            row = np.ascontiguousarray(resize(image, height, width, described["interpolation"])).reshape(-1)
            pixels[position : position + row.size] = row
            digest.update(row.data)
            position += row.size
            bar.update(1)
        bar.close()
        file.attrs.update(schema=SCHEMA, kind="pixels", recipe=RECIPE, settings=settings_text(described))
        file.attrs.update(rows=len(keys), sha256=digest.hexdigest(), **{"parts": "", **origin})


class PixelCache:
    """Images of a cache by key, memory-mapped. May be pickled for worker processes: each maps the file itself."""

    def __init__(self, path: Path, *, index: str | None = None, parts: str | None = None) -> None:
        """Open a cache, with the arguments, checks and errors of `open_shard`; inpainted images have hidden parts."""
        self.path = path
        with open_shard(path, "pixels", index=index, parts=parts) as file:
            self.keys = [key.decode() for key in file["key"][:]]
            self._shape = file["shape"][:]
            self._start = file["offset"][:]
            self._length = file["pixels"].shape[0]
            self._at = file["pixels"].id.get_offset()
            settings = json.loads(file.attrs["settings"])
            self.copies = int(settings.get("copies", 1))
            self.digest = str(file.attrs["sha256"])
        self.row_of = {key: row for row, key in enumerate(self.keys)}
        self._map: Any = None

    def __getitem__(self, key: str) -> Pixels:
        """The image of that key, (H, W, 3) uint8, a read-only view of the file."""
        row = self.row_of[key]
        height, width = self._shape[row]
        start = self._start[row]
        return self._pixels()[start : start + int(height) * int(width) * 3].reshape(height, width, 3)

    def _pixels(self) -> Any:
        if self._map is None:
            self._map = (
                np.memmap(self.path, np.uint8, "r", self._at, (self._length,))
                if self._length
                else np.empty(0, np.uint8)
            )
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

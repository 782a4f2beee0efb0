"""The training batches: originals and augmented twins, cropped, flipped and painted, in a fixed random order.

What enters: the pixel cache, the labels, the chosen parts, and what the method needs besides (inpainted pixels,
diffusion features). What leaves: a `Batch` for each optimiser step, a function of (seed, step) alone, so that
workers, order and resumption change nothing.

Every method trains on 2N items an epoch, so all take the same number of optimiser steps: N originals and their
N twins. The twin is the black-out, replaced, CutMix or inpainted image; for None it is the original again; for
SD Features it is the black-out image with features of its own. An image without parts is its own twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.pixels import PixelCache
from dfeat.occlusion.paint import black_out, cutmix_box, mask_image, partner_order, replace
from dfeat.occlusion.parts import Parts
from dfeat.randomness import rng_for
from dfeat.settings import Method, TrainingSettings
from dfeat.storage.shards import Rows

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of width and height


@dataclass
class Batch:
    """One step's input. `targets` are class shares (B, C); `masks` and `features` where the method has them."""

    images: NDArray[np.uint8]  # (B, S, S, 3)
    targets: NDArray[np.float32]  # (B, C)
    masks: NDArray[np.uint8] | None = None  # (B, S, S, 3)
    features: NDArray[np.float16] | None = None  # (B, D)


@dataclass
class Sources:
    """What batches are made of."""

    pixels: PixelCache
    keys: list[str]
    labels: dict[str, int]
    classes: int
    parts: Parts
    inpainted: PixelCache | None = None
    features: Rows | None = None
    twin_features: Rows | None = None


class TrainingBatches:
    """`batches[step]` is the batch of that step; a map-style dataset for torch's DataLoader."""

    def __init__(
        self, method: Method, sources: Sources, settings: TrainingSettings, seed: int, partner_seed: int
    ) -> None:
        self.method, self.sources, self.settings, self.seed = method, sources, settings, seed
        self.keys = sorted(sources.keys)
        self.partner = partner_order(self.keys, partner_seed)
        self.steps_per_epoch = -(-2 * len(self.keys) // settings.batch_size)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> Batch:
        epoch, within = divmod(step, self.steps_per_epoch)
        size = self.settings.batch_size
        items = self._epoch_order(epoch)[within * size : (within + 1) * size]
        rows = [self._row(self.keys[item // 2], bool(item % 2), epoch) for item in items.tolist()]
        targets = np.zeros((len(rows), self.sources.classes), np.float32)
        targets[np.arange(len(rows)), [row["label"] for row in rows]] = 1
        batch = Batch(np.stack([row["image"] for row in rows]), targets)
        if self.method == "replace":
            batch.masks = np.stack([row["mask"] for row in rows])
        if self.method == "sd_features":
            batch.features = np.stack([row["feature"] for row in rows])
        if self.method == "cutmix":
            self._cut_and_mix(batch, items % 2 == 1, step)
        return batch

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the 2N items of an epoch; item 2i is the original i, 2i + 1 its twin. Full batches only.

        The last batch is filled up from the start of the order, so that every step has the same weight.
        """
        if self._order is None or self._order[0] != epoch:
            order = rng_for(self.seed, f"epoch {epoch}", "order").permutation(2 * len(self.keys))
            self._order = (epoch, np.resize(order, self.steps_per_epoch * self.settings.batch_size))
        return self._order[1]

    def _row(self, key: str, twin: bool, epoch: int) -> dict[str, Any]:
        """One item: cropped, flipped and, where it is a twin, painted as the method says."""
        sources, method = self.sources, self.method
        rng = rng_for(self.seed, f"{key} {int(twin)} {epoch}", "crop")
        has_twin = twin and key in sources.parts.rows
        cache = sources.inpainted if method == "sd_inpaint" and has_twin else sources.pixels
        assert cache is not None
        image = cache[key]
        box, flip = self._random_crop(image.shape[0], image.shape[1], rng)
        crop = self._cut(image, box, flip)
        if has_twin and method in ("blackout", "replace", "sd_features"):
            hidden = self._cut(sources.parts.mask(key), box, flip)
            crop = (
                replace(crop, hidden, self._partner_crop(key, box, flip))
                if method == "replace"
                else black_out(crop, hidden)
            )
        row: dict[str, Any] = {"image": crop, "label": sources.labels[key]}
        if method == "replace":
            row["mask"] = mask_image(self._whole_mask(key, box, flip))
        if method == "sd_features":
            rows = sources.twin_features if has_twin else sources.features
            assert rows is not None
            row["feature"] = rows.payload[rows.row_of[key]]
        return row

    def _whole_mask(self, key: str, box: Box, flip: bool) -> NDArray[np.bool_]:
        """m_i of Eq. 1: the mask of the object, or of the chosen parts; nothing where an image has no parts."""
        size = self.settings.image_size
        if key not in self.sources.parts.rows:
            return np.zeros((size, size), bool)
        which = "object" if self.settings.mask_image == "object" else "mask"
        return self._cut(self.sources.parts.mask(key, which), box, flip)

    def _partner_crop(self, key: str, box: Box, flip: bool) -> NDArray[np.uint8]:
        """The same crop of the partner image, whose pixels replace the hidden ones."""
        return self._cut(self.sources.pixels[self.partner[key]], box, flip)

    def _random_crop(self, height: int, width: int, rng: np.random.Generator) -> tuple[Box, bool]:
        """A random resized crop (area `crop_scale`, aspect 3/4 to 4/3, as torchvision's) and whether to flip."""
        area = height * width * rng.uniform(*self.settings.crop_scale)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w = min(float(np.sqrt(area * aspect)), float(width))
        h = min(float(np.sqrt(area / aspect)), float(height))
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        box = (left / width, top / height, (left + w) / width, (top + h) / height)
        return box, bool(rng.random() < self.settings.flip)

    def _cut(self, image: NDArray[Any], box: Box, flip: bool) -> NDArray[Any]:
        """Crop `box` of an image (H, W, 3) or mask (H, W) and resize it to (S, S[, 3])."""
        size = self.settings.image_size
        height, width = image.shape[:2]
        pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        if image.ndim == 2:
            picture = Image.fromarray(image.astype(np.uint8) * 255)
            cut = np.asarray(picture.resize((size, size), Image.Resampling.NEAREST, box=pixels)) > 127
        else:
            cut = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=pixels))
        return cut[:, ::-1] if flip else cut

    def _cut_and_mix(self, batch: Batch, twins: NDArray[np.bool_], step: int) -> None:
        """CutMix on the batch's twins: a box of another row of the batch, and labels in proportion to area."""
        rng = rng_for(self.seed, f"step {step}", "cutmix")
        images, targets = batch.images.copy(), batch.targets.copy()
        partners = rng.permutation(len(images))
        for row in np.flatnonzero(twins):
            kept = float(rng.beta(self.settings.cutmix_alpha, self.settings.cutmix_alpha))
            top, bottom, left, right = cutmix_box(images.shape[1], images.shape[2], kept, rng)
            images[row, top:bottom, left:right] = batch.images[partners[row], top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (images.shape[1] * images.shape[2])
            targets[row] = share * batch.targets[row] + (1 - share) * batch.targets[partners[row]]
        batch.images, batch.targets = images, targets

"""The training batches: originals and augmented twins, cropped, flipped and painted, in a fixed random order.

What enters: `Sources`. What leaves: a `Batch` for each optimiser step, a function of (seed, step) alone, so that
workers, order and resumption change nothing. Every method trains on 2N items an epoch, so all take the same number of
optimiser steps: N originals and their N twins, painted as the method's file says (`dfeat.methods`). An image without
parts is its own twin, as is one that would show too little (`occlusion.min_visible`); of several inpainted copies each epoch draws one. `training.twins` sets another share of
twins; at 1 they are taken twice, in other crops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dfeat.data.crops import Crop, random_crop, view_key, view_keys
from dfeat.methods import method
from dfeat.methods.method import WHOLE, Mixture, Twin, Window
from dfeat.methods.paint import partner_order, reached
from dfeat.methods.runs import Runs
from dfeat.randomness import rng_for
from dfeat.storage.shards import Rows
from dfeat.training.fusion import Moments, moments_of
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Sources, exchanged_features


@dataclass
class Batch:
    """One step's input. `targets` are class shares (B, C); `masks` and `features` where the method has them.

    `kept` is set by the training loop, for a backbone with stochastic depth.
    """

    images: Tensor  # (B, S, S, 3) uint8
    targets: Tensor  # (B, C) float32
    masks: Tensor | None = None  # (B, S, S) bool
    features: Tensor | None = None  # (B, D) float16
    kept: Tensor | None = None  # (L, B) float32, see FusionNetwork.draw_kept

    def mask_images(self) -> Tensor | None:
        """The masks as images (B, S, S, 3) uint8, white where they are, as the network is given them in Eq. 1."""
        # They are made here, on the batch's device: workers hand on a third of the bytes.
        return None if self.masks is None else (self.masks * 255).to(torch.uint8)[..., None].expand(-1, -1, -1, 3)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from where a GPU fetches it while it computes. The DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def shared(self) -> Batch:
        """The same in shared memory, from where another process takes it."""
        return self._each(lambda tensor: tensor.share_memory_())

    def to(self, device: torch.device) -> Batch:
        """The same on a device; the copy to a GPU is asynchronous, from page-locked memory."""
        if device.type != "cuda":
            return self._each(lambda tensor: tensor.to(device))
        return self._each(lambda t: (t if t.is_pinned() else t.pin_memory()).to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*(None if tensor is None else change(tensor) for tensor in vars(self).values()))


@dataclass(frozen=True)
class _Item:
    """One row of a batch: which image, whether as its twin, and the crop that all its pictures get."""

    key: str
    twin: bool
    crop: Crop
    feature: int | None = None
    """The row of its diffusion features, where the method has them."""
    copy: str | None = None
    """The key of the inpainted image that stands for it, where it is an inpainted twin."""
    draw: str = ""
    """Image, first or second item, and epoch: the key of its random numbers."""


class TrainingBatches:
    """`batches[step]` is the batch of that step, or its rows `part`: a map-style dataset for torch's DataLoader."""

    def __init__(
        self,
        name: str,
        sources: Sources,
        settings: TrainingSettings,
        seed: int,
        partner_seed: int,
        part: slice = slice(None),
    ) -> None:
        self.method, self.settings, self.seed, self.part = method(name), settings, seed, part
        self.options = settings.model_dump(include=set(self.method.reads))
        self.keys = sorted(sources.keys)
        occluded = [key for key in self.keys if key in sources.parts.rows]
        own, twins = (sources.features, self.keys), (sources.twin_features, occluded)
        given = [exchanged_features(rows, name, keys, seed, sources.views) for rows, keys in (own, twins)]
        self.sources = replace(sources, features=given[0], twin_features=given[1])
        self.partner = partner_order(self.keys, partner_seed)
        self.steps_per_epoch = -(-2 * len(self.keys) // settings.batch_size)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> Batch:
        mix = self.method.mix  # it mixes rows of the whole batch, whatever part of them is wanted
        items = self._items(step) if mix else self._items(step)[self.part]
        labels = [self.sources.labels[item.key] for item in items]
        targets = np.zeros((len(items), self.sources.classes), np.float32)
        targets[np.arange(len(items)), labels] = 1
        images = self._pictures(items)
        if mix:
            twins, rng = np.array([item.twin for item in items]), rng_for(self.seed, f"step {step}", self.method.name)
            images, targets = mix(Mixture(images, targets, twins, rng, self.options))
            images, targets, items = images[self.part], targets[self.part], items[self.part]
        masks = np.stack([self._whole_mask(item) for item in items]) if self.method.masks else None
        fused = "features" in self.method.needs
        features = np.stack([self._feature(item) for item in items]) if fused else None
        return Batch(*(None if part is None else torch.from_numpy(part) for part in (images, targets, masks, features)))

    def keys_of(self, step: int) -> list[str]:
        """The images of a step's batch."""
        return [item.key for item in self._items(step)]

    def feature_moments(self) -> Moments:
        """The moments of l_d over the items of all epochs, in each of which any view of an image is as likely."""
        uses: dict[int, tuple[Rows, NDArray[np.float64]]] = {}
        share = self.settings.twins
        shares = [(twin, 2 * part) for twin, part in ((False, 1 - share), (True, share)) if part]
        for key in self.keys:
            for twin, weight in shares:
                rows = self._rows(key, twin)
                assert rows is not None, f"{self.method.name} has no features"
                often = uses.setdefault(id(rows), (rows, np.zeros(len(rows.payload))))[1]
                often[[rows.row_of[name] for name in view_keys(key, self.sources.views)]] += weight
        size = 1024
        return moments_of(
            (rows.payload[some], often[some])
            for rows, often in uses.values()
            for used in [np.flatnonzero(often)]
            for some in np.split(used, range(size, len(used), size))
        )

    def _items(self, step: int) -> list[_Item]:
        epoch, within = divmod(step, self.steps_per_epoch)
        size = self.settings.batch_size
        numbers = self._epoch_order(epoch)[within * size : (within + 1) * size].tolist()
        return [self._item(self.keys[number // 2], number % 2, epoch) for number in numbers]

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the 2N items of an epoch; item 2i is the original i, 2i + 1 its twin. Full batches only.

        The last batch is filled up from the start of the order, so that every step has the same weight.
        """
        if self._order is None or self._order[0] != epoch:
            order = rng_for(self.seed, f"epoch {epoch}", "order").permutation(2 * len(self.keys))
            self._order = (epoch, np.resize(order, self.steps_per_epoch * self.settings.batch_size))
        return self._order[1]

    def _item(self, key: str, second: int, epoch: int) -> _Item:
        """An image's original or twin, with its random crop: that of a cached view where features have several."""
        draw = f"{key} {second} {epoch}"
        rng = rng_for(self.seed, draw, "crop")
        twin = self._is_twin(second, draw)
        rows = self._rows(key, twin)
        if rows is not None and self.sources.views > 1:
            row = rows.row_of[view_key(key, int(rng.integers(self.sources.views)))]
            left, top, right, bottom = rows.extras["box"][row].tolist()
            crop = Crop((left, top, right, bottom), bool(rows.extras["flip"][row]))
            return _Item(key, twin, crop, row, draw=draw)
        inpainted = "inpainted" in self.method.needs and self._occluded(key, twin)
        copy = self._drawn_copy(key, draw) if inpainted else None
        height, width = self._cached(key, copy).shape[:2]
        crop = random_crop(height, width, self.settings.crop_scale, self.settings.flip, rng)
        return _Item(key, twin, crop, None if rows is None else rows.row_of[key], copy, draw)

    def _is_twin(self, second: int, draw: str) -> bool:
        """Whether an item is a twin: of an image's two the second first, and where a share is left over, at random."""
        likely = min(max(2 * self.settings.twins - (1 - second), 0), 1)
        return likely == 1 or (likely > 0 and rng_for(self.seed, draw, "twin").random() < likely)

    def _drawn_copy(self, key: str, draw: str) -> str:
        """The inpainted image that an item is in an epoch, drawn apart from the crop: any number of copies has the same."""
        kept = self._kept_copies(key)
        return kept[int(rng_for(self.seed, draw, "copy").integers(len(kept)))]

    def _kept_copies(self, key: str) -> list[str]:
        """The inpainted images that may stand for an image: all its copies, but for those that were rejected."""
        return [copy for copy in view_keys(key, self.sources.copies) if copy not in self.sources.rejected]

    def _rows(self, key: str, twin: bool) -> Rows | None:
        """Where the diffusion features of an item are: those of an occluded twin are of the occluded image."""
        return self.sources.twin_features if self._occluded(key, twin) else self.sources.features

    def _cached(self, key: str, copy: str | None) -> NDArray[np.uint8]:
        """The cached pixels (H, W, 3) of an image, or of an inpainted one, which is in a cache of its own."""
        if copy is None:
            return self.sources.pixels[key]
        assert self.sources.inpainted is not None
        return self.sources.inpainted[copy]

    def _occluded(self, key: str, twin: bool) -> bool:
        """Whether an item is an occluded twin; one without chosen parts, or with rejected fills alone, is its own twin."""
        clean = "features" in self.method.needs and self.settings.twin_features == "clean"
        return twin and not clean and key in self.sources.parts.rows and bool(self._kept_copies(key))

    def _pictures(self, items: list[_Item]) -> NDArray[np.uint8]:
        """The items' pictures (B, S, S, 3): cropped, flipped and, where they are occluded twins, painted by the method."""
        size, paint = self.settings.image_size, self.method.paint
        images = np.empty((len(items), size, size, 3), np.uint8)
        for row, item in enumerate(items):
            picture = self._cached(item.key, item.copy)
            painted = self._occluded(item.key, item.twin) or (item.twin and not self.method.parts)
            if paint and painted and self.method.whole:
                hidden = reached(self.sources.parts.runs(item.key), *picture.shape[:2])
                window = item.crop.pixels(*picture.shape[:2])
                images[row] = fitted(paint(self._twin(item, picture, hidden, window)), item.crop.flip, size)
                continue
            images[row] = cut(picture, item.crop, size)
            if paint and painted:
                hidden = self._mask(item, "mask") if self.method.parts else np.zeros((size, size), bool)
                images[row] = paint(self._twin(item, images[row], hidden))
        return images

    def _twin(self, item: _Item, picture: NDArray[np.uint8], hidden: NDArray[np.bool_], window: Window = WHOLE) -> Twin:
        return Twin(
            picture,
            hidden,
            partner=lambda: cut(self.sources.pixels[self.partner[item.key]], item.crop, self.settings.image_size),
            rng=lambda: rng_for(self.seed, item.draw, self.method.name),
            options=self.options,
            window=window,
        )

    def _feature(self, item: _Item) -> NDArray[np.float16]:
        """l_d of an item."""
        rows = self._rows(item.key, item.twin)
        assert rows is not None and item.feature is not None
        return np.asarray(rows.payload[item.feature])

    def _whole_mask(self, item: _Item) -> NDArray[np.bool_]:
        """m_i of Eq. 1: the mask of the object, or of the chosen parts; nothing where an image has none."""
        which, parts = "object" if self.settings.mask_image == "object" else "mask", self.sources.parts
        if item.key in parts.rows or (which == "object" and item.key in parts.own_twins):
            return self._mask(item, which)
        return np.zeros((self.settings.image_size,) * 2, bool)

    def _mask(self, item: _Item, which: str) -> NDArray[np.bool_]:
        return cut_mask(self.sources.parts.runs(item.key, which), item.crop, self.settings.image_size)


def cut(image: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """A crop of an image (H, W, 3) uint8 at the nearest pixels, resized to (size, size, 3), and flipped."""
    return fitted(image[crop.pixels(*image.shape[:2])].copy(), crop.flip, size)


def fitted(part: NDArray[np.uint8], flip: bool, size: int) -> NDArray[np.uint8]:
    """A picture (h, w, 3) uint8, contiguous, resized to (size, size, 3), and flipped.

    Bicubic with antialiasing, torch's kernel for bytes: its values are Pillow's but for rounding, in less time.
    """
    # A batch of one by torch, whose strides say "channels last"; numpy's stride of 0 would get the kernel for planes.
    pixels = torch.from_numpy(part)[None].permute(0, 3, 1, 2)
    if pixels.shape[2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    return (pixels.flip(3) if flip else pixels)[0].permute(1, 2, 0).numpy()


def cut_mask(mask: Runs, crop: Crop, size: int) -> NDArray[np.bool_]:
    """A crop of a mask, resized to (size, size) by nearest pixel, and flipped."""
    left, top, right, bottom = crop.box
    centres = (np.arange(size) + 0.5) / size
    rows = ((top + centres * (bottom - top)) * mask.height).astype(np.int64)
    columns = ((left + centres * (right - left)) * mask.width).astype(np.int64)
    return mask.at(np.minimum(rows, mask.height - 1), np.minimum(columns, mask.width - 1), crop.flip)

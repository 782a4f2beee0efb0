"""Feature augmentation: intermediate U-Net features with the null prompt (Sec. 3, "Feature Augmentation").

What enters: cached latents. What leaves: a shard of features (rows, D) float16, the paper's l_d. Latents are noised to
the timestep, the U-Net runs up to the last of the chosen blocks, and each block's output is average-pooled. The noise of
an image is derived from (seed, key), so neighbours and devices do not change it. Several noise draws or timesteps of an
image are rows of the U-Net's batch, as other images are; their outputs are held for one batch of images at a time.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dfeat.diffusion.fitting import Fitting, in_parts
from dfeat.diffusion.forward import noised
from dfeat.diffusion.inputs import (
    as_the_model_takes,
    by_argument,
    checked_arguments,
    checked_batch_size,
    checked_precision,
    one_each,
    pixel_keys,
    several,
)
from dfeat.diffusion.latents import encode
from dfeat.diffusion.layout import find_model
from dfeat.diffusion.models import DiffusionModel, compile_model, load_model, load_pretrained
from dfeat.diffusion.settings import FeatureSettings, FeaturesStage
from dfeat.diffusion.stream import Done, gathered, made_on, to_device
from dfeat.errors import UserError
from dfeat.randomness import seed_for
from dfeat.section import parse
from dfeat.storage.journal import journal_of
from dfeat.storage.shards import Shard, read_shard, write_shard

RECIPE: Final = 4
BATCH: Final = 8
"""Default number of images, and of U-Net rows, in a batch."""

KeyedLatents = tuple[torch.Tensor, str]
"""An image: unscaled latents (4, h, w), key."""
UNetRow = tuple[torch.Tensor, torch.Tensor, int]
"""A row of the U-Net's batch: scaled latents (4, h, w) and noise (4, h, w), both float32, timestep."""


class FeatureExtractor:
    """Diffusion features of images or of their latents, from any diffusers model of the SD family.

    >>> extract = FeatureExtractor.from_pretrained("demo", blocks="mid", timestep=100)
    >>> extract
    <FeatureExtractor demo: mid at timestep 100, 96 features, 64 px, float32 on cpu>
    >>> extract("photographs/")  # files, PIL images, arrays, tensors -> (B, D) float32        # doctest: +SKIP
    """

    def __init__(
        self,
        model: DiffusionModel,
        settings: FeatureSettings,
        scaling_factor: float,
        null_prompt: torch.Tensor | None = None,
        batch_size: int = BATCH,
        what: str = "features",
    ) -> None:
        """`null_prompt` (1, tokens, width), if given, replaces the text encoder; images require a VAE.

        `batch_size` images are held, and as many U-Net rows computed, at once; fewer where the device's memory runs out.
        `what` names the job in messages. Raises UserError for a block or a timestep that the model does not have.
        """
        self.model = model
        self.name = "model"
        self.settings = settings
        self.scaling_factor = scaling_factor
        trained = model.scheduler.config.num_train_timesteps
        if (latest := max(settings.timesteps)) >= trained:
            raise UserError(
                f"features.timestep is {latest}, but the model was trained with {trained} timesteps; use 0 to {trained - 1}"
            )
        self.blocks = [find_block(model.unet, name) for name in settings.blocks]
        self.null_prompt = model.embed([""]) if null_prompt is None else null_prompt
        checked_batch_size(batch_size)
        self._encoded: Fitting[NDArray[np.uint8]] = Fitting(
            lambda rows: (encode(model, np.stack(rows)),), batch_size, what
        )
        passes = settings.ensemble * len(settings.timesteps)
        self.featured: Fitting[KeyedLatents] = Fitting(self._means, batch_size, what, passes)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        blocks: str | Sequence[str] = ("mid",),
        timestep: int | Sequence[int] = 25,
        pool: int = 1,
        ensemble: int = 1,
        seed: int = 0,
        noise: bool = True,
        precision: Any = "float32",
        revision: str | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH,
        **others: Any,
    ) -> Self:
        """Load the model from a folder or Hub id, with its VAE and text encoder.

        Args:
            path: Folder in the diffusers layout, Hub id, or "demo", the model that ships with the package.
            blocks: U-Net blocks: "mid", "down.<i>", "up.<i>" (Stable Diffusion has i from 0 to 3, "demo" 0 and 1), or "up.<i>.<j>"
                for layer j of one; one or several, whose features are concatenated.
            timestep: Noise that is added to the latents first; several are passes of their own, concatenated.
            pool: Each block's output is averaged to pool x pool; 0 keeps the whole map.
            ensemble: Draws of noise that are averaged.
            seed: Of the noise, with each image's key.
            noise: False: none is added; for a U-Net that was trained on clean latents.
            precision: "float32", "tf32", "bfloat16", "float16", or a torch dtype.
            revision: The commit of a Hub model.
            device: A torch device; None: CUDA where there is one.
            batch_size: Images that are computed at once.
            others: Nothing more; a name from another library is answered with the one that it has here.

        Raises:
            UserError: An argument that is not allowed, or a model that cannot be loaded.
        """
        checked_arguments(others, inspect.signature(cls.from_pretrained).parameters.keys() - {"others"})
        steps, chosen = several(timestep), (blocks,) if isinstance(blocks, str) else several(blocks)
        given = {"blocks": chosen, "timestep": steps, "pool": pool, "ensemble": ensemble, "seed": seed, "noise": noise}
        with by_argument():
            settings = parse(FeatureSettings, given, "features")
            model = load_pretrained(path, checked_precision(precision), revision, device)
            extractor = cls(model, settings, model.scaling_factor, batch_size=batch_size)
        extractor.name = str(path)
        return extractor

    def __call__(self, images: Any, keys: Sequence[str] | None = None, *, resize: bool | None = None) -> torch.Tensor:
        """Features of images, as `from_latents` returns them; one image gives one row.

        Args:
            images: As people have them, see `dfeat.load_images`.
            keys: They seed the noise of each image. None: the key of an image is a digest of its pixels, so that its
                features are the same alone, in any batch and in any order.
            resize: True: each image's shorter side is resized to the model's own side, and the central square cropped.
                False: none is; heights and widths must be multiples of `model.side_multiple`. None: files and PIL images
                are, arrays and tensors are not.

        Raises:
            UserError: Images that are none, of sides that the model does not take, or another number of keys.
        """
        array, _ = as_the_model_takes(images, self.model, resize)
        names = pixel_keys(array) if keys is None else one_each(keys, len(array), "keys")
        latents = self._encoded(list(array), "encode")[0]
        return self.featured(list(zip(latents, map(str, names), strict=True)), "features")[0]

    @property
    def feature_names(self) -> list[str]:
        """The name of each feature (D of them), or of each channel where `pool` is 0: "mid[7] t=100", with pool 2 "mid[7, 0, 1] t=100"."""
        cells = [(row, column) for row in range(self.settings.pool) for column in range(self.settings.pool)]
        names = []
        for timestep in self.settings.timesteps:
            for block, module in zip(self.settings.blocks, self.blocks, strict=True):
                for channel in range(channels_of(module)):
                    at = [f", {row}, {column}" for row, column in cells] if len(cells) > 1 else [""]
                    names += [f"{block}[{channel}{cell}] t={timestep}" for cell in at]
        return names

    @property
    def num_features(self) -> int:
        """D, the number of features of an image; of channels where `pool` is 0."""
        per_cell = sum(map(channels_of, self.blocks))
        return per_cell * max(1, self.settings.pool**2) * len(self.settings.timesteps)

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device; returns the extractor. UserError for one that torch does not reach here."""
        self.model.to(device)
        self.null_prompt = self.null_prompt.to(self.model.device)
        return self

    def __repr__(self) -> str:
        blocks, steps = " + ".join(self.settings.blocks), ", ".join(map(str, self.settings.timesteps))
        steps += "" if self.settings.noise else " without noise"
        return (
            f"<FeatureExtractor {self.name}: {blocks} at timestep {steps}, {self.num_features:,} features, "
            f"{self.model.native_side} px, {self.model.precision} on {self.model.device}>"
        )

    @torch.no_grad()
    def from_latents(self, latents: torch.Tensor, keys: Sequence[str]) -> torch.Tensor:
        """Features of unscaled latents (B, 4, h, w): float32 (B, D), or (B, D, h', w') where pool is 0.

        D is the sum of the blocks' channels, times pool * pool, times the number of timesteps; all blocks of the first
        timestep come first. Raises UserError where the number of keys is not that of latents.
        """
        names = [str(key) for key in one_each(keys, len(latents), "keys")]
        return self.featured(list(zip(latents, names, strict=True)))[0]

    def _means(self, rows: list[KeyedLatents]) -> tuple[torch.Tensor]:
        """The features of some images (B, D): the mean over the ensemble, timesteps concatenated."""
        settings, device = self.settings, self.model.device
        latents, keys = torch.stack([row for row, _ in rows]), [key for _, key in rows]
        scaled = latents.to(device, torch.float32) * self.scaling_factor
        passes: list[UNetRow] = []
        for member in range(settings.ensemble):
            seeds = [seed_for(settings.seed, key, f"features {member}") for key in keys]
            drawn = draw_noise(scaled.shape[1:], [torch.Generator().manual_seed(seed) for seed in seeds])
            noise = to_device(drawn.numpy(), device)
            for timestep in settings.timesteps:
                # All timesteps of an ensemble member share its noise.
                passes += zip(scaled, noise, [timestep] * len(keys), strict=True)
        (features,) = in_parts(self._pooled_blocks, passes, self.featured.size)
        # `passes` is ordered by member, then timestep, then image.
        apart = features.unflatten(0, (settings.ensemble, len(settings.timesteps), len(keys)))
        return (torch.cat(list(apart.mean(0)), dim=1),)

    def _pooled_blocks(self, passes: list[UNetRow]) -> tuple[torch.Tensor]:
        """The pooled blocks of some passes, concatenated: (rows, D), or (rows, D, h', w') where pool is 0."""
        rows, noise, steps = zip(*passes, strict=True)
        timesteps = to_device(np.array(steps, np.int64), self.model.device)
        blocks = self.maps(torch.stack(rows), torch.stack(noise), timesteps)
        sizes = [tuple(block.shape[2:]) for block in blocks]
        if self.settings.pool == 0 and len(set(sizes)) > 1:
            found = ", ".join(f"{name} {h}x{w}" for name, (h, w) in zip(self.settings.blocks, sizes, strict=True))
            raise UserError(
                f"features.pool is 0, which keeps whole maps, but the blocks differ in size ({found}); choose blocks of one "
                "size, or set pool to 1 or more"
            )
        whole, pool = [block.float() for block in blocks], self.settings.pool
        pooled = [F.adaptive_avg_pool2d(block, pool).flatten(1) for block in whole] if pool else whole
        return (torch.cat(pooled, dim=1),)

    def maps(self, scaled: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> list[torch.Tensor]:
        """Outputs (B, C, h', w') of the blocks for scaled latents and noise (B, 4, h, w) at timesteps (B,)."""
        noisy = noised(self.model.scheduler, scaled, noise, timesteps) if self.settings.noise else scaled
        if self.model.unet.config.in_channels == 9:
            # An inpainting U-Net also takes a mask and the masked image's latents: nothing is hidden, so the clean ones.
            noisy = torch.cat([noisy, torch.zeros_like(noisy[:, :1]), scaled], dim=1)
        prompt = self.null_prompt.expand(len(noisy), -1, -1)
        noisy = noisy.to(self.model.dtype, memory_format=torch.channels_last)
        with self.model.arithmetic():
            return forward_until(self.model.unet, self.blocks, noisy, timesteps, prompt)


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Standard normal noise (len(generators), *shape) float32, contiguous, each row from its own CPU generator."""
    # Not torch.randn_like: it fills memory in the order of the tensor's strides, so that the same seed gives other noise
    # for channels-last latents than for contiguous ones.
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def channels_of(block: Any) -> int:
    """The channels of the output of a U-Net block or of a layer of one."""
    last = block.resnets[-1] if hasattr(block, "resnets") else block
    return int(getattr(last, "out_channels", None) or last.in_channels)


def find_block(unet: Any, name: str) -> torch.nn.Module:
    """The U-Net block called "mid", "down.<i>" or "up.<i>", or layer j of it, "up.<i>.<j>": its residual block, with attention.

    Raises UserError for an index that it does not have.
    """
    if name == "mid":
        return unet.mid_block
    stage, index, *layer = name.split(".")
    block = _numbered(unet.down_blocks if stage == "down" else unet.up_blocks, int(index), name, stage)
    if not layer:
        return block
    attentions = getattr(block, "attentions", None)
    return _numbered(attentions or block.resnets, int(layer[0]), name, f"{stage}.{index}")


def _numbered(modules: Any, index: int, name: str, above: str) -> Any:
    if index >= len(modules):
        what = "layers" if "." in above else "blocks"
        raise UserError(
            f"features.blocks has {name!r}, but this U-Net has {len(modules)} {above} {what}; use {above}.0 to "
            f"{above}.{len(modules) - 1}"
        )
    return modules[index]


class _Stop(Exception):
    """Raised by a forward hook to end the forward pass after the last of the chosen blocks."""


def forward_until(
    unet: Any, blocks: Sequence[torch.nn.Module], noisy: torch.Tensor, timesteps: torch.Tensor, prompt: torch.Tensor
) -> list[torch.Tensor]:
    """Outputs (B, C, h', w') of the blocks, bit-identical to those of a whole forward pass.

    `blocks` are blocks of `unet` (see `find_block`), `noisy` scaled and noised latents (B, 4 or 9, h, w), `timesteps`
    (B,) int64, and `prompt` text embeddings (B, tokens, width).
    """
    outputs: dict[int, torch.Tensor] = {}

    def keep(number: int, _module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        outputs[number] = output[0] if isinstance(output, tuple) else output
        # Early exit: the exception unwinds the forward pass, so later blocks are not computed.
        if len(outputs) == len(blocks):
            raise _Stop

    handles = [block.register_forward_hook(partial(keep, number)) for number, block in enumerate(blocks)]
    try:
        unet(noisy, timesteps, encoder_hidden_states=prompt)
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [outputs[number] for number in range(len(blocks))]


def extract_features(latents_file: Path, settings: FeaturesStage, out: Path, device: torch.device) -> Done:
    """Write the features of every row of a latents shard to `out`. Raises UserError for latents of another model."""
    return next(extract_all({latents_file: out}, settings, device))


def extract_all(outs: Mapping[Path, Path], settings: FeaturesStage, device: torch.device) -> Iterator[Done]:
    """Write the features of each latents shard to its file, one after the other, as `extract_features` does."""
    model = load_model(settings.model, "features", device)
    # A compiled layer would take the hook that keeps its output, and ends the pass, into its graph.
    compile_model(model, settings.compile, apart=[find_block(model.unet, name) for name in settings.features.blocks])
    # From the VAE's configuration alone: features need no VAE weights.
    scaling_factor = float(find_model(settings.model).config("vae").get("scaling_factor", 0.18215))
    extractor = FeatureExtractor(model, settings.features, scaling_factor, batch_size=settings.batch_size)

    def compute(batch: list[tuple[str, NDArray[Any]]]) -> tuple[torch.Tensor, ...]:
        rows = np.stack([row for _, row in batch])
        return (extractor.from_latents(to_device(rows, device), [key for key, _ in batch]).half(),)

    for latents_file, out in outs.items():
        latents = read_shard(latents_file, "latents", model=model.digest)
        described = settings.model_dump(mode="json") | {"latents": json.loads(latents.settings)}
        claims = latents.index, latents.parts, latents.number
        keys, crops = latents.keys, latents.extras
        made = Shard("features", RECIPE, described, model.digest, keys, [], crops, model.digests, *claims)
        extractor.featured.what = f"features {out}"
        with journal_of(out, made, latents=latents.digest, **made_on(device)) as journal:
            rows = zip(keys, np.asarray(latents.payload), strict=True)
            left = [(key, row) for key, row in rows if key not in journal.rows]
            made.payload, done = gathered(left, keys, compute, extractor.featured, journal, "features")
            write_shard(out, made)
        yield done

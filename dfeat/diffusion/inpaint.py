"""Input augmentation: the chosen parts inpainted by a frozen diffusion model (Sec. 3, "Input Augmentation").

What enters: the training index and its chosen parts. What leaves: a shard of losslessly encoded images at their own
size, generated inside the chosen parts and equal to the original outside. The 4-channel path encodes the whole input,
and hidden pixels would leak through the VAE at the borders of the mask, so they are painted over first. The procedure
is otherwise that of diffusers' StableDiffusionInpaintPipeline at strength 1, batched: each class's prompt and the null
prompt are embedded once, and the masked image is encoded only for the 9-channel U-Net, which alone reads it.
"""

from __future__ import annotations

import inspect
import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.classes import lemmas
from dfeat.data.index import ClassInfo, Record, read_index
from dfeat.devices.attempts import record
from dfeat.diffusion.canvas import Canvas, Copy, Square, around, conceal, copies_of, paste_known, resize_mask, sides
from dfeat.diffusion.denoise import Denoiser
from dfeat.diffusion.features import BATCH, draw_noise
from dfeat.diffusion.fitting import Fitting
from dfeat.diffusion.forward import noised, sampler
from dfeat.diffusion.inputs import (
    as_the_model_takes,
    by_argument,
    checked_arguments,
    checked_batch_size,
    checked_masks,
    checked_precision,
    checked_prompts,
    checked_seeds,
    one_each,
)
from dfeat.diffusion.latents import part_of, to_model_range
from dfeat.diffusion.models import DiffusionModel, compile_model, load_model, load_pretrained
from dfeat.diffusion.schedule import passes
from dfeat.diffusion.settings import InpaintSettings, InpaintStage
from dfeat.diffusion.stream import Done, Waiting, fetched, made_on, padded, prepared, to_device
from dfeat.errors import UserError
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.progress import progress
from dfeat.section import parse
from dfeat.storage.journal import journal_of
from dfeat.storage.shards import Shard, write_shard

RECIPE: Final = 5

_Given = tuple[NDArray[np.uint8], NDArray[np.bool_], str, int]
"""One image of a library call: pixels (H, W, 3), mask (H, W), prompt, seed."""
_Row = tuple[Canvas, NDArray[np.uint8]]
"""A canvas with its square, (side, side, 4) to fill or (side, side, 3) filled."""
_Batch = tuple[list[_Row], int]
"""Filled squares, and how many rows were computed at a time."""


class Inpainter:
    """Batched inpainting with any diffusers model of the SD family, 4 or 9 input channels.

    >>> inpaint = Inpainter.from_pretrained("demo", steps=10)
    >>> inpaint
    <Inpainter demo: 10 steps of ddim, guidance 7.5, 64 px, float32 on cpu>
    >>> inpaint("photo.jpg", "mask.png", "A class of tiger")  # -> (1, S, S, 3) uint8            # doctest: +SKIP
    """

    def __init__(self, model: DiffusionModel, settings: InpaintSettings, batch_size: int = BATCH) -> None:
        """Inpaint `batch_size` images at once, fewer where the device's memory runs out."""
        self.model = model
        self.name = "model"
        self.settings = settings
        sampler(model.scheduler, settings.scheduler, settings.steps)  # refuses steps that the model does not have
        self._embeddings: dict[str, torch.Tensor] = {}
        self._filled: Fitting[_Given] = Fitting(self._on_host, checked_batch_size(batch_size), "inpaint")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        precision: Any = "float32",
        revision: str | None = None,
        device: torch.device | str | None = None,
        batch_size: int = BATCH,
        **settings: Any,
    ) -> Self:
        """Load the model from a folder, a Hub id or "demo"; the other arguments are those of `FeatureExtractor`.

        `settings` are those of `diffusion.inpaint` in config.yaml: `steps`, `scheduler`, `guidance_scale`, ... Raises
        UserError for invalid ones, and for a model that cannot be loaded.
        """
        arguments = inspect.signature(cls.from_pretrained).parameters.keys() - {"settings"}
        checked_arguments(settings, arguments | InpaintSettings.model_fields.keys())
        with by_argument():
            chosen = parse(InpaintSettings, settings, "inpaint")
            model = load_pretrained(path, checked_precision(precision), revision, device)
            inpainter = cls(model, chosen, batch_size)
        inpainter.name = str(path)
        return inpainter

    def __call__(
        self,
        images: Any,
        masks: Any,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        *,
        paste: bool = False,
        resize: bool | None = None,
    ) -> NDArray[np.uint8]:
        """Fill the masked pixels of images.

        Args:
            images: As people have them, see `dfeat.load_images`. The values of hidden pixels have no influence, unless
                `settings.hidden` is "given".
            masks: For each image one of its size, (B, H, W), or one for all: bool, True where hidden; numbers, files and
                PIL images hide where they are not 0, or above half of their range where they have soft edges.
            prompts: A text per image, or one for all.
            seeds: A seed per image, so that a row does not depend on its neighbours. None, or one number: each image's is
                drawn from it, the known pixels and the mask.
            names: A name per image for error messages (default: "row 0", "row 1", ...).
            paste: Whether known pixels are taken from the images; else they are the decoder's, and approximate.
            resize: As `FeatureExtractor` has it; masks follow their images.

        Returns:
            (B, H, W, 3) uint8.

        Raises:
            UserError: Arguments that do not match each other or the model, or an output that is not finite.
        """
        array, fits = as_the_model_takes(images, self.model, resize)
        count = len(array)
        hidden = checked_masks(masks, fits)
        columns = hidden, checked_prompts(prompts, count), checked_seeds(seeds, black_out(array, hidden))
        called = [f"row {row}" for row in range(count)] if names is None else one_each(names, count, "names")
        filled, finite = self._filled(list(zip(array, *columns, strict=True)), "inpaint")
        self.check_finite(finite.numpy(), called)
        return paste_known(filled.numpy(), array, hidden) if paste else filled.numpy()

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device; returns the inpainter. UserError for one that torch does not reach here."""
        self.model.to(device)
        self._embeddings.clear()
        return self

    def __repr__(self) -> str:
        chosen = self.settings
        return (
            f"<Inpainter {self.name}: {chosen.steps} steps of {chosen.scheduler}, guidance {chosen.guidance_scale:g}, "
            f"{self.model.native_side} px, {self.model.precision} on {self.model.device}>"
        )

    def _on_host(self, rows: list[_Given]) -> tuple[torch.Tensor, ...]:
        """Apply `fill` to some rows and copy the result to the host, so that one batch at a time is on the device."""
        images, masks, prompts, seeds = zip(*rows, strict=True)
        shown = [conceal(image, mask, self.settings.hidden) for image, mask in zip(images, masks, strict=True)]
        return tuple(tensor.cpu() for tensor in self.fill(np.stack(shown), np.stack(masks), prompts, seeds))

    @torch.no_grad()
    def fill(
        self, images: NDArray[np.uint8], masks: NDArray[np.bool_], prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inpaint one batch; takes the arguments of a call, unchecked, with hidden pixels concealed.

        Returns, on the device, images (B, H, W, 3) uint8 and whether all values of each were finite, (B,) bool.
        """
        with self.model.arithmetic():
            return self._fill(images, masks, prompts, [torch.Generator().manual_seed(seed) for seed in seeds])

    def _fill(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        prompts: Sequence[str],
        generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        pixels = to_model_range(images, model)
        hidden = to_device(masks, model.device).float()[:, None]
        cells = self._latent_mask(hidden)
        nine = model.unet.config.in_channels == 9
        # The order in which the generators are used is part of the result: image (4 channels), noise, masked image (9).
        known = None if nine else self._encode(pixels, generators)
        noise = to_device(draw_noise((4, *cells.shape[2:]), generators).numpy(), model.device)
        # The 9-channel U-Net reads the mask and the image with hidden pixels at 0, mid-grey in [-1, 1].
        conditions = [cells, self._encode(pixels * (hidden < 0.5), generators)] if nine else []
        latents = self._sample(noise, known, cells, Denoiser(model, self.settings, self._embedded(prompts), conditions))
        latents = (latents / model.scaling_factor).to(model.dtype, memory_format=torch.channels_last)
        decoded = model.decode(latents)
        finite = torch.isfinite(decoded).flatten(1).all(1)
        # [-1, 1] to [0, 255]
        shown = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (shown * 255).round().to(torch.uint8).contiguous(), finite

    def _sample(
        self, noise: torch.Tensor, known: torch.Tensor | None, cells: torch.Tensor, denoise: Denoiser
    ) -> torch.Tensor:
        """The latents (B, 4, h, w) after all steps, from standard normal `noise` (B, 4, h, w), all in float32.

        `cells` (B, 1, h, w) is 1 where a latent cell is filled. `known` has the image's latents for a 4-channel U-Net,
        which does not see them otherwise; None with 9 channels.
        """
        latents, forward = noise, self.model.scheduler
        solver = sampler(forward, self.settings.scheduler, self.settings.steps)
        # The solver computes its coefficients on the host and the U-Net reads its timestep on the device, so that no step
        # waits for the one before: the host queues the whole loop ahead.
        timesteps = to_device(solver.timesteps.numpy(), self.model.device)
        for number, step in enumerate(passes(self.settings)):
            predicted = denoise(latents, timesteps[number], step)
            # With a = alphabar, x0 the model's estimate of the clean latents (epsilon: x0 = (x_t - sqrt(1 - a_t) eps) /
            # sqrt(a_t); v: x0 = sqrt(a_t) x_t - sqrt(1 - a_t) v) and s the next timestep:
            # DDIM (Song et al., 2021, Eq. 12, eta = 0): x_s = sqrt(a_s) x0 + sqrt(1 - a_s) eps.
            # DPM-Solver++(2M) (Lu et al., 2022, Alg. 2): x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D,
            # alpha = sqrt(a), sigma = sqrt(1 - a), lambda = log(alpha / sigma), h = lambda_s - lambda_t,
            # D = (1 + 1 / 2r) x0_t - (1 / 2r) x0_before, r = h_before / h.
            latents = solver.step(predicted, solver.timesteps[number], latents, return_dict=False)[0]
            if known is not None:
                # After the last step the known latents are clean; before it they are noised to the next timestep s, always
                # with the initial noise.
                later = timesteps[number + 1 : number + 2]
                blended = noised(forward, known, noise, later) if len(later) else known
                # x_s = (1 - m) x_s^known + m x_s^filled (blended latent diffusion, Avrahami et al., 2023)
                latents = (1 - cells) * blended + cells * latents
        return latents

    def check_finite(self, finite: NDArray[np.bool_], names: Sequence[str]) -> None:
        """Raise UserError with the names of the images that have non-finite values; `finite` and `names` are (B,)."""
        if finite.all():
            return
        bad = list(dict.fromkeys(name for name, good in zip(names, finite, strict=True) if not good))
        raise UserError(
            f"inpainting gave values that are not finite in {self.settings.steps} steps at {self.model.dtype} "
            f"({len(bad)} images: {', '.join(bad[:8])}); nothing was written. Use diffusion.model.precision float32 "
            "or bfloat16"
        )

    def _encode(self, pixels: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Scaled latents (B, 4, h, w) float32 of pixels (B, 3, H, W) in [-1, 1], sampled from the VAE's posterior."""
        posterior = self.model.encode(pixels.contiguous(memory_format=torch.channels_last))
        noise = to_device(draw_noise(posterior.mean.shape[1:], generators).numpy(), self.model.device)
        # z = scaling_factor * (mu + sigma * noise), each row's noise from its own generator
        return ((posterior.mean.float() + posterior.std.float() * noise) * self.model.scaling_factor).contiguous()

    def _latent_mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """Masks (B, 1, R, R) of pixels to masks (B, 1, R/8, R/8) of latent cells, float, 1 where a cell is filled."""
        factor = self.model.latent_factor
        if self.settings.mask_cells == "any":
            return F.max_pool2d(hidden, factor)
        return F.interpolate(hidden, size=(hidden.shape[2] // factor, hidden.shape[3] // factor))

    def _embedded(self, prompts: Sequence[str]) -> torch.Tensor:
        """Text embeddings (2B, tokens, width), unconditional first; the conditional (B, ...) without guidance."""
        wanted = list(dict.fromkeys([self.settings.negative_prompt, *prompts]))
        for text in wanted:
            if text not in self._embeddings:
                self._embeddings[text] = self.model.embed([text])[0]
        conditional = torch.stack([self._embeddings[text] for text in prompts])
        if self.settings.guidance_scale <= 1:
            return conditional
        unconditional = self._embeddings[self.settings.negative_prompt].expand_as(conditional)
        return torch.cat([unconditional, conditional])


def inpaint_shard(
    index_folder: Path,
    parts_file: Path,
    settings: InpaintStage,
    out: Path,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Done:
    """Inpaint shard i of n of the training images that have parts, and write it to `out`.

    A row is an image, or with `settings.inpaint.copies` K > 1 one of its copies, with the keys `view_key(key, 0)` to
    `view_key(key, K - 1)`. `workers` threads prepare the images. Raises UserError for inputs that do not belong
    together, and for non-finite results.
    """
    index = read_index(index_folder)
    parts = read_parts(parts_file, index=index.digest)
    records = part_of([record for record in index.records if record.key in parts.rows], shard)
    inpainter = Inpainter(load_model(settings.model, "inpaint", device, settings.resolution), settings.inpaint)
    copies = [copy for record in records for copy in copies_of(record, settings.inpaint)]
    names = _class_names(index.classes, settings.inpaint.class_name)
    compile_model(inpainter.model, settings.compile)
    squares = _squares(records, parts, settings, inpainter.model)
    keys, extras = [copy.key for copy in copies], {"seed": np.array([copy.seed for copy in copies], np.int64)}
    claims = inpainter.model.digests, index.digest, parts.digest, "/".join(map(str, shard))
    made = Shard("inpaint", RECIPE, settings, inpainter.model.digest, keys, [], extras, *claims)

    def prepare(copy: Copy) -> _Row:
        key = copy.record.key
        image, mask = index.load(copy.record), parts.mask(key)
        row = Canvas(copy, image, mask, squares[key], settings.resolution, settings.inpaint)
        return row, row.to_fill()

    def finish(batch: _Batch) -> None:
        (rows, size), encoding = batch, settings.inpaint.encoding
        journal.add({row.copy.key: _encoded(row.finished(square), encoding) for row, square in rows}, size)

    with journal_of(out, made, **made_on(device)) as journal:
        count = len(copies) - len(journal.rows)
        if journal.rows:
            record("taken up", rows=len(journal.rows))
        waiting, bar = Waiting(), progress(count, "inpaint")

        def filled() -> Iterator[_Batch]:
            for alike in _of_one_side(copies, squares):
                left = [copy for copy in alike if copy.key not in journal.rows]
                rows = prepared(left, prepare, workers, 2 * settings.batch_size)
                size = journal.least_size([copy.key for copy in alike], settings.batch_size)
                yield from _fill_all(inpainter, waiting.of(rows), settings, names, size, bar)

        # A batch is encoded and added to the journal while the next one is computed.
        deque(prepared(filled(), finish, workers, 1), maxlen=0)
        bar.close()
        done = Done.after(count, waiting)
        made.payload = [journal.rows.pop(key).tobytes() for key in keys]
        write_shard(out, made)
    return done


def _squares(
    records: Sequence[Record], parts: Parts, settings: InpaintStage, model: DiffusionModel
) -> dict[str, Square]:
    """The square of each image that is inpainted, by key: the whole image, or with `crop` the one around its mask."""
    side = settings.resolution
    if not settings.inpaint.crop:
        return {record.key: Square(0, 0, side) for record in records}
    allowed, cells = sides(side, model.side_multiple), settings.inpaint.mask_cells
    return {record.key: around(resize_mask(parts.mask(record.key), side, cells), allowed) for record in records}


def _of_one_side(copies: Sequence[Copy], squares: Mapping[str, Square]) -> list[list[Copy]]:
    """The copies whose squares have one side, for each side, ascending."""
    sides_of = [squares[copy.record.key].side for copy in copies]
    return [[copy for copy, own in zip(copies, sides_of, strict=True) if own == side] for side in sorted(set(sides_of))]


def _fill_all(
    inpainter: Inpainter, rows: Iterator[_Row], settings: InpaintStage, names: Sequence[str], fitting: int, bar: Any
) -> Iterator[_Batch]:
    """Canvases of `rows` with their filled squares (side, side, 3); all have one side, so batches have one shape.

    A batch is computed `fitting` rows at a time, fewer where the device's memory runs out.
    """

    def compute(batch: list[_Row]) -> tuple[torch.Tensor, ...]:
        here = [row for row, _ in batch]
        squares = np.stack([square for _, square in batch])
        prompts = [settings.inpaint.prompt.replace("<object_class>", names[row.copy.record.label]) for row in here]
        seeds = [row.copy.seed for row in here]
        return inpainter.fill(squares[..., :3], squares[..., 3] > 0, prompts, seeds)

    fits = Fitting(compute, fitting, "inpaint")
    for batch, (filled, finite) in fetched(padded(rows, settings.batch_size), fits):
        here = [row for row, _ in batch]
        inpainter.check_finite(finite, [row.copy.key for row in here])
        # The last batch is padded with its last row: distinct keys are the real rows.
        count = len({row.copy.key for row in here})
        bar.update(count)
        yield list(zip(here[:count], filled[:count], strict=True)), fits.size


def _class_names(classes: Sequence[ClassInfo], which: str) -> list[str]:
    """The text for <object_class> of each class: "one" of its names, or "all" of ImageNet's, joined by commas."""
    if which == "one":
        return [info.name for info in classes]
    return [", ".join(lemmas(info.wnid)) for info in classes]


def _encoded(image: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, encoding.upper(), **({"lossless": True} if encoding == "webp" else {}))
    return np.frombuffer(buffer.getvalue(), np.uint8)

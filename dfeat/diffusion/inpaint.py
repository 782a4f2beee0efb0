"""Input augmentation: the chosen parts filled in by a frozen diffusion model (Sec. 3, "Input Augmentation").

What enters: the training index and its chosen parts. What leaves: a shard of images, losslessly encoded, at
their own size: inside the chosen parts what the model made up, outside the original pixels, exactly.

The image that goes in is already occluded: the 4-channel path encodes what it is given, and hidden pixels
would leak at the borders of the mask. The procedure is that of diffusers' StableDiffusionInpaintPipeline at
strength 1, batched: prompts are embedded once a class, the null prompt once, and the masked image is encoded
only for the 9-channel U-Net, which is the one that reads it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.classes import lemmas
from dfeat.data.index import ClassInfo, Record, index_digest, read_index
from dfeat.data.pixels import resize
from dfeat.diffusion.features import draw_noise
from dfeat.diffusion.latents import batches, part_of, to_model_range
from dfeat.diffusion.models import DiffusionModel, load_model
from dfeat.errors import UserError
from dfeat.occlusion.paint import black_out, replace
from dfeat.occlusion.parts import read_parts
from dfeat.progress import progress
from dfeat.randomness import seed_for
from dfeat.settings import InpaintSettings, InpaintStage, ModelSource
from dfeat.storage.shards import Shard, write_shard

RECIPE: Final = 2


class Inpainter:
    """Batched inpainting with any diffusers model of the SD family, 4 or 9 input channels.

    >>> inpaint = Inpainter.from_pretrained("path/to/model", steps=25)             # doctest: +SKIP
    >>> inpaint(images, masks, prompts)  # (B, R, R, 3) uint8, (B, R, R) bool, B   # doctest: +SKIP
    """

    def __init__(self, model: DiffusionModel, settings: InpaintSettings) -> None:
        self.model = model
        self.settings = settings
        self.scheduler = _solver(model.scheduler, settings.scheduler)
        self._embeddings: dict[str, torch.Tensor] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        precision: str = "float32",
        revision: str | None = None,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> Self:
        """Load the model from a folder or Hub id; `settings` are those of config.yaml's diffusion.inpaint."""
        from dfeat.devices import pick_device
        from dfeat.settings import parse

        source = parse(ModelSource, {"path": str(path), "precision": precision, "revision": revision}, "model")
        chosen = parse(InpaintSettings, settings, "inpaint")
        return cls(load_model(source, "inpaint", torch.device(device) if device else pick_device()), chosen)

    @torch.no_grad()
    def __call__(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> NDArray[np.uint8]:
        """Fill the masked pixels of images (B, R, R, 3) uint8, masks (B, R, R) True where hidden.

        Returns (B, R, R, 3) uint8 as the decoder gives it: known pixels are close, not exact; `paste_known`
        makes them exact. `seeds` give each image its own generator (default: 0, 1, ...), so a row does not
        depend on its neighbours. Raises UserError, with the `names` of the images, for values that are not finite.
        """
        model, settings = self.model, self.settings
        generators = [torch.Generator().manual_seed(seed) for seed in (seeds or range(len(images)))]
        pixels = to_model_range(images, model)
        hidden = torch.from_numpy(masks).to(model.device, torch.float32)[:, None]
        cells = self._latent_mask(hidden).to(model.dtype)
        nine = model.unet.config.in_channels == 9
        known = None if nine else self._encode(pixels, generators)
        noise = draw_noise((4, *cells.shape[2:]), generators).to(model.device, model.dtype)
        conditions = [cells, self._encode(pixels * (hidden < 0.5), generators)] if nine else []
        prompt = self._prompt_embeddings(prompts)
        self.scheduler.set_timesteps(settings.steps)
        latents = noise * self.scheduler.init_noise_sigma
        timesteps = self.scheduler.timesteps
        for number, timestep in enumerate(timesteps):
            predicted = self._predict(latents, timestep, conditions, prompt)
            latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            if known is not None:
                blended = known
                if number < len(timesteps) - 1:
                    blended = self.scheduler.add_noise(known, noise, timesteps[number + 1 : number + 2])
                latents = (1 - cells) * blended + cells * latents
        decoded = model.vae.decode(
            (latents / model.scaling_factor).contiguous(memory_format=torch.channels_last)
        ).sample
        finite = torch.isfinite(decoded).flatten(1).all(dim=1)
        if not finite.all():
            named = names or [f"row {row}" for row in range(len(images))]
            bad = list(
                dict.fromkeys(name for name, is_finite in zip(named, finite.tolist(), strict=True) if not is_finite)
            )
            raise UserError(
                f"inpainting gave values that are not finite in {settings.steps} steps at {model.dtype} "
                f"({len(bad)} images: {', '.join(bad[:8])}); nothing was written. Use diffusion.model.precision float32 "
                "or bfloat16"
            )
        pixels_out = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return (pixels_out * 255).round().astype(np.uint8)

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditions: list[torch.Tensor], prompt: torch.Tensor
    ) -> torch.Tensor:
        """The U-Net's prediction under classifier-free guidance (Ho and Salimans, 2022, Eq. 6)."""
        guided = self.settings.guidance_scale > 1
        copies = 2 if guided else 1
        x = self.scheduler.scale_model_input(torch.cat([latents] * copies), timestep)
        x = torch.cat([x, *(torch.cat([condition] * copies) for condition in conditions)], dim=1)
        predicted = self.model.unet(
            x.contiguous(memory_format=torch.channels_last), timestep, encoder_hidden_states=prompt
        ).sample
        if not guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        return unconditional + self.settings.guidance_scale * (conditional - unconditional)

    def _encode(self, pixels: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Scaled latents drawn from the posterior, each row with its own generator."""
        posterior = self.model.vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
        noise = draw_noise(posterior.mean.shape[1:], generators)
        return ((posterior.mean + posterior.std * noise.to(posterior.mean)) * self.model.scaling_factor).contiguous()

    def _latent_mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """Masks (B, 1, R, R) as masks of latent cells (B, 1, R/8, R/8)."""
        factor = 2 ** (len(self.model.vae.config.block_out_channels) - 1)
        if self.settings.mask_cells == "any":
            return F.max_pool2d(hidden, factor)
        return F.interpolate(hidden, size=(hidden.shape[2] // factor, hidden.shape[3] // factor))

    def _prompt_embeddings(self, prompts: Sequence[str]) -> torch.Tensor:
        """(2B, tokens, width): unconditional first, then conditional; each text is embedded once a process."""
        wanted = list(dict.fromkeys([self.settings.negative_prompt, *prompts]))
        for text in wanted:
            if text not in self._embeddings:
                self._embeddings[text] = self.model.embed([text])[0]
        conditional = torch.stack([self._embeddings[text] for text in prompts])
        if self.settings.guidance_scale <= 1:
            return conditional
        unconditional = self._embeddings[self.settings.negative_prompt].expand_as(conditional)
        return torch.cat([unconditional, conditional])


def _solver(scheduler: Any, name: str) -> Any:
    """The solver that runs the model's own noise schedule."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if name == "ddim":
        return DDIMScheduler.from_config(scheduler.config)
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler.from_config(scheduler.config, algorithm_type="dpmsolver++", solver_order=2)
    return scheduler


def paste_known(
    inpainted: NDArray[np.uint8], original: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The inpainted square back at the original's size, with every known pixel the original's.

    `inpainted` (R, R, 3), `original` (H, W, 3), `mask` (H, W) True where hidden.
    """
    height, width = mask.shape
    return replace(original, mask, resize(inpainted, height, width))


def inpaint_shard(
    index_folder: Path,
    parts_file: Path,
    settings: InpaintStage,
    out: Path,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
) -> int:
    """Inpaint shard (i, n) of the training images that have parts; returns the number of rows."""
    index, digest = read_index(index_folder), index_digest(index_folder)
    parts = read_parts(parts_file, index=digest)
    records = part_of([record for record in index.records if record.key in parts.rows], shard)
    inpainter = Inpainter(load_model(settings.model, "inpaint", device, settings.resolution), settings.inpaint)
    side, names = settings.resolution, _class_names(index.classes, settings.inpaint.class_name)
    size = settings.batch_size
    padded = records + records[-1:] * (-len(records) % size)
    seeds = [seed_for(settings.inpaint.seed, record.key, "inpaint") for record in padded]
    prompts = [settings.inpaint.prompt.replace("<object_class>", names[record.label]) for record in padded]
    encoded: list[bytes] = []

    def occluded(record: Record) -> NDArray[np.uint8]:
        mask = parts.mask(record.key)
        square = resize(black_out(index.load(record), mask), side, side)
        hidden = resize(mask, side, side)
        return np.concatenate([black_out(square, hidden), (hidden * np.uint8(255))[..., None]], axis=-1)

    rows = batches(map(occluded, records), size, progress(len(records), "inpaint"))
    for number, batch in enumerate(rows):
        here = slice(number * size, (number + 1) * size)
        keys = [record.key for record in padded[here]]
        filled = inpainter(batch[..., :3], batch[..., 3] > 0, prompts[here], seeds[here], keys)
        for record, square in zip(records[here], filled, strict=False):
            image = paste_known(square, index.load(record), parts.mask(record.key))
            encoded.append(_encoded(image, settings.inpaint.encoding))
    extras = {"seed": np.array(seeds[: len(records)], np.int64)}
    model, keys = inpainter.model, [record.key for record in records]
    write_shard(out, Shard("inpaint", RECIPE, settings, model.digest, keys, encoded, extras, model.digests, digest))
    return len(records)


def _class_names(classes: Sequence[ClassInfo], which: str) -> list[str]:
    """What stands for <object_class> in the prompt: "one" name of each class, or "all" that ImageNet has of it."""
    if which == "one":
        return [info.name for info in classes]
    return [", ".join(lemmas(info.wnid)) for info in classes]


def _encoded(image: NDArray[np.uint8], encoding: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, encoding.upper(), **({"lossless": True} if encoding == "webp" else {}))
    return buffer.getvalue()

"""Train the built-in latent diffusion model on the drawn training images alone.

What enters: images (n, 64, 64, 3) uint8 and the class name of each. What leaves: a folder in the diffusers layout (VAE,
U-Net, CLIP text encoder, tokenizer, scheduler), fp16 safetensors. `StableDiffusionInpaintPipeline.from_pretrained`
loads it like Stable Diffusion 2.1: four latent channels, cross-attention on the prompt, v-prediction, and a null prompt
learned by prompt dropout.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dfeat.storage.atomic import write_files, write_text
from tools.demo_models.networks import (
    SCHEDULE,
    TOKENS,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    save,
    save_pipeline,
)

PROMPT_DROPOUT = 0.12
EMA_DECAY = 0.999
DECODER_RATE = 1e-3

Log = Callable[[dict[str, float | int | str]], None]


def train(
    images: NDArray[np.uint8],
    class_names: list[str],
    out: Path,
    *,
    vae_seconds: float,
    unet_seconds: float,
    seed: int,
    prompt: str,
    vae_from: Path | None = None,
) -> None:
    """Train the VAE, then the U-Net with the text encoder, each for the given time, and save the pipeline to `out`.

    The budget is time rather than steps, so the weights depend on the machine; all randomness depends on `seed` alone.

    Writes a line to `training.jsonl` beside the model every hundred steps. With `vae_from` the VAE starts from that of
    the model in that folder.
    """
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    log = _log_to(out)
    pixels = _to_pixels(images)
    vae = train_vae(pixels, vae_seconds, seed, log, vae_from)
    save(vae.half(), out / "vae")
    vae.float()
    latents = _latent_variants(vae, pixels)
    scale = 1 / float(latents.std())  # the U-Net is trained on latents of unit variance
    vae.register_to_config(scaling_factor=scale)
    save(vae.half(), out / "vae")
    tokenizer = build_tokenizer(sorted({word for name in class_names for word in name.split()} | set(prompt.split())))
    token_ids = tokenizer(
        [prompt.replace("<object_class>", name) for name in class_names] + [""],
        padding="max_length",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    unet, text_encoder = train_unet(latents * scale, token_ids, len(tokenizer), unet_seconds, seed, log)
    save_pipeline(vae, unet, text_encoder, tokenizer, out)


def _log_to(out: Path, earlier: str = "") -> Log:
    """A function that appends a row to `out`/training.jsonl, which starts with the lines of `earlier`."""
    lines = [earlier]

    def log(row: dict[str, float | int | str]) -> None:
        lines.append(json.dumps(row) + "\n")
        write_text(out / "training.jsonl", "".join(lines))

    return log


def train_vae(pixels: Tensor, seconds: float, seed: int, log: Log, start: Path | None = None) -> Any:
    """Fit the autoencoder to pixels (n, 3, 64, 64) in [-1, 1] by squared error with a weak KL term.

    Returns the moving average of its weights, frozen.
    """
    torch.manual_seed(seed)
    vae = build_vae()
    if start is not None:
        vae = type(vae).from_pretrained(start / "vae").float()
    vae.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    for step, fraction in _for_seconds(seconds):
        _set_rate(optimizer, 1.0e-3, fraction, step)
        x = _augmented(pixels, 16, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            z = posterior.sample(generator)
            recon = vae.decode(z).sample
        mse = F.mse_loss(recon.float(), x)
        # KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2 per dimension
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        _step(vae, average, optimizer, mse + 2e-5 * kl, step)
        if step % 100 == 0:
            log(
                {
                    "part": "vae",
                    "step": step,
                    "mse": float(mse.detach()),
                    "kl": float(kl.detach()),
                    "fraction": fraction,
                }
            )
    average.eval().requires_grad_(False)
    log({"part": "vae", "step": step, "final_mse": reconstruction_error(average, pixels[:256])})
    return average


def refine_decoder(images: NDArray[np.uint8], start: Path, out: Path, *, steps: int, seed: int) -> None:
    """Train only the decoder of the model in `start` for `steps` batches of 16, and save the whole model to `out`.

    Encoder, latents and U-Net stay bit-identical, while decoded latents come closer to the encoded pictures. Continues
    the training.jsonl of `start`.
    """
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    pixels = _to_pixels(images)
    vae = AutoencoderKL.from_pretrained(start / "vae").float().requires_grad_(False)
    vae.to(memory_format=torch.channels_last)
    learning = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)
    average = copy.deepcopy(learning)
    optimizer = torch.optim.AdamW(learning.parameters(), lr=DECODER_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    log = _log_to(out, (start / "training.jsonl").read_text())
    log({"part": "decoder", "note": "the decoder alone", "steps": steps, "seed": seed})
    for step in range(steps):
        _set_rate(optimizer, DECODER_RATE, step / steps, step)
        x = _augmented(pixels, 16, generator)
        z = vae.encode(x).latent_dist.mode()
        mse = F.mse_loss(vae.decode(z).sample, x)
        _step(learning, average, optimizer, mse, step)
        if step % 100 == 0:
            log({"part": "decoder", "step": step, "mse": float(mse.detach())})
    learning.load_state_dict(average.state_dict())
    vae.eval().requires_grad_(False)
    log({"part": "decoder", "step": steps, "final_mse": reconstruction_error(vae, pixels[:256])})
    others = [path for path in start.rglob("*") if path.is_file() and "vae" not in path.relative_to(start).parts]
    copied = {out / path.relative_to(start): path.read_bytes() for path in others if path.name != "training.jsonl"}
    write_files(copied)
    save(vae.half(), out / "vae")


@torch.no_grad()
def reconstruction_error(vae: Any, pixels: Tensor) -> float:
    """Mean squared error between pixels (n, 3, 64, 64) in [-1, 1] and their reconstruction from latents."""
    return float(F.mse_loss(vae.decode(vae.encode(pixels).latent_dist.mode()).sample, pixels))


def train_unet(
    latents: Tensor, token_ids: Tensor, vocabulary: int, seconds: float, seed: int, log: Log
) -> tuple[Any, Any]:
    """Fit U-Net and text encoder to scaled latents (variants, n, 4, 8, 8).

    `token_ids` (n + 1, tokens) has each image's prompt, and the null prompt last. Returns the moving averages of both
    models, frozen.
    """
    from diffusers import DDPMScheduler

    torch.manual_seed(seed + 1)
    model = nn.ModuleDict({"unet": build_unet(), "text": build_text_encoder(vocabulary)})
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    scheduler = DDPMScheduler(**SCHEDULE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed + 1)
    variants, count = latents.shape[:2]
    for step, fraction in _for_seconds(seconds):
        _set_rate(optimizer, 1.2e-3, fraction, step)
        rows = torch.randint(count, (64,), generator=generator)
        z = latents[torch.randint(variants, (64,), generator=generator), rows]
        # Prompt dropout (Ho and Salimans, 2022, Alg. 1) trains the unconditional prediction: row `count` is the null prompt.
        prompts = torch.where(torch.rand(64, generator=generator) < PROMPT_DROPOUT, count, rows)
        noise = torch.randn(z.shape, generator=generator)
        timesteps = torch.randint(1000, (64,), generator=generator)
        noisy = scheduler.add_noise(z, noise, timesteps)
        text = model["text"](token_ids[prompts]).last_hidden_state
        predicted = model["unet"](noisy.contiguous(memory_format=torch.channels_last), timesteps, text).sample
        # v-prediction (Salimans and Ho, 2022): v = sqrt(alphabar_t) noise - sqrt(1 - alphabar_t) z
        loss = F.mse_loss(predicted, scheduler.get_velocity(z, noise, timesteps))
        _step(model, average, optimizer, loss, step)
        if step % 100 == 0:
            log({"part": "unet", "step": step, "loss": float(loss.detach()), "fraction": fraction})
    average.eval().requires_grad_(False)
    return average["unet"], average["text"]


def _for_seconds(seconds: float) -> Iterator[tuple[int, float]]:
    """Yield step numbers, each with the fraction of `seconds` that has passed, until it reaches 1."""
    start, step = time.monotonic(), 0
    while (fraction := (time.monotonic() - start) / seconds) < 1:
        yield step, fraction
        step += 1


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, fraction: float, step: int) -> None:
    # Linear warm-up over 200 steps times a half cosine over the time, which ends at 2 % of the peak.
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction)))


def _step(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, step: int) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    # average <- decay * average + (1 - decay) * weights, with less weight on the past in the first steps
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _augmented(pixels: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """A random batch (batch, 3, 64, 64) of pixels (n, 3, 64, 64), flipped at random and shifted by up to 4 pixels."""
    x = pixels[torch.randint(len(pixels), (batch,), generator=generator)]
    if torch.rand((), generator=generator) < 0.5:
        x = x.flip(3)
    top, left = torch.randint(9, (2,), generator=generator).tolist()
    return F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, top : top + 64, left : left + 64].contiguous(
        memory_format=torch.channels_last
    )


def _to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """Images (n, 64, 64, 3) uint8 as (n, 3, 64, 64) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _latent_variants(vae: Any, pixels: Tensor) -> Tensor:
    """Unscaled latents of the images and of their flips, each at five shifts: (10, n, 4, 8, 8)."""
    variants = []
    padded = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    for top, left in ((4, 4), (1, 3), (3, 7), (6, 1), (7, 6)):
        shifted = padded[:, :, top : top + 64, left : left + 64]
        for x in (shifted, shifted.flip(3)):
            variants.append(torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in x.split(64)]))
    return torch.stack(variants)

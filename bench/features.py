"""Diffusion features on the true Stable Diffusion 2.1 architecture, timed side by side with their peers.

What enters: nothing; the weights are random. What leaves: three comparisons at 256 px (latents 32 x 32) in float32,
with a port of DIFT's procedure (Tang et al., 2023) on one image, and on a batch of images with the whole forward pass
and a hook, and with features from pixels. The features of the first two must equal ours within 1e-4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.architectures import fill, stable_diffusion_21
from bench.flops import ENSEMBLE
from bench.table import Result, side_by_side
from dfeat.diffusion.features import FeatureExtractor, draw_noise
from dfeat.diffusion.forward import NoiseSchedule, forward_process
from dfeat.diffusion.latents import encode, to_model_range
from dfeat.diffusion.models import DiffusionModel
from dfeat.diffusion.settings import FeatureSettings
from dfeat.errors import UserError
from dfeat.randomness import seed_for

SIDE, TIMESTEP, TOLERANCE = 256, 261, 1e-4
"""Side in pixels; DIFT's timestep; largest relative difference of features that count as equal."""
KEYS = ["image", "second", "third", "fourth"]
"""Names of the images in a batch, which seed their noise; the comparison with DIFT uses the first alone."""


def run(rounds: int = 3, **_options: Any) -> Result:
    """Time all ways; takes 6 GB of memory and some minutes on two cores. Raises UserError if their features differ."""
    model = random_model()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(KEYS), SIDE // 8, SIDE // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    image = images[:1]
    up1 = extractor(model, ("up.1",), ENSEMBLE)
    single, mid = extractor(model, ("up.1",), 1), extractor(model, ("mid",), 1)
    latents = encode(model, images)
    ways = {
        "ours": lambda: up1(image, KEYS[:1]),
        "dift": lambda: dift(model, image),
        "early": lambda: single.from_latents(latents, KEYS),
        "hook": lambda: hooked(model, latents),
        "cached": lambda: mid.from_latents(latents, KEYS),
        "pixels": lambda: mid(images, KEYS),
    }
    apart = {
        "DIFT": difference(ways["ours"](), ways["dift"]()),
        "hook": difference(ways["early"](), ways["hook"]()),
    }
    if max(apart.values()) > TOLERANCE:
        raise UserError(
            f"the ways give different features (relative differences {apart}, at most {TOLERANCE} is allowed), so their "
            "times cannot be compared; the extraction or its peer is at fault"
        )
    timed = side_by_side(ways, rounds, warm_up=0)
    rows = [
        timed.row(f"features up.1, {ENSEMBLE} noises", "ours", "dift", 2.3, "DIFT: encodes for each noise"),
        timed.row("features up.1, cached latents", "early", "hook", 1.4, "full forward with a hook"),
        # Three fifths of the operations' ratio, 5.7 at 256 px: small maps run at two thirds of the rate of the VAE's large ones.
        timed.row("features mid, cached latents", "cached", "pixels", 3.4, "from pixels"),
    ]
    notes = {
        "relative difference": {name: f"{value:.1e}" for name, value in apart.items()},
        "images": f"{SIDE} px, one beside DIFT, {len(KEYS)} at once in the other rows; {torch.get_num_threads()} threads",
    }
    return Result(rows, notes)


def random_model() -> DiffusionModel:
    """Stable Diffusion 2.1 with random weights and no text encoder; `extractor` gives it a random null prompt."""
    unet, vae, _text = stable_diffusion_21(torch.device("meta"))
    for part in (unet, vae):
        fill(part, torch.float32).to(memory_format=torch.channels_last)
    forward = forward_process(NoiseSchedule(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
    return DiffusionModel(vae, unet, None, None, forward, "random", torch.device("cpu"), torch.float32)


def extractor(model: DiffusionModel, blocks: tuple[str, ...], ensemble: int) -> FeatureExtractor:
    """Our extractor of whole maps at DIFT's timestep."""
    settings = FeatureSettings(timestep=TIMESTEP, blocks=blocks, pool=0, ensemble=ensemble)
    prompt = torch.randn(1, 77, 1024, generator=torch.Generator().manual_seed(1))
    return FeatureExtractor(model, settings, model.scaling_factor, prompt)


@torch.no_grad()
def dift(model: DiffusionModel, image: np.ndarray[Any, Any]) -> torch.Tensor:
    """DIFT's featurizer: encode the image once per noise draw, run the U-Net up to up.1, average.

    It uses our noise (per member, by seed) and the posterior's mean, so that the features can be compared, and stops
    after the block, as its patched U-Net does.
    """
    ours = extractor(model, ("up.1",), 1)
    repeated = to_model_range(image.repeat(ENSEMBLE, axis=0), model)
    latents = model.vae.encode(repeated).latent_dist.mode() * model.scaling_factor
    seeds = [seed_for(0, KEYS[0], f"features {member}") for member in range(ENSEMBLE)]
    noise = draw_noise(latents.shape[1:], [torch.Generator().manual_seed(seed) for seed in seeds])
    return ours.maps(latents, noise, torch.full((ENSEMBLE,), TIMESTEP))[0].mean(0, keepdim=True)


@torch.no_grad()
def hooked(model: DiffusionModel, latents: torch.Tensor) -> torch.Tensor:
    """The output (B, C, h', w') of up.1 for latents (B, 4, h, w), by a hook on the whole forward pass."""
    ours = extractor(model, ("up.1",), 1)
    kept: list[torch.Tensor] = []
    handle = model.unet.up_blocks[1].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    timesteps = torch.full((len(latents),), TIMESTEP)
    generators = [torch.Generator().manual_seed(seed_for(0, key, "features 0")) for key in KEYS]
    noise = draw_noise(latents.shape[1:], generators)
    noisy = model.scheduler.add_noise(latents * model.scaling_factor, noise, timesteps)
    try:
        model.unet(noisy, timesteps, encoder_hidden_states=ours.null_prompt.expand(len(latents), -1, -1))
    finally:
        handle.remove()
    return kept[0]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The relative difference |ours - theirs| / |theirs|."""
    return float((ours - theirs).norm() / theirs.norm())

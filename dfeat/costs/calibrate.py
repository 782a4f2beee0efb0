"""Measure this machine's card on small pieces of each step of the configured run (`dfeat plan --calibrate`).

What enters: the settings and a device. What leaves: `Measured`, FLOP/s of each step in its precision, at its batch size,
compiled or not. The networks are the true architectures with random weights, computed by the code of the run: VAE
encodings, U-Net passes up to the features' block, passes of sampling with guidance, steps of training, and evaluations.
Images are random and on the device or in memory, so nothing waits for them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.config import Settings
from dfeat.config.shards import stated_images
from dfeat.costs.architectures import fill, stable_diffusion_21
from dfeat.costs.counts import BACKWARD, Counts, stated
from dfeat.costs.efficiency import Step, Work
from dfeat.costs.estimate import estimate
from dfeat.costs.measured import Measured, MeasuredStep
from dfeat.costs.operations import feature_flops
from dfeat.costs.plan import check_planned
from dfeat.devices import arithmetic
from dfeat.diffusion.denoise import Denoiser
from dfeat.diffusion.features import FeatureExtractor, draw_noise
from dfeat.diffusion.fitting import Fitting
from dfeat.diffusion.forward import NoiseSchedule, forward_process
from dfeat.diffusion.latents import encode
from dfeat.diffusion.models import DTYPES, DiffusionModel, compile_model
from dfeat.diffusion.schedule import Pass, passes
from dfeat.diffusion.settings import ModelSource
from dfeat.diffusion.stream import to_device
from dfeat.errors import UserError
from dfeat.evaluation.pretrained import five_best
from dfeat.progress import say
from dfeat.section import parse
from dfeat.shortage import pass_on
from dfeat.training.dataset import Batch
from dfeat.training.loop import _step, build_optimizer, less_memory
from dfeat.training.network import FusionNetwork, normalised, untrained_backbone
from dfeat.training.settings import Backbone

SECONDS: Final = 8.0
"""Seconds that a piece is repeated for, warmed up: seven pieces of the paper's run in two minutes."""
_BLOCK: Final = 0.5
"""Seconds, or a call where one takes longer, between two waits for the device."""
_CLASSES: Final = 158
_TOKENS: Final = 77
"""Of Stable Diffusion's prompts."""

Piece = tuple[Callable[[], object], float]
"""A call that queues work on the device, and its FLOPs."""


def calibrate(settings: Settings, device: torch.device) -> Measured:
    """Measure `device` on the steps of the configured run.

    Takes two minutes, and where a step is compiled, the time of that. Raises UserError without a GPU, for a run of small
    models, and where a batch does not fit the device.
    """
    check_planned(settings)
    if device.type != "cuda":
        raise UserError(
            "--calibrate measures a GPU, and this machine has none that torch can use; run it on a machine of those that "
            "compute the run, or leave it out: the plan then takes public figures"
        )

    def build(source: ModelSource) -> DiffusionModel:
        return random_model(source.precision, device)

    steps = measure(settings, build, stated(settings), device, SECONDS)
    name, today = torch.cuda.get_device_name(device), date.today().isoformat()
    return Measured(card=name, torch=str(torch.__version__), date=today, steps=steps)


def random_model(precision: str, device: torch.device) -> DiffusionModel:
    """Stable Diffusion 2.1 without its text encoder, with random weights on `device`."""
    unet, vae, _ = stable_diffusion_21(torch.device("meta"))
    for network in (unet, vae):
        fill(network, DTYPES[precision], device).to(memory_format=torch.channels_last)
    schedule = NoiseSchedule(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    process = forward_process(schedule, device)
    return DiffusionModel(vae, unet, None, None, process, "", device, DTYPES[precision], precision=precision)


def measure(
    settings: Settings,
    build: Callable[[ModelSource], DiffusionModel],
    counts: Counts,
    device: torch.device,
    seconds: float,
) -> dict[Step, MeasuredStep]:
    """Measure each step of the run, each of its pieces for `seconds`.

    `build` makes a diffusion model in the precision of a source; `counts` are the FLOPs of its networks and of the
    backbones.
    """
    found: dict[Step, MeasuredStep] = {}
    for cost in estimate(settings, stated_images(settings)):
        if not cost.flops:
            continue
        work = cost.work
        flops, spent, times = 0.0, 0.0, 0
        for call, of_call in _pieces(work, settings, build, counts, device):
            middle, count = timed(call, device, seconds)
            flops, spent, times = flops + of_call, spent + middle, times + count
            del call  # and with it the network, before the next is built
        say(
            f"{work.step}: {flops / spent / 1e12:.3g} TFLOP/s in {work.precision}{', compiled' if work.compiled else ''}"
        )
        plain = {"precision": work.precision, "compiled": work.compiled, "flops": flops / spent, "passes": times}
        found[work.step] = parse(MeasuredStep, plain)
    return found


def _pieces(
    work: Work, settings: Settings, build: Callable[[ModelSource], DiffusionModel], counts: Counts, device: torch.device
) -> Iterator[Piece]:
    """The pieces of a step, one after another, so that one network is on the device at a time."""
    if work.step == "training":
        yield from _trainings(settings, counts, device)
    elif work.step == "evaluation":
        yield from _evaluations(settings, counts, device, work.precision)
    else:
        diffusion = settings.diffusion
        model = build(diffusion.inpainting_model if work.step == "inpaint" else diffusion.model)
        compile_model(model, work.compiled)
        piece = {"inpaint": _inpainting, "latents": _encoding, "features": _extraction}[work.step]
        yield piece(settings, model, counts)


def timed(call: Callable[[], object], device: torch.device, seconds: float) -> tuple[float, int]:
    """The median of seconds a call takes, warmed up, and how many calls were timed."""

    def run(calls: int) -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    run(1)  # kernels are chosen, graphs compiled
    calls = max(1, math.ceil(_BLOCK / max(run(1), 1e-6))) if seconds > _BLOCK else 1
    blocks, until = [run(calls)], time.perf_counter() + seconds
    while time.perf_counter() < until:
        blocks.append(run(calls))
    return statistics.median(blocks) / calls, calls * len(blocks)


def _encoding(settings: Settings, model: DiffusionModel, counts: Counts) -> Piece:
    size, side = settings.diffusion.batch_size, settings.diffusion.resolution
    images = list(_images(size, side))
    fitting: Fitting[NDArray[np.uint8]] = Fitting(
        lambda rows: (encode(model, np.stack(rows)),), size, "plan --calibrate"
    )
    return lambda: fitting(images), size * counts.encode


def _extraction(settings: Settings, model: DiffusionModel, counts: Counts) -> Piece:
    chosen, size = settings.diffusion.features, settings.diffusion.batch_size
    prompt = _prompts(model, 1)
    extract = FeatureExtractor(model, chosen, model.scaling_factor, prompt, size, "plan --calibrate")
    latents, keys = _latents(settings, model), [str(row) for row in range(size)]
    return lambda: extract.from_latents(latents, keys), size * feature_flops(chosen, counts.features)


def _inpainting(settings: Settings, model: DiffusionModel, counts: Counts) -> Piece:
    """A whole pass of sampling and those that reuse its deep features, without what is done once an image."""
    chosen, size = settings.diffusion.inpaint, settings.diffusion.batch_size
    whole = passes(chosen)
    first = next((number for number, step in enumerate(whole) if step.whole and step.guided), 0)
    steps = whole[first : first + chosen.cache_interval]
    latents, timestep = list(_latents(settings, model)), to_device(np.array(500), model.device)

    @torch.no_grad()
    def sample(rows: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        guided = 2 if chosen.guidance_scale > 1 else 1
        denoise, now = Denoiser(model, chosen, _prompts(model, guided * len(rows)), []), torch.stack(rows)
        with model.arithmetic():
            for step in steps:
                now = denoise(now, timestep, step)
        return (now,)

    fitting: Fitting[torch.Tensor] = Fitting(sample, size, "plan --calibrate")
    return lambda: fitting(latents), size * sum(_pass_flops(step, counts) for step in steps)


def _pass_flops(step: Pass, counts: Counts) -> float:
    return (2 if step.guided else 1) * (counts.unet if step.whole else counts.shallow)


def _trainings(settings: Settings, counts: Counts, device: torch.device) -> Iterator[Piece]:
    """A step of training of each backbone, without diffusion features."""
    training = settings.training
    rows = math.ceil(training.batch_size / training.gpus)
    images = torch.from_numpy(_images(rows, training.image_size))
    for name, backbone in training.backbones.items():
        model = _classifier(backbone, device, training.drop_path).train()
        if training.compile:
            model.backbone.compile(dynamic=False)
        optimizer = build_optimizer(model, training)
        batch = Batch(images, torch.eye(_CLASSES)[torch.arange(rows) % _CLASSES])
        batch.kept = model.draw_kept(0, 0, rows)
        batch = batch.to(device)

        def step(
            model: FusionNetwork = model, optimizer: torch.optim.Optimizer = optimizer, batch: Batch = batch
        ) -> None:
            try:
                _step(model, optimizer, batch, training)
            except RuntimeError as error:
                pass_on(error, "plan --calibrate", less_memory(training))
                raise

        yield step, rows * BACKWARD * counts.forward[name]


def _evaluations(settings: Settings, counts: Counts, device: torch.device, precision: str) -> Iterator[Piece]:
    """A batch of evaluation of each backbone."""
    rows = settings.evaluation.batch_size
    images = _images(rows, settings.training.image_size)
    for name, backbone in settings.training.backbones.items():
        model = _classifier(backbone, device).eval()

        @torch.no_grad()
        def predict(model: FusionNetwork = model) -> None:
            with arithmetic(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                five_best(model(normalised(images, device, model.statistics)))

        yield predict, rows * counts.forward[name]


def _classifier(backbone: Backbone, device: torch.device, drop_path: float = 0.0) -> FusionNetwork:
    model = FusionNetwork(untrained_backbone(backbone, drop_path), _CLASSES)
    return model.to(device, memory_format=torch.channels_last)


def _prompts(model: DiffusionModel, rows: int) -> torch.Tensor:
    """Text embeddings (rows, tokens, width) of no text."""
    tokens = _TOKENS if model.tokenizer is None else int(model.tokenizer.model_max_length)
    shape = rows, tokens, int(model.unet.config.cross_attention_dim)
    return torch.zeros(shape, dtype=model.dtype, device=model.device)


def _latents(settings: Settings, model: DiffusionModel) -> torch.Tensor:
    """Random latents (B, 4, h, w) float32."""
    cells = settings.diffusion.resolution // model.latent_factor
    return to_device(_noise(settings.diffusion.batch_size, 4, cells, cells).numpy(), model.device)


def _images(rows: int, side: int) -> NDArray[np.uint8]:
    """Random images (rows, side, side, 3)."""
    return (_noise(rows, side, side, 3) * 60 + 128).clamp(0, 255).to(torch.uint8).numpy()


def _noise(rows: int, *shape: int) -> torch.Tensor:
    return draw_noise(shape, [torch.Generator().manual_seed(row) for row in range(rows)])

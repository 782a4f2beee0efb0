"""The training loop (Sec. 4.2): SGD and cross-entropy over a fixed number of steps, resumable bit for bit.

What enters: the artifacts of the earlier steps. What leaves, in the run's folder: `model.safetensors`,
`metrics.jsonl` (one line per epoch) and `run.json` (all that is needed to rebuild and to cite the model).
A checkpoint is written every few minutes and on SIGTERM, and removed once the model is written.
"""

from __future__ import annotations

import copy
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfeat.devices import arithmetic
from dfeat.devices.attempts import record
from dfeat.devices.compiler import prepare_to_compile
from dfeat.devices.determinism import strictly
from dfeat.diffusion.stream import Done, Waiting
from dfeat.errors import UserError
from dfeat.progress import progress, say
from dfeat.randomness import seed_for
from dfeat.shortage import pass_on, shortage
from dfeat.storage.atomic import json_bytes, remove, write_files
from dfeat.storage.provenance import bytes_digest, file_digest, settings_text, versions
from dfeat.training.checkpoint import TERMINATED, Checkpoints, State, deferred_sigterm, resume
from dfeat.training.dataset import Batch, TrainingBatches
from dfeat.training.losses import eq1
from dfeat.training.metrics import EpochMetrics
from dfeat.training.network import FusionNetwork, build_backbone, mixed, normalised, start_from_pretrained_head
from dfeat.training.pace import Pace
from dfeat.training.settings import TrainingSettings, TrainStage
from dfeat.training.sources import Inputs, Sources, features_identity, read_sources
from dfeat.training.team import Team
from dfeat.training.weights import weights_file
from dfeat.training.workers import prepared_batches

RECIPE: Final = 5
CHECKPOINT_MINUTES: Final = 10


def train(
    method: str, inputs: Inputs, stage: TrainStage, seed: int, out: Path, device: torch.device, workers: int = 0,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> Done:  # fmt: skip
    """Train one model and write its folder, resuming from its checkpoint if there is one.

    In a process that `team.launch` started it computes that process's part of each batch; only the first one writes.
    Raises UserError for inputs that do not belong together or a loss that is not finite, and SystemExit with status
    TERMINATED after SIGTERM and saving a checkpoint.
    """
    started = time.monotonic()
    settings, team = stage.training, Team.join(device)
    sources = read_sources(method, inputs, settings)
    part = team.part_of(settings.batch_size)
    batches = TrainingBatches(method, sources, settings, seed, stage.partner_seed, part=part)
    torch.manual_seed(seed_for(seed, method, "initial weights"))
    backbone = build_backbone(stage.backbone, settings.drop_path)
    model = FusionNetwork(backbone, sources.classes, sources.feature_width, settings.fusion, settings.feature_norm)
    if model.fusion is not None and settings.feature_norm == "channels":
        model.fusion.norm_d.set_moments(batches.feature_moments())
    if settings.head == "pretrained":
        start_from_pretrained_head(model, stage.backbone, sources.wnids)
    check_halves(model, stage)
    model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, settings)
    described = {"stage": stage.model_dump(mode="json"), "method": method, "seed": seed, "recipe": RECIPE}
    described |= {**_made_from(sources, stage), "rejected": bytes_digest("\n".join(sorted(sources.rejected)).encode())}
    identity = settings_text(described)
    state = resume(out, identity, model, optimizer)
    checkpoints = Checkpoints(out, identity, model, optimizer, checkpoint_minutes, team.leads)
    waiting, begun = Waiting(), state.step
    with deferred_sigterm() as stop:
        try:
            with checkpoints, deterministic(model, batches, device):
                whole = _fit(model, optimizer, batches, state, device, workers, checkpoints, stop, team, waiting)
        except RuntimeError as error:
            pass_on(error, "train", less_memory(settings, state))
            raise
    done = Done.after((state.step - begun) * (part.stop - part.start), waiting)
    if whole and team.leads:
        _write_run(out, stage, batches, model, state, time.monotonic() - started)
    team.leave()
    if not whole:
        say(f"train {out} was stopped: saved after step {state.step}; run the same command again to continue")
        raise SystemExit(TERMINATED)
    return done


def _fit(
    model: FusionNetwork, optimizer: torch.optim.Optimizer, batches: TrainingBatches, state: State, device: torch.device,
    workers: int, checkpoints: Checkpoints, stop: Callable[[], bool], team: Team, waiting: Waiting,
) -> bool:  # fmt: skip
    """Take the remaining steps; returns False if `stop` became True before the last of them, and a checkpoint is written."""
    settings = batches.settings
    model.train()
    if settings.compile:
        prepare_to_compile("training.compile", device.type)
        model.backbone.compile(dynamic=False)
    network = team.wrapped(model)
    bar = progress(len(batches), batches.method.name)
    metrics, pace = EpochMetrics(batches, state), Pace(batches, waiting, state.step)
    with closing(prepared_batches(batches, state.step, workers, device.type == "cuda")) as coming:
        for batch in waiting.of(coming):
            kept = model.draw_kept(batches.seed, state.step, settings.batch_size)
            batch.kept = None if kept is None else kept[:, batches.part]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, state.step, len(batches))
            moved = batch.to(device)
            loss, logits = _step_in_memory(network, optimizer, moved, settings, state, team)
            metrics.add(state.step, loss, team.summed((logits.argmax(1) == moved.targets.argmax(1)).sum()))
            state.step += 1
            bar.update(1)
            if state.step % batches.steps_per_epoch == 0:
                state.metrics.append({"epoch": state.step // batches.steps_per_epoch} | metrics.end_epoch())
                pace.tell(state.step, optimizer.param_groups[0]["lr"])
            stopped = state.step < len(batches) and team.any_of(stop())
            if stopped or checkpoints.due():
                metrics.fetch()
                checkpoints.begin(state)
            if stopped:
                break
    checkpoints.finish()
    bar.close()
    return state.step == len(batches)


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD (Sec. 4.2): fused, so that one kernel updates all parameters."""
    # v <- momentum * v + (grad + weight_decay * theta); theta <- theta - learning_rate * v
    options = {"momentum": settings.momentum, "weight_decay": settings.weight_decay, "fused": True}
    return torch.optim.SGD(model.parameters(), settings.learning_rate, **options)


@contextmanager
def deterministic(model: FusionNetwork, batches: TrainingBatches, device: torch.device) -> Iterator[None]:
    """Inside, a step computed twice on the same GPU has the same bits, where the network has kernels for that."""
    without = "" if device.type == "cpu" else without_deterministic_kernel(model, batches, device)
    if without:
        say(f"training again may give other last digits: torch has no deterministic kernel here for {without}")
    with nullcontext() if without or device.type == "cpu" else strictly():
        yield


def without_deterministic_kernel(model: FusionNetwork, batches: TrainingBatches, device: torch.device) -> str:
    """What of a step has no deterministic kernel on the device, in torch's words; an empty string if all of it has one.

    It is tried on a copy of the model, with two rows.
    """
    tried, settings, sources = copy.deepcopy(model).train(), batches.settings, batches.sources
    side, rows = settings.image_size, 2
    images, targets = torch.zeros(rows, side, side, 3, dtype=torch.uint8), torch.zeros(rows, sources.classes)
    features = torch.zeros(rows, sources.feature_width) if sources.feature_width else None
    batch = Batch(images, targets, None, features, tried.draw_kept(batches.seed, 0, rows)).to(device)
    try:
        with strictly(), arithmetic(settings.precision):
            _loss(tried, batch, slice(rows), settings)[0].backward()
    except RuntimeError as error:
        found = re.search(
            r"(\S+) does not have a deterministic implementation|not deterministic because it uses (\w+)", str(error)
        )
        if found is None:
            raise
        return found[1] or found[2]
    return ""


def check_halves(model: nn.Module, stage: TrainStage) -> None:
    """Raise UserError where `training.halve` would change what the network computes, by more than rounding."""
    if stage.training.halve and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(
            f"training.halve is true, but {stage.backbone.name} has BatchNorm, whose statistics are of the rows computed at "
            "once: the model would depend on the device's memory. Set training.accumulate to a number instead"
        )


def _step_in_memory(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainingSettings,
    state: State,
    team: Team,
) -> tuple[Tensor, Tensor]:
    """`_step`; with `settings.halve`, where the device's memory runs out, in parts of half the rows from here on."""
    while True:
        parts = state.accumulate or settings.accumulate
        try:
            return _step(model, optimizer, batch, settings.model_copy(update={"accumulate": parts}), team)
        except RuntimeError as error:
            short = shortage(error)
            if not settings.halve or short is None or not short.of_device or parts >= len(batch.targets):
                raise
        # Outside the except block, whose traceback would keep the tensors alive.
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        state.accumulate = min(2 * parts, len(batch.targets))
        record("halved", batch=-(-len(batch.targets) // state.accumulate))
        say(f"a batch does not fit the device's memory; from step {state.step} on in {state.accumulate} parts")


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, settings: TrainingSettings, team: Team = Team()
) -> tuple[Tensor, Tensor]:
    """Take one optimiser step; returns the loss () and the logits (B, C) of these rows, both still on the device.

    The batch passes through the network in `accumulate` parts whose gradients sum to the batch's. The step is the same,
    in less memory, for networks without batch statistics. In a team `batch` is this process's part.
    """
    optimizer.zero_grad(set_to_none=True)
    count, losses, logits = len(batch.targets), [], []
    # With n_r of N rows here, DDP's average (1 / size) sum_r w_r grad_r is the mean over all N rows for w_r = n_r size / N.
    weight = 1.0 if team.size == 1 else count * team.size / settings.batch_size
    size = -(-count // settings.accumulate)
    with arithmetic(settings.precision):
        for start in range(0, count, size):
            # Gradients are exchanged once per step, in the backward pass of the last part.
            with nullcontext() if start + size >= count or team.size == 1 else model.no_sync():
                loss, part = _loss(model, batch, slice(start, start + size), settings)
                # Eq. 1 is a mean over the rows of a part: weighted by the part's share, the parts' losses sum to the batch's.
                share = weight * len(part) / count
                (loss * share).backward()
            losses.append(loss.detach() * share / team.size)
            logits.append(part.detach())
        loss, answers = torch.stack(losses).sum(), torch.cat(logits)
        optimizer.step()  # last, so that a step that ran out of memory has changed nothing
    return team.summed(loss), answers


def _loss(model: nn.Module, batch: Batch, rows: slice, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """The loss (Eq. 1) of some rows of a batch, and their logits (rows, C)."""
    device, statistics = batch.images.device, getattr(model, "module", model).statistics
    features = None if batch.features is None else batch.features[rows].float()
    kept = None if batch.kept is None else batch.kept[:, rows]

    def classify(images: Tensor) -> Tensor:
        with mixed(settings.precision, device):
            return model(normalised(images[rows], device, statistics), features, kept).float()

    logits = classify(batch.images)
    masks = batch.mask_images()
    mask_logits = None if masks is None else classify(masks)
    return eq1(logits, batch.targets[rows], mask_logits, settings.alpha, settings.beta), logits


def less_memory(settings: TrainingSettings, state: State = State()) -> str:
    """What makes a training fit the memory of its device."""
    rows, parts = -(-settings.batch_size // settings.gpus), state.accumulate or settings.accumulate
    itself = " (training.halve does so by itself)" if settings.gpus == 1 else ""
    raised = (
        f"raise training.accumulate ({parts} now), which leaves the steps as they are{itself}, or "
        if parts < rows
        else ""
    )
    half = "" if settings.precision == "bfloat16" else "precision bfloat16 or "
    return f"{raised}use {half}a device with more memory"


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate of a step: constant, or a half cosine from the full rate to zero (Loshchilov and Hutter, 2017)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    # Eq. 5 with eta_min = 0: eta_t = eta_max (1 + cos(pi t / T)) / 2
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def _made_from(sources: Sources, stage: TrainStage) -> dict[str, Any]:
    """What run.json records of the features and of the other inputs, and a checkpoint is held to."""
    return {
        "features": features_identity(sources.features),
        "inputs": {
            "index": sources.parts.index,
            "parts": sources.parts.digest,
            "pixels": sources.pixels.digest,
            **({"inpainted": sources.inpainted.digest} if sources.inpainted else {}),
            "backbone": file_digest(weights_file(stage.backbone)),
        },
    }


def _write_run(
    out: Path, stage: TrainStage, batches: TrainingBatches, model: nn.Module, state: State, seconds: float
) -> None:
    from safetensors.torch import save

    sources, settings = batches.sources, batches.settings
    metrics = "".join(json.dumps(row) + "\n" for row in state.metrics).encode()
    tensors = save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})
    run = {
        "recipe": RECIPE,
        "method": batches.method.name,
        "seed": batches.seed,
        "classes": sources.classes,
        "feature_width": sources.feature_width,
        "images": len(sources.keys),
        "steps": state.step,
        **({"accumulate": state.accumulate or settings.accumulate} if settings.halve else {}),
        "seconds": round(seconds, 2),
        "settings": stage.model_dump(mode="json"),
        **_made_from(sources, stage),
        "model": bytes_digest(tensors),
        "metrics": bytes_digest(metrics),
        "versions": versions("torch", "timm", "numpy", "pillow"),
    }
    contents = {"model.safetensors": tensors, "metrics.jsonl": metrics, "run.json": json_bytes(run)}
    write_files({out / name: content for name, content in contents.items()})
    remove(out / "checkpoint.safetensors")

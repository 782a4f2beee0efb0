"""The training loop (Sec. 4.2): SGD and cross-entropy over a fixed number of steps, resumable bit for bit.

What enters: the artifacts of the earlier steps. What leaves, in the run's folder: `model.safetensors`,
`metrics.jsonl` (one line per epoch) and `run.json` (all that is needed to rebuild and to cite the model).
A checkpoint is written after every epoch and on SIGTERM, and removed once the model is written.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dfeat.devices import arithmetic
from dfeat.diffusion.stream import Done, Waiting
from dfeat.errors import UserError
from dfeat.progress import progress, say
from dfeat.randomness import seed_for
from dfeat.shortage import pass_on
from dfeat.storage.atomic import json_bytes, remove, write_files
from dfeat.storage.provenance import bytes_digest, file_digest, settings_text, versions
from dfeat.training.checkpoint import TERMINATED, State, deferred_sigterm, resume, save_checkpoint
from dfeat.training.dataset import Batch, TrainingBatches
from dfeat.training.losses import eq1
from dfeat.training.network import Classifier, build_backbone, mixed, normalised, start_from_pretrained_head
from dfeat.training.settings import TrainingSettings, TrainStage
from dfeat.training.sources import Inputs, features_identity, read_sources
from dfeat.training.team import Team
from dfeat.training.weights import weights_file
from dfeat.training.workers import prepared_batches

RECIPE: Final = 5
CHECKED_EVERY: Final = 20
"""Steps between two transfers of the losses from a GPU, each of which waits for the device."""


def train(
    method: str, inputs: Inputs, stage: TrainStage, seed: int, out: Path, device: torch.device, workers: int = 0
) -> Done:
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
    model = Classifier(backbone, sources.classes, sources.feature_width, settings.fusion, settings.feature_norm)
    if model.fusion is not None and settings.feature_norm == "channels":
        model.fusion.norm_d.set_moments(batches.feature_moments())
    if settings.head == "pretrained":
        start_from_pretrained_head(model, stage.backbone, sources.wnids)
    model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, settings)
    identity = settings_text({"stage": stage.model_dump(mode="json"), "method": method, "seed": seed, "recipe": RECIPE})
    state = resume(out, identity, model, optimizer)

    def checkpoint() -> None:
        if team.leads:
            save_checkpoint(out, identity, model, optimizer, state)

    waiting, begun = Waiting(), state.step
    with deferred_sigterm() as stop:
        try:
            whole = _fit(model, optimizer, batches, state, device, workers, checkpoint, stop, team, waiting)
        except RuntimeError as error:
            pass_on(error, "train", less_memory(settings))
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
    model: Classifier, optimizer: torch.optim.Optimizer, batches: TrainingBatches, state: State, device: torch.device,
    workers: int, checkpoint: Callable[[], None], stop: Callable[[], bool], team: Team, waiting: Waiting,
) -> bool:  # fmt: skip
    """Take the remaining steps; returns False if `stop` became True before the last of them."""
    settings = batches.settings
    model.train()
    if settings.compile:
        model.backbone.compile(dynamic=False)
    network = team.wrapped(model)
    bar = progress(len(batches), batches.method.name)
    metrics = _EpochMetrics(batches, state)
    with closing(prepared_batches(batches, state.step, workers, device.type == "cuda")) as coming:
        for batch in waiting.of(coming):
            kept = model.draw_kept(batches.seed, state.step, settings.batch_size)
            batch.kept = None if kept is None else kept[:, batches.part]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, state.step, len(batches))
            moved = batch.to(device)
            loss, logits = _step(network, optimizer, moved, settings, team)
            metrics.add(state.step, loss, team.summed((logits.argmax(1) == moved.targets.argmax(1)).sum()))
            state.step += 1
            bar.update(1)
            if state.step % batches.steps_per_epoch == 0:
                state.metrics.append({"epoch": state.step // batches.steps_per_epoch} | metrics.end_epoch())
                checkpoint()
            if state.step < len(batches) and team.any_of(stop()):
                metrics.fetch()
                checkpoint()
                break
    bar.close()
    return state.step == len(batches)


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD (Sec. 4.2): fused, so that one kernel updates all parameters."""
    # v <- momentum * v + (grad + weight_decay * theta); theta <- theta - learning_rate * v
    options = {"momentum": settings.momentum, "weight_decay": settings.weight_decay, "fused": True}
    return torch.optim.SGD(model.parameters(), settings.learning_rate, **options)


class _EpochMetrics:
    """Losses and correct answers of an epoch, kept on the device between fetches so that steps do not wait for it."""

    def __init__(self, batches: TrainingBatches, state: State) -> None:
        self.batches, self.state = batches, state
        self._new: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, correct: Tensor) -> None:
        """Add a step's loss () and number of correct answers (); fetch every CHECKED_EVERY steps, on a CPU at once."""
        self._new.append((step, loss, correct))
        self.state.images += self.batches.settings.batch_size
        if len(self._new) == CHECKED_EVERY or loss.device.type == "cpu":
            self.fetch()

    def end_epoch(self) -> dict[str, float]:
        """The mean loss and the share of correct answers since the last call; resets both."""
        self.fetch()
        state = self.state
        found = {"loss": round(float(np.mean(state.losses)), 6), "top1": round(state.correct / state.images, 6)}
        state.losses, state.correct, state.images = [], 0, 0
        return found

    def fetch(self) -> None:
        """Copy new values from the device to the state. Raises UserError, with the step's images, for a non-finite loss."""
        if not self._new:
            return
        steps, losses, correct = zip(*self._new, strict=True)
        fetched = torch.stack(losses).tolist()
        self._new = []
        for step, loss in zip(steps, fetched, strict=True):
            if not math.isfinite(loss):
                keys = self.batches.keys_of(step)
                raise UserError(
                    f"the loss of step {step} is not finite ({len(keys)} images: {', '.join(keys[:8])}"
                    f"{' ...' if len(keys) > 8 else ''}); nothing was written for this epoch. Lower "
                    "training.learning_rate or use precision float32"
                )
        self.state.losses += fetched
        self.state.correct += int(torch.stack(correct).sum())


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
        optimizer.step()
    return team.summed(torch.stack(losses).sum()), torch.cat(logits)


def _loss(model: nn.Module, batch: Batch, rows: slice, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """The loss (Eq. 1) of some rows of a batch, and their logits (rows, C)."""
    device, statistics = batch.images.device, getattr(model, "module", model).statistics
    features = None if batch.features is None else batch.features[rows].float()
    kept = None if batch.kept is None else batch.kept[:, rows]

    def classify(images: Tensor) -> Tensor:
        with mixed(settings.precision, device):
            return model(normalised(images[rows], device, statistics), features, kept).float()

    logits = classify(batch.images)
    mask_logits = None if batch.masks is None else classify(batch.masks)
    return eq1(logits, batch.targets[rows], mask_logits, settings.alpha, settings.beta), logits


def less_memory(settings: TrainingSettings) -> str:
    """What makes a training fit the memory of its device."""
    rows, parts = -(-settings.batch_size // settings.gpus), settings.accumulate
    raised = f"raise training.accumulate ({parts} now), which leaves the steps as they are, or " if parts < rows else ""
    half = "" if settings.precision == "bfloat16" else "precision bfloat16 or "
    return f"{raised}use {half}a device with more memory"


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The learning rate of a step: constant, or a half cosine from the full rate to zero (Loshchilov and Hutter, 2017)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    # Eq. 5 with eta_min = 0: eta_t = eta_max (1 + cos(pi t / T)) / 2
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def _write_run(
    out: Path, stage: TrainStage, batches: TrainingBatches, model: nn.Module, state: State, seconds: float
) -> None:
    from safetensors.torch import save

    sources = batches.sources
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
        "seconds": round(seconds, 2),
        "settings": stage.model_dump(mode="json"),
        "features": features_identity(sources.features),
        "inputs": {
            "index": sources.parts.index,
            "parts": sources.parts.digest,
            "pixels": sources.pixels.digest,
            **({"inpainted": sources.inpainted.digest} if sources.inpainted else {}),
            "backbone": file_digest(weights_file(stage.backbone)),
        },
        "model": bytes_digest(tensors),
        "metrics": bytes_digest(metrics),
        "versions": versions("torch", "timm", "numpy", "pillow"),
    }
    contents = {"model.safetensors": tensors, "metrics.jsonl": metrics, "run.json": json_bytes(run)}
    write_files({out / name: content for name, content in contents.items()})
    remove(out / "checkpoint.safetensors")

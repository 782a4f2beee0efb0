"""The training loop (Sec. 4.2): SGD and cross-entropy over a fixed number of steps, resumable to the bit.

What enters: the artifacts of the earlier steps. What leaves, in the run's folder: `model.safetensors`,
`metrics.jsonl` (one line an epoch) and `run.json` (all that is needed to rebuild and to cite the model).
A checkpoint is kept after every epoch, and where SIGTERM ends the training early, until the model is whole.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dfeat.diffusion.stream import Done, Waiting
from dfeat.errors import UserError
from dfeat.progress import progress, say
from dfeat.randomness import seed_for
from dfeat.storage.atomic import json_bytes, remove, write_files
from dfeat.storage.provenance import bytes_digest, file_digest, settings_text, versions
from dfeat.training.checkpoint import TERMINATED, State, ignore_stop, resume, save_checkpoint, told_to_stop
from dfeat.training.dataset import Batch, TrainingBatches
from dfeat.training.losses import eq1
from dfeat.training.network import Classifier, build_backbone, normalised, start_from_pretrained_head
from dfeat.training.settings import TrainingSettings, TrainStage
from dfeat.training.sources import Inputs, Sources, features_identity, read_sources
from dfeat.training.team import Team
from dfeat.training.weights import weights_file

RECIPE: Final = 3
CHECKED_EVERY: Final = 20
"""Steps between two looks at the losses: on a GPU each look waits for the device."""


def train(
    method: str, inputs: Inputs, stage: TrainStage, seed: int, out: Path, device: torch.device, workers: int = 0
) -> Done:
    """Train one model and write its folder. A training that was interrupted goes on from its checkpoint.

    Returns how many rows its steps took in this process, in which time, and how much of it they waited for.

    SIGTERM makes it save where it is and raise SystemExit(TERMINATED). In a process that `team.launch` started it
    computes its part of each batch, and the first process alone writes.
    """
    started = time.monotonic()
    settings, team = stage.training, Team.join(device)
    sources = read_sources(method, inputs, settings)
    part = team.part_of(settings.batch_size)
    batches = TrainingBatches(method, sources, settings, seed, stage.partner_seed, part=part)
    torch.manual_seed(seed_for(seed, method, "initial weights"))
    feature_width = int(sources.features.payload.shape[1]) if sources.features else 0
    model = Classifier(build_backbone(stage.backbone), sources.classes, feature_width, settings.fusion)
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
    with told_to_stop() as stop:
        whole = _fit(model, optimizer, batches, seed, state, device, workers, checkpoint, stop, team, waiting)
    done = Done.after((state.step - begun) * (part.stop - part.start), waiting)
    if whole and team.leads:
        _write_run(out, method, stage, seed, sources, feature_width, model, state, time.monotonic() - started)
    team.leave()
    if not whole:
        say(f"train {out} was told to stop: saved after step {state.step}, the same command goes on from there")
        raise SystemExit(TERMINATED)
    return done


def _fit(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: TrainingBatches,
    seed: int,
    state: State,
    device: torch.device,
    workers: int,
    checkpoint: Callable[[], None],
    stop: Callable[[], bool],
    team: Team,
    waiting: Waiting,
) -> bool:
    """Take the steps that are left; False where `stop` said to leave before the last of them.

    `waiting` counts the time until the loader hands over each batch.
    """
    settings = batches.settings
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(state.step, len(batches)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        collate_fn=None,
        worker_init_fn=ignore_stop,
    )
    model.train()
    if settings.compile:
        model.backbone.compile(dynamic=False)
    network = team.wrapped(model)
    bar = progress(len(batches), batches.method.name)
    seen = _Seen(batches, state)
    for batch in waiting.of(loader):
        torch.manual_seed(seed_for(seed, f"step {state.step}", f"network {team.rank}" if team.rank else "network"))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, state.step, len(batches))
        moved = batch.to(device)
        loss, logits = _step(network, optimizer, moved, settings, team)
        seen.add(state.step, loss, team.summed((logits.argmax(1) == moved.targets.argmax(1)).sum()))
        state.step += 1
        bar.update(1)
        if state.step % batches.steps_per_epoch == 0:
            state.metrics.append({"epoch": state.step // batches.steps_per_epoch} | seen.epoch())
            checkpoint()
        if state.step < len(batches) and team.any_of(stop()):
            seen.look()
            checkpoint()
            break
    bar.close()
    return state.step == len(batches)


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD (Sec. 4.2), all parameters in one pass of the device."""
    return torch.optim.SGD(
        model.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


class _Seen:
    """Losses and right answers of an epoch. They stay on the device, which nobody waits for at each step."""

    def __init__(self, batches: TrainingBatches, state: State) -> None:
        self.batches, self.state = batches, state
        self._new: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, correct: Tensor) -> None:
        """Take a step's loss () and number of right answers (); look at what came in from time to time."""
        self._new.append((step, loss, correct))
        self.state.images += self.batches.settings.batch_size
        if len(self._new) == CHECKED_EVERY or loss.device.type == "cpu":
            self.look()

    def epoch(self) -> dict[str, float]:
        """Mean loss and share of right answers since the last call."""
        self.look()
        state = self.state
        found = {"loss": round(float(np.mean(state.losses)), 6), "top1": round(state.correct / state.images, 6)}
        state.losses, state.correct, state.images = [], 0, 0
        return found

    def look(self) -> None:
        """Fetch what is new. UserError, with the images of its step, for a loss that is not finite."""
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
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainingSettings,
    team: Team = Team(),
) -> tuple[Tensor, Tensor]:
    """One optimiser step; returns its loss () and the logits (B, C) of these rows, both still on the device.

    The batch goes through the network in `accumulate` parts whose gradients add up to the batch's: the step is the
    same, in less memory, for networks whose rows do not see each other (all but those with batch statistics). In a
    team `batch` is this process's part: gradients are averaged over the processes, so its rows weigh as they count.
    """
    optimizer.zero_grad(set_to_none=True)
    count, losses, logits = len(batch.targets), [], []
    weight = 1.0 if team.size == 1 else count * team.size / settings.batch_size
    size = -(-count // settings.accumulate)
    for start in range(0, count, size):
        with nullcontext() if start + size >= count or team.size == 1 else model.no_sync():
            loss, part = _loss(model, batch, slice(start, start + size), settings)
            share = weight * len(part) / count
            (loss * share).backward()
        losses.append(loss.detach() * share / team.size)
        logits.append(part.detach())
    optimizer.step()
    return team.summed(torch.stack(losses).sum()), torch.cat(logits)


def _loss(model: nn.Module, batch: Batch, rows: slice, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Eq. 1 on some rows of a batch, and their logits (rows, C)."""
    device, statistics = batch.images.device, getattr(model, "module", model).statistics
    features = None if batch.features is None else batch.features[rows].float()

    def classify(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            return model(normalised(images[rows], device, statistics), features).float()

    logits = classify(batch.images)
    mask_logits = None if batch.masks is None else classify(batch.masks)
    return eq1(logits, batch.targets[rows], mask_logits, settings.alpha, settings.beta), logits


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The rate of a step: constant, or a half cosine from the full rate to zero (Loshchilov and Hutter, 2017)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def _write_run(
    out: Path,
    method: str,
    stage: TrainStage,
    seed: int,
    sources: Sources,
    feature_width: int,
    model: nn.Module,
    state: State,
    seconds: float,
) -> None:
    from safetensors.torch import save

    tensors = save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})
    run = {
        "recipe": RECIPE,
        "method": method,
        "seed": seed,
        "classes": sources.classes,
        "feature_width": feature_width,
        "images": len(sources.keys),
        "steps": state.step,
        "seconds": round(seconds, 2),
        "settings": stage.model_dump(mode="json"),
        "features": features_identity(sources.features),
        "inputs": {
            "index": sources.parts.index,
            "parts": sources.parts.digest,
            "backbone": file_digest(weights_file(stage.backbone)),
        },
        "model": bytes_digest(tensors),
        "versions": versions("torch", "timm", "numpy", "pillow"),
    }
    metrics = "".join(json.dumps(row) + "\n" for row in state.metrics)
    contents = {"model.safetensors": tensors, "metrics.jsonl": metrics.encode(), "run.json": json_bytes(run)}
    write_files({out / name: content for name, content in contents.items()})
    remove(out / "checkpoint.safetensors")

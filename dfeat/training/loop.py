"""The training loop (Sec. 4.2): SGD and cross-entropy over a fixed number of steps, resumable to the bit.

What enters: the artifacts of the earlier steps. What leaves, in the run's folder: `model.safetensors`,
`metrics.jsonl` (one line an epoch) and `run.json` (all that is needed to rebuild and to cite the model).
A checkpoint is kept after every epoch, and where SIGTERM ends the training early, until the model is whole.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from dfeat.data.crops import view_key
from dfeat.data.index import index_digest, read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.occlusion.parts import read_parts
from dfeat.progress import progress, say
from dfeat.randomness import seed_for
from dfeat.settings import Method, TrainingSettings, TrainStage
from dfeat.storage.atomic import json_bytes, remove, write_files
from dfeat.storage.provenance import bytes_digest, file_digest, settings_text, versions
from dfeat.storage.records import read_text, refusal
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.checkpoint import TERMINATED, State, ignore_stop, resume, save_checkpoint, told_to_stop
from dfeat.training.dataset import Batch, Sources, TrainingBatches
from dfeat.training.losses import eq1
from dfeat.training.network import Classifier, build_backbone, normalised, start_from_pretrained_head
from dfeat.training.team import Team
from dfeat.training.weights import weights_file

RECIPE: Final = 3
CHECKED_EVERY: Final = 20
"""Steps between two looks at the losses: on a GPU each look waits for the device."""


@dataclass(frozen=True)
class Inputs:
    """The files a training reads."""

    index: Path
    pixels: Path
    parts: Path
    inpainted: Path | None = None
    features: tuple[Path, ...] = ()
    twin_features: tuple[Path, ...] = ()
    verdicts: Path | None = None


def train(
    method: Method, inputs: Inputs, stage: TrainStage, seed: int, out: Path, device: torch.device, workers: int = 0
) -> None:
    """Train one model and write its folder. A training that was interrupted goes on from its checkpoint.

    SIGTERM makes it save where it is and raise SystemExit(TERMINATED). In a process that `team.launch` started it
    computes its part of each batch, and the first process alone writes.
    """
    started = time.monotonic()
    settings, team = stage.training, Team.join(device)
    sources = read_sources(method, inputs, settings)
    batches = TrainingBatches(
        method, sources, settings, seed, stage.partner_seed, part=team.part_of(settings.batch_size)
    )
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

    with told_to_stop() as stop:
        whole = _fit(model, optimizer, batches, seed, state, device, workers, checkpoint, stop, team)
    if whole and team.leads:
        _write_run(out, method, stage, seed, inputs, sources, feature_width, model, state, time.monotonic() - started)
    team.leave()
    if not whole:
        say(f"train {out} was told to stop: saved after step {state.step}, the same command goes on from there")
        raise SystemExit(TERMINATED)


def read_sources(method: Method, inputs: Inputs, settings: TrainingSettings) -> Sources:
    """Open what the method needs; UserError names what is missing or does not cover the training images."""
    index, digest = read_index(inputs.index), index_digest(inputs.index)
    parts = read_parts(inputs.parts, index=digest)
    sources = Sources(
        pixels=PixelCache(inputs.pixels, index=digest),
        keys=[record.key for record in index.records],
        labels={record.key: record.label for record in index.records},
        wnids=[info.wnid for info in index.classes],
        parts=parts,
    )
    _require_keys(set(sources.keys), sources.pixels.row_of, inputs.pixels)
    if method == "sd_inpaint":
        if inputs.inpainted is None:
            raise UserError("the method sd_inpaint needs --inpainted, the cache of inpainted images")
        sources.inpainted = PixelCache(inputs.inpainted, index=digest)
        _require_keys(set(parts.rows), sources.inpainted.row_of, inputs.inpainted)
        if settings.inpainted == "accepted":
            sources.rejected = _read_rejected(inputs.verdicts)
    if method == "sd_features":
        _read_features(sources, inputs, digest, clean=settings.twin_features == "clean")
    return sources


def _read_rejected(verdicts: Path | None) -> frozenset[str]:
    """The images whose inpainted twin lost its label."""
    if verdicts is None:
        raise UserError("training.inpainted 'accepted' needs --verdicts, the verdicts.csv that `dfeat judge` writes")
    try:
        rows = csv.DictReader(io.StringIO(read_text(verdicts, "judge"), newline=""))
        return frozenset(row["key"] for row in rows if row["accepted"] != "1")
    except KeyError as error:
        raise refusal(verdicts, f"it has no column {error}", "judge") from None


def _read_features(sources: Sources, inputs: Inputs, index: str, clean: bool) -> None:
    if not inputs.features or not (inputs.twin_features or clean):
        raise UserError(
            "the method sd_features needs --features and --twin-features, of the clean and the occluded images"
        )
    own = read_rows(inputs.features, "features", index=index)
    _require_view(own, "clean", inputs.features[0])
    sources.views = int(json.loads(own.settings)["latents"].get("views", 1))
    _require_keys(_row_keys(sources.keys, sources.views), own.row_of, inputs.features[0])
    sources.features = own
    if clean:
        return
    twins = read_rows(inputs.twin_features, "features", index=index)
    _require_view(twins, "parts", inputs.twin_features[0])
    if features_identity(own) != features_identity(twins):
        reason = f"it was made with another model or other feature settings than {inputs.features[0]}"
        raise refusal(inputs.twin_features[0], reason, "features")
    _require_keys(_row_keys(sources.parts.rows, sources.views), twins.row_of, inputs.twin_features[0])
    sources.twin_features = twins


def _row_keys(keys: Iterable[str], views: int) -> set[str]:
    """The keys of the feature rows of images: their own, or one for each of several views."""
    return set(keys) if views == 1 else {view_key(key, number) for key in keys for number in range(views)}


def _require_view(rows: Rows, view: str, path: Path) -> None:
    found = json.loads(rows.settings)["latents"]["view"]
    if found != view:
        raise UserError(f"{path} holds features of the view {found!r}; those of {view!r} are needed here")


def _require_keys(wanted: set[str], present: dict[str, int], path: Path) -> None:
    missing = sorted(wanted - present.keys())
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {len(wanted)} images ({', '.join(missing[:3])} ...); it was made from another index, make it again"
        )


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
) -> bool:
    """Take the steps that are left; False where `stop` said to leave before the last of them."""
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
    bar = progress(len(batches), f"{batches.method}")
    seen = _Seen(batches, state)
    for batch in loader:
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
    method: Method,
    stage: TrainStage,
    seed: int,
    inputs: Inputs,
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
            "index": index_digest(inputs.index),
            "parts": file_digest(inputs.parts),
            "backbone": file_digest(weights_file(stage.backbone)),
        },
        "model": bytes_digest(tensors),
        "versions": versions("torch", "timm", "numpy", "pillow"),
    }
    metrics = "".join(json.dumps(row) + "\n" for row in state.metrics)
    contents = {"model.safetensors": tensors, "metrics.jsonl": metrics.encode(), "run.json": json_bytes(run)}
    write_files({out / name: content for name, content in contents.items()})
    remove(out / "checkpoint.safetensors")


def features_identity(rows: Rows | None) -> dict[str, Any] | None:
    """What features must agree in that one classifier sees: the diffusion model, feature settings, size and crop.

    Not the view: which images are occluded, and how, is what differs between them.
    """
    if rows is None:
        return None
    settings = json.loads(rows.settings)
    seen = {name: settings["latents"][name] for name in ("resolution", "crop_pct")}
    return {"model": rows.model, "features": settings["features"], "latents": seen}

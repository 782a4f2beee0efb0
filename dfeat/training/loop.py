"""The training loop (Sec. 4.2): SGD and cross-entropy over a fixed number of steps, resumable to the bit.

What enters: the artifacts of the earlier steps. What leaves, in the run's folder: `model.safetensors`,
`metrics.jsonl` (one line an epoch) and `run.json` (all that is needed to rebuild and to cite the model).
A checkpoint of weights and momentum is kept after every epoch until the model is whole.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.occlusion.parts import read_parts
from dfeat.progress import progress
from dfeat.randomness import seed_for
from dfeat.settings import Method, TrainingSettings, TrainStage
from dfeat.storage.atomic import write_bytes, write_json, write_text
from dfeat.storage.provenance import file_digest, settings_text, versions
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.dataset import Batch, Sources, TrainingBatches
from dfeat.training.losses import eq1
from dfeat.training.network import Classifier, build_backbone, normalised
from dfeat.training.weights import weights_path

RECIPE: Final = 1


@dataclass(frozen=True)
class Inputs:
    """The files a training reads."""

    index: Path
    pixels: Path
    parts: Path
    inpainted: Path | None = None
    features: tuple[Path, ...] = ()
    twin_features: tuple[Path, ...] = ()


@dataclass
class _State:
    """What a checkpoint holds: the next step, and one row of metrics for each finished epoch."""

    step: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)


def train(
    method: Method, inputs: Inputs, stage: TrainStage, seed: int, out: Path, device: torch.device, workers: int = 0
) -> None:
    """Train one model and write its folder. A training that was interrupted goes on after its last epoch."""
    started = time.monotonic()
    settings = stage.training
    sources = read_sources(method, inputs)
    batches = TrainingBatches(method, sources, settings, seed, stage.partner_seed)
    torch.manual_seed(seed_for(seed, method, "initial weights"))
    feature_width = int(sources.features.payload.shape[1]) if sources.features else 0
    model = Classifier(build_backbone(stage.backbone), sources.classes, feature_width, settings.fusion).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    identity = settings_text({"stage": stage.model_dump(mode="json"), "method": method, "seed": seed, "recipe": RECIPE})
    state = _resume(out, identity, model, optimizer)
    _fit(
        model,
        optimizer,
        batches,
        settings,
        seed,
        state,
        device,
        workers,
        lambda: _save_checkpoint(out, identity, model, optimizer, state),
    )
    _write_run(out, method, stage, seed, inputs, sources, feature_width, model, state, time.monotonic() - started)


def read_sources(method: Method, inputs: Inputs) -> Sources:
    """Open what the method needs; UserError names what is missing or does not cover the training images."""
    index = read_index(inputs.index)
    parts = read_parts(inputs.parts)
    sources = Sources(
        pixels=PixelCache(inputs.pixels),
        keys=[record.key for record in index.records],
        labels={record.key: record.label for record in index.records},
        classes=len(index.classes),
        parts=parts,
    )
    _require_keys(set(sources.keys), sources.pixels.row_of, inputs.pixels)
    if method == "sd_inpaint":
        if inputs.inpainted is None:
            raise UserError("the method sd_inpaint needs --inpainted, the cache of inpainted images")
        sources.inpainted = PixelCache(inputs.inpainted)
        _require_keys(set(parts.rows), sources.inpainted.row_of, inputs.inpainted)
    if method == "sd_features":
        if not inputs.features or not inputs.twin_features:
            raise UserError(
                "the method sd_features needs --features and --twin-features, of the clean and the occluded images"
            )
        sources.features, sources.twin_features = (
            read_rows(paths, "features") for paths in (inputs.features, inputs.twin_features)
        )
        _require_keys(set(sources.keys), sources.features.row_of, inputs.features[0])
        _require_keys(set(parts.rows), sources.twin_features.row_of, inputs.twin_features[0])
    return sources


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
    settings: TrainingSettings,
    seed: int,
    state: _State,
    device: torch.device,
    workers: int,
    checkpoint: Any,
) -> None:
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(state.step, len(batches)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        collate_fn=None,
    )
    model.train()
    bar = progress(len(batches), f"{batches.method}")
    losses: list[float] = []
    correct = seen = 0
    for batch in loader:
        torch.manual_seed(seed_for(seed, f"step {state.step}", "network"))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, state.step, len(batches))
        loss, logits = _step(model, optimizer, batch, settings, device)
        losses.append(loss)
        correct += int((logits.argmax(1).cpu().numpy() == batch.targets.argmax(1)).sum())
        seen += len(batch.targets)
        state.step += 1
        bar.update(1)
        if state.step % batches.steps_per_epoch == 0:
            epoch = state.step // batches.steps_per_epoch
            state.metrics.append(
                {"epoch": epoch, "loss": round(float(np.mean(losses)), 6), "top1": round(correct / seen, 6)}
            )
            losses, correct, seen = [], 0, 0
            checkpoint()
    bar.close()


def _step(
    model: Classifier, optimizer: torch.optim.Optimizer, batch: Batch, settings: TrainingSettings, device: torch.device
) -> tuple[float, Tensor]:
    """One optimiser step; returns the loss and the logits (B, C). UserError if the loss is not finite.

    The batch goes through the network in `accumulate` parts whose gradients add up to the batch's: the step is the
    same, in less memory, for networks whose rows do not see each other (all but those with batch statistics).
    """
    optimizer.zero_grad(set_to_none=True)
    count, total, logits = len(batch.targets), 0.0, []
    size = -(-count // settings.accumulate)
    for start in range(0, count, size):
        loss, part = _loss(model, batch, slice(start, start + size), settings, device)
        share = len(part) / count
        (loss * share).backward()
        total += float(loss.detach()) * share
        logits.append(part.detach())
    if not math.isfinite(total):
        raise UserError(
            "the loss is not finite; nothing was written for this epoch. Lower training.learning_rate or use precision float32"
        )
    optimizer.step()
    return total, torch.cat(logits)


def _loss(
    model: Classifier, batch: Batch, rows: slice, settings: TrainingSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Eq. 1 on some rows of a batch, and their logits (rows, C)."""
    targets = torch.from_numpy(batch.targets[rows]).to(device)
    features = None if batch.features is None else torch.from_numpy(batch.features[rows]).to(device).float()

    def classify(images: NDArray[np.uint8]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            return model(normalised(images[rows], device, model.statistics), features).float()

    logits = classify(batch.images)
    mask_logits = None if batch.masks is None else classify(batch.masks)
    return eq1(logits, targets, mask_logits, settings.alpha, settings.beta), logits


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The rate of a step: constant, or a half cosine from the full rate to zero (Loshchilov and Hutter, 2017)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def _save_checkpoint(
    out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, state: _State
) -> None:
    from safetensors.torch import save

    names = [name for name, _ in model.named_parameters()]
    momenta = optimizer.state_dict()["state"]
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    tensors |= {f"momentum.{names[number]}": entry["momentum_buffer"] for number, entry in momenta.items()}
    metadata = {"identity": identity, "step": str(state.step), "metrics": json.dumps(state.metrics)}
    write_bytes(out / "checkpoint.safetensors", save(tensors, metadata))


def _resume(out: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> _State:
    """Go on from the checkpoint of the same training where there is one; another training's is ignored."""
    from safetensors import SafetensorError, safe_open

    path = out / "checkpoint.safetensors"
    if not path.is_file():
        return _State()
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            if metadata.get("identity") != identity:
                return _State()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return _State()
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(parameter.device)
    return _State(int(metadata["step"]), json.loads(metadata["metrics"]))


def _write_run(
    out: Path,
    method: Method,
    stage: TrainStage,
    seed: int,
    inputs: Inputs,
    sources: Sources,
    feature_width: int,
    model: nn.Module,
    state: _State,
    seconds: float,
) -> None:
    from safetensors.torch import save

    write_bytes(
        out / "model.safetensors", save({name: value.contiguous().cpu() for name, value in model.state_dict().items()})
    )
    write_text(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in state.metrics))
    weights = stage.backbone.weights
    write_json(
        out / "run.json",
        {
            "recipe": RECIPE,
            "method": method,
            "seed": seed,
            "classes": sources.classes,
            "feature_width": feature_width,
            "images": len(sources.keys),
            "steps": state.step,
            "seconds": round(seconds, 2),
            "settings": stage.model_dump(mode="json"),
            "features": _features_identity(sources.features),
            "inputs": {
                "index": file_digest(inputs.index / "index.csv"),
                "parts": file_digest(inputs.parts),
                "backbone": file_digest(weights_path(weights)) if weights else "timm",
            },
            "model": file_digest(out / "model.safetensors"),
            "versions": versions("torch", "timm", "numpy", "pillow"),
        },
    )
    (out / "checkpoint.safetensors").unlink(missing_ok=True)


def _features_identity(rows: Rows | None) -> dict[str, Any] | None:
    """What test-time features must agree with: the diffusion model and the feature settings, not the view."""
    if rows is None:
        return None
    settings = json.loads(rows.settings)
    return {"model": rows.model, "features": settings["features"]}

"""Evaluate a model: per-image top-5 predictions on every set and level, from one pass over decoded pixels.

What enters: a trained model's folder, the sets' indexes and pixel caches, and for SD Features the features of each
level. What leaves: `<set>@<level>.csv` with the columns key,label,top1..top5,p1, from which all statistics are
computed, and `<set>.json`, which records the model, images and settings behind those of a set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.data.records import table_text
from dfeat.devices import arithmetic
from dfeat.diffusion.stream import fetched, to_device
from dfeat.errors import UserError
from dfeat.evaluation.origins import model_identity
from dfeat.evaluation.pretrained import PretrainedModel, five_best
from dfeat.evaluation.settings import EvaluateStage, PretrainedStage
from dfeat.methods.paint import black_out
from dfeat.occlusion.views import TestOcclusion
from dfeat.places import level_view, predictions_origin
from dfeat.progress import progress
from dfeat.section import parse
from dfeat.storage.atomic import write_files
from dfeat.storage.origin import origin_bytes
from dfeat.storage.records import read_digested, refusal
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.network import FusionNetwork, mixed, normalised, untrained_backbone
from dfeat.training.settings import TrainStage
from dfeat.training.sources import exchanged_features, features_identity
from dfeat.training.trained import read_run

RECIPE: Final = 2
HEADER: Final = ("key", "label", "top1", "top2", "top3", "top4", "top5", "p1")


class TrainedModel:
    """A trained model: its classifier, and `run`, its run.json. Raises UserError for a missing or damaged folder."""

    def __init__(self, folder: Path, device: torch.device, precision: str = "float32") -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        self.run = read_run(folder)
        weights, digest = read_digested(folder / "model.safetensors", "train")
        if self.run["model"] != digest:
            raise refusal(folder / "model.safetensors", "it is not the model that run.json beside it records", "train")
        try:
            state = load(weights)
        except SafetensorError as error:
            raise refusal(folder / "model.safetensors", f"it is not a .safetensors file ({error})", "train") from None
        stage = parse(TrainStage, self.run["settings"], str(folder / "run.json"))
        fused = self.run["feature_width"], stage.training.fusion, stage.training.feature_norm
        self.classifier = FusionNetwork(untrained_backbone(stage.backbone), self.run["classes"], *fused)
        try:
            self.classifier.load_state_dict(state)
        except RuntimeError as error:
            reason = (
                f"its weights are not those of the network that run.json describes ({' '.join(str(error).split())})"
            )
            raise refusal(folder / "model.safetensors", reason, "train") from None
        self.classifier.to(device, memory_format=torch.channels_last).eval()
        self.image_size = stage.training.image_size
        self.device, self.precision = device, precision

    @torch.no_grad()
    def probabilities(self, images: NDArray[np.uint8], features: NDArray[np.float16] | None) -> Tensor:
        """The probabilities (B, C) float32 of the classes, still on the device.

        `images` are (B, S, S, 3) uint8; `features` are (B, D) for a model that fuses them.
        """
        l_d = None if features is None else to_device(features, self.device).float()
        inputs = normalised(images, self.device, self.classifier.statistics)
        with arithmetic(self.precision), mixed(self.precision, self.device):
            logits = self.classifier(inputs, l_d)
        return logits.float().softmax(1)


Model = TrainedModel | PretrainedModel
Features = dict[str, list[Path]]
"""SET@LEVEL -> the shards of its diffusion features."""


def evaluate(
    model_folder: Path, data: Path, features: Features, stage: EvaluateStage, out: Path, device: torch.device
) -> list[Path]:
    """Evaluate a trained model and write its predictions to `out`; returns their files.

    `data` has SET/index.csv and SET/pixels.h5; `features` is empty for models without fusion. Raises UserError for
    inputs that do not belong together, and for output that is not finite.
    """
    indexes = _read_indexes(data, stage)
    model = TrainedModel(model_folder, device, stage.evaluation.precision)
    return evaluate_model(model, indexes, features, stage, out)


def evaluate_pretrained(data: Path, stage: PretrainedStage, out: Path, device: torch.device) -> list[Path]:
    """The same of a backbone before fine-tuning; the classes are those that the sets were indexed with."""
    indexes = _read_indexes(data, stage)
    classes = next(iter(indexes.values())).classes
    model = PretrainedModel(stage.backbone, classes, stage.image_size, device, stage.evaluation.precision)
    return evaluate_model(model, indexes, {}, stage, out)


def _read_indexes(data: Path, stage: EvaluateStage) -> dict[str, Index]:
    """The index of each set in the settings, by name, each read once. UserError if the settings name no set."""
    return {set_name: read_index(data / set_name) for set_name in stage.sets}


def evaluate_model(
    model: Model, indexes: dict[str, Index], features: Features, stage: EvaluateStage, out: Path
) -> list[Path]:
    """Write the predictions of a loaded model on all sets and levels of the settings; returns their files.

    `<set>.json` lists exactly those of its set, so readers ignore those of an earlier evaluation. It is the same whether
    the set was evaluated alone or with others.
    """
    written: list[Path] = []
    for set_name in stage.levels:
        written += _evaluate_set(model, indexes[set_name], features, stage.of_set(set_name), set_name, out)
    return written


def _evaluate_set(
    model: Model, index: Index, features: Features, stage: EvaluateStage, set_name: str, out: Path
) -> list[Path]:
    """Write the predictions on a set, the only one of `stage`, and their record; returns the files of predictions."""
    cache = PixelCache(index.folder / "pixels.h5", index=index.digest, parts="")
    if len(index.classes) != model.run["classes"]:
        raise UserError(
            f"{index.folder} has {len(index.classes)} classes, but the model {model.run['classes']}; index the set again"
        )
    rows_of = {level: _features_for(model, features, set_name, level, index) for level in stage.levels[set_name]}
    study, crop_pct = stage.studies.get(set_name), stage.evaluation.crop_pct
    occlusion = TestOcclusion.of(index, stage.occlusion, study, model.image_size, crop_pct)
    predictions = _predict_set(model, index.records, cache, rows_of, stage, occlusion, set_name)
    contents = {
        out / f"{level_view(set_name, level)}.csv": table_text(HEADER, rows).encode()
        for level, rows in predictions.items()
    }
    record = {
        **model_identity(model.run),
        "set": set_name,
        "recipe": RECIPE,
        "index": index.digest,
        "settings": stage.model_dump(mode="json"),
    }
    write_files({**contents, out / predictions_origin(set_name): origin_bytes(record, contents)})
    return list(contents)


def _predict_set(
    model: Model,
    records: tuple[Record, ...],
    cache: PixelCache,
    rows_of: dict[int, Rows | None],
    stage: EvaluateStage,
    occlusion: TestOcclusion,
    set_name: str,
) -> dict[int, list[tuple[Any, ...]]]:
    """The rows of each level's file of predictions; every image is read and cropped once."""
    predictions: dict[int, list[tuple[Any, ...]]] = {level: [] for level in rows_of}
    bar = progress(len(records) * len(rows_of), f"evaluate {set_name}")

    def compute(occluded: Occluded) -> tuple[Tensor]:
        batch, level, images = occluded
        rows = rows_of[level]
        l_d = None if rows is None else repeated_to(rows.payload[[rows.row_of[r.key] for r in batch]], len(images))
        return (model.probabilities(images, l_d),)

    coming = _one_ahead(_occluded(records, cache, list(rows_of), stage, occlusion))
    for (batch, level, _), (probabilities,) in fetched(coming, compute):
        best, probability = five_best(probabilities[: len(batch)])  # without the padding
        _check_finite(set_name, level, batch, probability)
        for record, classes, p1 in zip(batch, best, probability, strict=True):
            five = [*classes.tolist(), *[""] * (5 - len(classes))]  # empty columns with fewer than five classes
            predictions[level].append((record.key, record.label, *five, f"{p1:.6f}"))
        bar.update(len(batch))
    bar.close()
    return predictions


def _check_finite(set_name: str, level: int, batch: Sequence[Record], probability: NDArray[Any]) -> None:
    bad = [record.key for record, p1 in zip(batch, probability, strict=True) if not np.isfinite(p1)]
    if bad:
        raise UserError(
            f"the model's output is not finite on {len(bad)} images of {set_name}@{level} ({', '.join(bad[:8])}); "
            "nothing was written. Train it again with a lower training.learning_rate"
        )


Occluded = tuple[Sequence[Record], int, NDArray[np.uint8]]


def _occluded(
    records: Sequence[Record], cache: PixelCache, levels: Sequence[int], stage: EvaluateStage, occlusion: TestOcclusion
) -> Iterator[Occluded]:
    """Yield batches of records with a level and their evaluation crops (B, S, S, 3) occluded to it, for all levels.

    An image is cropped once for all levels. The last batch is padded to B, so that the bytes of a row do not depend on
    its neighbours or the size of the set.
    """
    size, crop_pct = stage.evaluation.batch_size, stage.evaluation.crop_pct
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        crops = np.stack([evaluation_crop(cache[record.key], crop_pct, occlusion.side) for record in batch])
        for level in levels:
            hidden = np.stack([occlusion.hidden(record, level) for record in batch]) if level else None
            images = crops if hidden is None else black_out(crops, hidden)
            yield batch, level, repeated_to(images, size)


def repeated_to(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Pad rows (n, ...) to (size, ...) by repeating the last one."""
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _one_ahead(items: Iterator[Occluded]) -> Iterator[Occluded]:
    """Yield the same items; a thread prepares the next one while the caller computes."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _features_for(model: Model, features: Features, set_name: str, level: int, index: Index) -> Rows | None:
    """The features that a model is given of a set at a level, other images' for a placebo, None for a model without
    fusion. Raises UserError for others than it needs."""
    view = f"{set_name}@{level}"
    wanted = model.run["features"]
    if wanted is None:
        return None
    if view not in features:
        raise UserError(f"the model fuses diffusion features; give those of {view} with --features {view}=FILE")
    rows = read_rows(features[view], "features", index=index.digest, parts="")
    settings = json.loads(rows.settings)
    if settings["latents"]["view"] not in {f"drop:{level}"} | ({"clean"} if level == 0 else set()):
        raise UserError(
            f"{features[view][0]} has features of the view {settings['latents']['view']!r}, not of {view}; give those with "
            f"--features {view}=FILE"
        )
    if features_identity(rows) != wanted:
        raise UserError(
            f"{features[view][0]} has features of another diffusion model or other feature settings than the classifier's; "
            "extract them again with `dfeat features`"
        )
    keys = [record.key for record in index.records]
    return exchanged_features(rows, model.run["method"], keys, model.run["seed"])

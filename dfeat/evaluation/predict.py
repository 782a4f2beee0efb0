"""Evaluate a model: per-image top-5 predictions on every set and level, from one pass over decoded pixels.

What enters: a trained model's folder, the sets' indexes and pixel caches, and for SD Features the features of
each level. What leaves: `<set>@<level>.csv`, columns key,label,top1..top5,p1. All statistics come from these.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.index import Record, index_digest, read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.errors import UserError
from dfeat.evaluation.pretrained import PretrainedModel
from dfeat.occlusion.paint import black_out
from dfeat.occlusion.patches import drop_for
from dfeat.progress import progress
from dfeat.settings import EvaluateStage, PretrainedStage, TrainStage, parse
from dfeat.storage.atomic import write_files
from dfeat.storage.provenance import bytes_digest
from dfeat.storage.records import read_bytes, read_json, refusal
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.network import Classifier, normalised

RECIPE: Final = 1
HEADER: Final = ("key", "label", "top1", "top2", "top3", "top4", "top5", "p1")


class TrainedModel:
    """A model's folder, loaded: the classifier and what run.json says of it."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        self.run = read_json(folder / "run.json", "train")
        weights = read_bytes(folder / "model.safetensors", "train")
        if not isinstance(self.run, dict) or self.run.get("model") != bytes_digest(weights):
            raise refusal(folder / "model.safetensors", "it is not the model that run.json beside it tells of", "train")
        try:
            state = load(weights)
        except SafetensorError as error:
            raise refusal(folder / "model.safetensors", f"it is no .safetensors file ({error})", "train") from None
        stage = parse(TrainStage, self.run["settings"], str(folder / "run.json"))
        bare = stage.backbone.model_copy(update={"weights": None})
        backbone = _without_weights(bare)
        training = stage.training
        self.classifier = Classifier(backbone, self.run["classes"], self.run["feature_width"], training.fusion)
        self.classifier.load_state_dict(state)
        self.classifier.to(device).eval()
        self.image_size = training.image_size
        self.device = device

    @torch.no_grad()
    def top5(
        self, images: NDArray[np.uint8], features: NDArray[np.float16] | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The five best classes (B, 5), best first, and the probability of the best (B,)."""
        l_d = None if features is None else torch.from_numpy(features).to(self.device).float()
        inputs = normalised(images, self.device, self.classifier.statistics)
        probabilities = self.classifier(inputs, l_d).float().softmax(1).cpu().numpy()
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        return order, probabilities[np.arange(len(order)), order[:, 0]]


Model = TrainedModel | PretrainedModel


def _without_weights(backbone: Any) -> torch.nn.Module:
    import timm

    return timm.create_model(backbone.name, pretrained=False, num_classes=0, **backbone.kwargs)


def evaluate(
    model_folder: Path,
    data: Path,
    features: dict[str, list[Path]],
    stage: EvaluateStage,
    out: Path,
    device: torch.device,
) -> list[Path]:
    """Evaluate the trained model in `model_folder`; returns the files written.

    `data` holds SET/index.csv and SET/pixels.h5; `features` maps SET@LEVEL to its features shards, and is empty
    for models without fusion.
    """
    return evaluate_model(TrainedModel(model_folder, device), data, features, stage, out)


def evaluate_pretrained(data: Path, stage: PretrainedStage, out: Path, device: torch.device) -> list[Path]:
    """The same of a backbone before fine-tuning; the classes are those that the sets were indexed with."""
    classes = read_index(data / next(iter(stage.levels))).classes
    model = PretrainedModel(stage.backbone, classes, stage.image_size, device)
    return evaluate_model(model, data, {}, stage, out)


def evaluate_model(
    model: Model, data: Path, features: dict[str, list[Path]], stage: EvaluateStage, out: Path
) -> list[Path]:
    """Write the predictions of a loaded model on all sets and levels of the settings; returns the files."""
    contents: dict[Path, bytes] = {}
    for set_name, levels in stage.levels.items():
        index, digest = read_index(data / set_name), index_digest(data / set_name)
        cache = PixelCache(data / set_name / "pixels.h5", index=digest)
        if len(index.classes) != model.run["classes"]:
            raise UserError(
                f"{data / set_name} has {len(index.classes)} classes, the model {model.run['classes']}; index the set again"
            )
        rows_of = {level: _checked_features(model, features, set_name, level, digest) for level in levels}
        predictions = _predict_set(model, index.records, cache, rows_of, stage, set_name)
        contents |= {out / f"{set_name}@{level}.csv": _csv(rows) for level, rows in predictions.items()}
    write_files(contents)
    return list(contents)


def _predict_set(
    model: Model,
    records: tuple[Record, ...],
    cache: PixelCache,
    rows_of: dict[int, Rows | None],
    stage: EvaluateStage,
    set_name: str,
) -> dict[int, list[tuple[Any, ...]]]:
    """Rows of the prediction file of each level; every image is decoded and cropped once."""
    predictions: dict[int, list[tuple[Any, ...]]] = {level: [] for level in rows_of}
    crop_pct, size = stage.evaluation.crop_pct, stage.evaluation.batch_size
    bar = progress(len(records), f"evaluate {set_name}")
    for batch, crops in _decoded(records, cache, stage, model.image_size):
        for level, rows in rows_of.items():
            images = np.stack(
                [
                    black_out(
                        crop,
                        drop_for(
                            stage.occlusion,
                            record.key,
                            level,
                            model.image_size,
                            (record.height, record.width),
                            crop_pct,
                        ),
                    )
                    if level
                    else crop
                    for record, crop in zip(batch, crops, strict=True)
                ]
            )
            l_d = None if rows is None else rows.payload[[rows.row_of[record.key] for record in batch]]
            best, probability = _padded_top5(model, images, l_d, size)
            _refuse_not_finite(set_name, level, batch, probability)
            for record, classes, p1 in zip(batch, best, probability, strict=True):
                predictions[level].append((record.key, record.label, *_five(classes), f"{p1:.6f}"))
        bar.update(len(batch))
    bar.close()
    return predictions


def _refuse_not_finite(set_name: str, level: int, batch: list[Record], probability: NDArray[Any]) -> None:
    bad = [record.key for record, p1 in zip(batch, probability, strict=True) if not np.isfinite(p1)]
    if bad:
        raise UserError(
            f"the model's output is not finite on {len(bad)} images of {set_name}@{level} ({', '.join(bad[:8])}); "
            "nothing was written. Train it again with a lower training.learning_rate"
        )


def _decoded(
    records: tuple[Record, ...], cache: PixelCache, stage: EvaluateStage, size: int
) -> Iterator[tuple[list[Record], list[NDArray[np.uint8]]]]:
    """Batches of records with their evaluation crops; each image is cropped once for all levels."""
    for start in range(0, len(records), stage.evaluation.batch_size):
        batch = list(records[start : start + stage.evaluation.batch_size])
        yield batch, [evaluation_crop(cache[record.key], stage.evaluation.crop_pct, size) for record in batch]


def _padded_top5(model: Model, images: NDArray[np.uint8], l_d: Any, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions at one batch shape: the last batch is padded, so a row does not depend on the set's size."""
    count = len(images)
    pad = [(0, size - count)] + [(0, 0)] * 3
    features = None if l_d is None else np.pad(l_d, pad[:2], mode="edge")
    best, probability = model.top5(np.pad(images, pad, mode="edge"), features)
    return best[:count], probability[:count]


def _checked_features(
    model: Model, features: dict[str, list[Path]], set_name: str, level: int, index: str
) -> Rows | None:
    """The features of a set at a level, which must come from the diffusion model and settings the classifier saw."""
    view = f"{set_name}@{level}"
    wanted = model.run["features"]
    if wanted is None:
        return None
    if view not in features:
        raise UserError(f"the model fuses diffusion features; give those of {view} with --features {view}=FILE")
    rows = read_rows(features[view], "features", index=index)
    settings = json.loads(rows.settings)
    if settings["latents"]["view"] not in {f"drop:{level}"} | ({"clean"} if level == 0 else set()):
        raise UserError(
            f"{features[view][0]} holds features of the view {settings['latents']['view']!r}, not of {view}"
        )
    if rows.model != wanted["model"] or settings["features"] != wanted["features"]:
        raise UserError(
            f"{features[view][0]} was made with another diffusion model or other feature settings than the classifier's"
        )
    return rows


def _five(classes: NDArray[Any]) -> list[int | str]:
    """Five columns whatever the number of classes; those that do not exist are empty."""
    return [int(c) for c in classes] + [""] * (5 - len(classes))


def _csv(rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return text.getvalue().encode()

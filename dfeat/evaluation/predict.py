"""Evaluate a model: per-image top-5 predictions on every set and level, from one pass over decoded pixels.

What enters: a trained model's folder, the sets' indexes and pixel caches, and for SD Features the features of
each level. What leaves: `<set>@<level>.csv`, columns key,label,top1..top5,p1, from which all statistics come, and
`predictions.json`, which says what they are of.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.index import Record, index_digest, read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.errors import UserError
from dfeat.evaluation.origins import PREDICTIONS, model_identity
from dfeat.evaluation.pretrained import PretrainedModel, five_best
from dfeat.evaluation.settings import EvaluateStage, PretrainedStage
from dfeat.occlusion.paint import black_out
from dfeat.occlusion.views import TestOcclusion
from dfeat.progress import progress
from dfeat.section import parse
from dfeat.storage.atomic import write_files
from dfeat.storage.origin import origin_bytes
from dfeat.storage.provenance import bytes_digest
from dfeat.storage.records import read_bytes, read_json, refusal
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.network import Classifier, normalised, untrained_backbone
from dfeat.training.settings import TrainStage
from dfeat.training.sources import features_identity

RECIPE: Final = 2
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
        backbone, fusion = untrained_backbone(stage.backbone), stage.training.fusion
        self.classifier = Classifier(backbone, self.run["classes"], self.run["feature_width"], fusion)
        self.classifier.load_state_dict(state)
        self.classifier.to(device, memory_format=torch.channels_last).eval()
        self.image_size = stage.training.image_size
        self.device = device

    @torch.no_grad()
    def top5(
        self, images: NDArray[np.uint8], features: NDArray[np.float16] | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The five best classes (B, 5), best first, and the probability of the best (B,)."""
        l_d = None if features is None else torch.from_numpy(features).to(self.device).float()
        inputs = normalised(images, self.device, self.classifier.statistics)
        return five_best(self.classifier(inputs, l_d))


Model = TrainedModel | PretrainedModel


def evaluate(
    model_folder: Path,
    data: Path,
    features: dict[str, list[Path]],
    stage: EvaluateStage,
    out: Path,
    device: torch.device,
) -> list[Path]:
    """Evaluate the trained model in `model_folder`; returns the files of predictions.

    `data` holds SET/index.csv and SET/pixels.h5; `features` maps SET@LEVEL to its features shards, and is empty
    for models without fusion.
    """
    _need_sets(stage)
    return evaluate_model(TrainedModel(model_folder, device), data, features, stage, out)


def evaluate_pretrained(data: Path, stage: PretrainedStage, out: Path, device: torch.device) -> list[Path]:
    """The same of a backbone before fine-tuning; the classes are those that the sets were indexed with."""
    _need_sets(stage)
    classes = read_index(data / next(iter(stage.levels))).classes
    model = PretrainedModel(stage.backbone, classes, stage.image_size, device)
    return evaluate_model(model, data, {}, stage, out)


def _need_sets(stage: EvaluateStage) -> None:
    if not stage.levels:
        raise UserError(
            "the settings' `levels` name no set; give each set its levels of occlusion, e.g. {'dfeat': [0]}"
        )


def evaluate_model(
    model: Model, data: Path, features: dict[str, list[Path]], stage: EvaluateStage, out: Path
) -> list[Path]:
    """Write the predictions of a loaded model on all sets and levels of the settings; returns their files.

    `predictions.json` beside them tells of these files and no others: what an earlier evaluation left is not used.
    """
    contents: dict[Path, bytes] = {}
    indexes: dict[str, str] = {}
    for set_name, levels in stage.levels.items():
        index, digest = read_index(data / set_name), index_digest(data / set_name)
        cache = PixelCache(data / set_name / "pixels.h5", index=digest)
        if len(index.classes) != model.run["classes"]:
            raise UserError(
                f"{data / set_name} has {len(index.classes)} classes, the model {model.run['classes']}; index the set again"
            )
        rows_of = {level: _checked_features(model, features, set_name, level, digest) for level in levels}
        evaluation = stage.evaluation
        occlusion = TestOcclusion.of(
            index, stage.occlusion, stage.studies.get(set_name), model.image_size, evaluation.crop_pct
        )
        predictions = _predict_set(model, index.records, cache, rows_of, stage, occlusion, set_name)
        contents |= {out / f"{set_name}@{level}.csv": _csv(rows) for level, rows in predictions.items()}
        indexes[set_name] = digest
    said = {
        **model_identity(model.run),
        "recipe": RECIPE,
        "indexes": indexes,
        "settings": stage.model_dump(mode="json"),
    }
    write_files({**contents, out / PREDICTIONS: origin_bytes(said, contents)})
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
    """Rows of the prediction file of each level; every image is read and cropped once."""
    predictions: dict[int, list[tuple[Any, ...]]] = {level: [] for level in rows_of}
    bar = progress(len(records) * len(rows_of), f"evaluate {set_name}")
    for batch, level, images in _one_ahead(_occluded(records, cache, list(rows_of), stage, occlusion)):
        rows = rows_of[level]
        l_d = None if rows is None else repeated_to(rows.payload[[rows.row_of[r.key] for r in batch]], len(images))
        best, probability = model.top5(images, l_d)
        best, probability = best[: len(batch)], probability[: len(batch)]  # without what pads the batch
        _refuse_not_finite(set_name, level, batch, probability)
        for record, classes, p1 in zip(batch, best, probability, strict=True):
            predictions[level].append((record.key, record.label, *_five(classes), f"{p1:.6f}"))
        bar.update(len(batch))
    bar.close()
    return predictions


def _refuse_not_finite(set_name: str, level: int, batch: Sequence[Record], probability: NDArray[Any]) -> None:
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
    """Batches of records with a level and their evaluation crops (B, S, S, 3) occluded to it, all levels in turn.

    An image is cropped once for all levels. The last batch is padded: a row does not depend on the set's size.
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
    """Rows (n, ...) with the last one repeated up to `size`."""
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _one_ahead(items: Iterator[Occluded]) -> Iterator[Occluded]:
    """The same items; a thread prepares the next while the model looks at this one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


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
    if features_identity(rows) != wanted:
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

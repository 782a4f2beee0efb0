"""Evaluation at five levels of occlusion, compared with five forward passes over prepared tensors.

Ours reads, crops, occludes and normalises the pixels, predicts, and builds the rows of five files of predictions. The
peer runs the same resnet18 on the same batches, already normalised and in memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.photographs import write_photographs
from bench.table import Result, side_by_side
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.evaluation.predict import TrainedModel, _predict_set
from dfeat.evaluation.settings import EvaluateStage, EvaluationSettings
from dfeat.methods import REFERENCE
from dfeat.occlusion.views import TestOcclusion
from dfeat.storage.atomic import write_bytes, write_json
from dfeat.storage.provenance import file_digest
from dfeat.training.network import FusionNetwork, normalised, untrained_backbone
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage

LEVELS: Final = (0, 20, 40, 60, 80)
IMAGES: Final = 32
BACKBONE: Final = "resnet18"
CPU: Final = torch.device("cpu")


def run(rounds: int = 5, backbone: str = BACKBONE, images: int = IMAGES, **_: Any) -> Result:
    """Time the evaluation of `images` pictures in one batch at five levels, `rounds` times."""
    stage = EvaluateStage(evaluation=EvaluationSettings(batch_size=images), levels={"set": LEVELS})
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        index = write_photographs(Path(name), images)
        cache = PixelCache(index.folder / "pixels.h5")
        model = TrainedModel(write_untrained(Path(name) / "model", Backbone(name=backbone), len(index.classes)), CPU)
        crops = [evaluation_crop(cache[r.key], stage.evaluation.crop_pct, model.image_size) for r in index.records]
        ready = normalised(np.stack(crops), CPU, model.classifier.statistics)

        @torch.no_grad()
        def forward() -> None:
            for _level in LEVELS:
                model.classifier(ready)

        rows_of = dict.fromkeys(LEVELS)
        occlusion = TestOcclusion.of(index, stage.occlusion, None, model.image_size, stage.evaluation.crop_pct)
        ways = {
            "evaluate": lambda: _predict_set(model, index.records, cache, rows_of, stage, occlusion, "set"),
            "forward": forward,
        }
        timed = side_by_side(ways, rounds)
    row = timed.row(
        f"evaluation of {len(LEVELS)} levels", "evaluate", "forward", 1.15, "forward passes alone", bound="at most"
    )
    return Result([row], {"evaluated": f"{backbone}, {images} images of 224 px"})


def write_untrained(folder: Path, backbone: Backbone, classes: int, image_size: int = 224) -> Path:
    """Write the folder of an untrained model in the format of `dfeat train`, and return it."""
    from safetensors.torch import save

    stage = TrainStage(backbone=backbone, training=TrainingSettings(image_size=image_size))
    model = FusionNetwork(untrained_backbone(backbone), classes)
    write_bytes(folder / "model.safetensors", save(model.state_dict()))
    digest = file_digest(folder / "model.safetensors")
    settings = stage.model_dump(mode="json")
    run = {
        "method": REFERENCE,
        "seed": 0,
        "settings": settings,
        "classes": classes,
        "feature_width": 0,
        "features": None,
    }
    write_json(folder / "run.json", {**run, "model": digest})
    return folder

"""Judge whether inpainted images keep their label, by models that were not trained on inpainted images.

What enters: the trained None models of a backbone, the training images and the inpainted ones. What leaves:
`verdicts.csv`, which has for each inpainted image the number of models (seeds) that predict its class from the original
(a ceiling: None was trained on it), from the one with the chosen parts black (the floor), and from the inpainted one,
and whether a majority does from that (accepted). `verdicts.json` beside it records the models and images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.crops import view_keys
from dfeat.data.index import Record, read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.data.records import table_text
from dfeat.diffusion.stream import fetched
from dfeat.errors import UserError
from dfeat.evaluation.origins import model_identity
from dfeat.evaluation.predict import RECIPE, TrainedModel, repeated_to
from dfeat.evaluation.pretrained import five_best
from dfeat.evaluation.settings import EvaluationSettings, JudgeStage
from dfeat.evaluation.verdicts import COLUMNS
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import read_parts
from dfeat.storage.atomic import write_files
from dfeat.storage.origin import origin_bytes


def judge(
    models: Sequence[Path], index_folder: Path, pixels: Path, parts_file: Path, inpainted: Path,
    settings: EvaluationSettings, out: Path, device: torch.device,
) -> int:  # fmt: skip
    """Write the verdicts on all inpainted images to `out`, a .csv, with their record beside it.

    `models` are folders of trained models; `pixels` and `inpainted` are pixel caches. Returns the number of accepted
    images. Raises UserError for models with diffusion features, and for inputs that do not belong together.
    """
    if out.suffix != ".csv":
        raise UserError(f"--out is {out}, but verdicts are a table; give a name that ends in .csv")
    index = read_index(index_folder)
    parts = read_parts(parts_file, index=index.digest)
    originals = PixelCache(pixels, index=index.digest, parts="")
    filled = PixelCache(inpainted, index=index.digest, parts=parts.digest)
    loaded = [TrainedModel(folder, device, settings.precision) for folder in models]
    if any(model.run["features"] is not None for model in loaded):
        raise UserError(
            "a model reads diffusion features, which inpainted images do not have; judge with models of the method none"
        )
    records = [record for record in index.records if record.key in parts.rows]
    side = loaded[0].image_size

    def views(key: str) -> Iterator[NDArray[np.uint8]]:
        image = originals[key]
        hidden = evaluation_crop(parts.mask(key), settings.crop_pct, side)
        crop = evaluation_crop(image, settings.crop_pct, side)
        yield from (crop, black_out(crop, hidden))
        for copy in view_keys(key, filled.copies):
            yield evaluation_crop(filled[copy], settings.crop_pct, side)

    correct = _correct_counts(loaded, records, views, 2 + filled.copies, settings.batch_size)
    rows = [
        (copy, record.label, len(loaded), original, black_out, count, int(count * 2 > len(loaded)))
        for record, (original, black_out, *counts) in zip(records, correct.tolist(), strict=True)
        for copy, count in zip(view_keys(record.key, filled.copies), counts, strict=True)
    ]
    record = {
        "models": [model_identity(model.run) for model in loaded],
        "recipe": RECIPE,
        "index": index.digest,
        "parts": parts.digest,
        "inpainted": filled.digest,
        "settings": JudgeStage(**dict(settings)).model_dump(mode="json"),
    }
    contents = {out: table_text(COLUMNS, rows).encode()}
    write_files({**contents, out.with_suffix(".json"): origin_bytes(record, contents)})
    return sum(row[-1] for row in rows)


def _correct_counts(
    models: Sequence[TrainedModel],
    records: Sequence[Record],
    views: Callable[[str], Iterator[NDArray[np.uint8]]],
    count: int,
    size: int,
) -> NDArray[np.int64]:
    """How many models predict the class of each record from each of its `count` views: (records, count)."""
    correct = np.zeros((len(records), count), np.int64)

    def passes() -> Iterator[tuple[int, int, TrainedModel, NDArray[np.uint8]]]:
        for start in range(0, len(records), size):
            pictures = np.stack([np.stack(list(views(record.key))) for record in records[start : start + size]])
            padded = repeated_to(pictures, size)
            for view in range(count):
                for model in models:
                    yield start, view, model, np.ascontiguousarray(padded[:, view])

    for (start, view, _, _), (probabilities,) in fetched(passes(), lambda one: (one[2].probabilities(one[3], None),)):
        labels = np.array([record.label for record in records[start : start + size]])
        best, _ = five_best(probabilities[: len(labels)])
        correct[start : start + len(labels), view] += best[:, 0] == labels
    return correct

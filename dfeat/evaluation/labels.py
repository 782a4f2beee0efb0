"""Whether inpainted images keep their label: what a model that was never shown one still sees in them.

What enters: the trained None models of a backbone, the training images, their occluded twins and the inpainted ones.
What leaves: `verdicts.csv`, a row for each image with parts: how many of the models (seeds) give it its own class as it is,
with the chosen parts black, and inpainted; accepted is what the majority does for the inpainted one. `verdicts.json`
beside it says which models judged, and on which images. And from them
`label_preservation.csv` and `.md`: acceptance by class, with the exact binomial interval (Clopper and Pearson 1934).

None was trained on the originals, so its rate on them is no accuracy; it is there as the ceiling, and the black one
as the floor that inpainting has to rise above.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.index import index_digest, read_index
from dfeat.data.pixels import PixelCache, evaluation_crop
from dfeat.data.records import table_text
from dfeat.errors import UserError
from dfeat.evaluation.layout import markdown_escaped
from dfeat.evaluation.origins import check_backbone, read_verdicts_origin, said_of_model
from dfeat.evaluation.paper import backbone_name
from dfeat.evaluation.predict import RECIPE, TrainedModel
from dfeat.evaluation.tables import percent
from dfeat.occlusion.paint import black_out
from dfeat.occlusion.parts import read_parts
from dfeat.settings import Backbone, EvaluationSettings, Settings
from dfeat.storage.atomic import write_files
from dfeat.storage.origin import origin_bytes
from dfeat.storage.provenance import bytes_digest, file_digest
from dfeat.storage.records import read_text, refusal

VIEWS: Final = ("original", "blackout", "inpainted")
COLUMNS: Final = ("key", "label", "models", *VIEWS, "accepted")


def judge(
    models: Sequence[Path],
    index_folder: Path,
    pixels: Path,
    parts_file: Path,
    inpainted: Path,
    settings: EvaluationSettings,
    out: Path,
    device: torch.device,
) -> int:
    """Write the verdicts on all inpainted images, a .csv, and what they are of; returns how many were accepted."""
    if out.suffix != ".csv":
        raise UserError(f"{out}: verdicts are a table; give --out a name that ends in .csv")
    index, digest = read_index(index_folder), index_digest(index_folder)
    parts = read_parts(parts_file, index=digest)
    originals, filled = PixelCache(pixels, index=digest), PixelCache(inpainted, index=digest)
    loaded = [TrainedModel(folder, device) for folder in models]
    if any(model.run["features"] is not None for model in loaded):
        raise UserError(
            "inpainted images are judged by models without diffusion features; give those of the method none"
        )
    records = [record for record in index.records if record.key in parts.rows]
    right = np.zeros((len(records), len(VIEWS)), np.int64)
    size, side = settings.batch_size, loaded[0].image_size

    def views(key: str) -> Iterator[NDArray[np.uint8]]:
        image = originals[key]
        hidden = evaluation_crop(parts.mask(key), settings.crop_pct, side)
        crop = evaluation_crop(image, settings.crop_pct, side)
        yield from (crop, black_out(crop, hidden), evaluation_crop(filled[key], settings.crop_pct, side))

    for start in range(0, len(records), size):
        batch = records[start : start + size]
        labels = np.array([record.label for record in batch])
        pictures = np.stack([np.stack(list(views(record.key))) for record in batch])
        padded = np.pad(pictures, [(0, size - len(batch))] + [(0, 0)] * 4, mode="edge")
        for view in range(len(VIEWS)):
            for model in loaded:
                best, _ = model.top5(np.ascontiguousarray(padded[:, view]), None)
                right[start : start + len(batch), view] += best[: len(batch), 0] == labels
    accepted = right[:, VIEWS.index("inpainted")] * 2 > len(loaded)
    rows = [
        (record.key, record.label, len(loaded), *counts.tolist(), int(keep))
        for record, counts, keep in zip(records, right, accepted, strict=True)
    ]
    said = {
        "models": [said_of_model(model.run) for model in loaded],
        "recipe": RECIPE,
        "index": digest,
        "parts": file_digest(parts_file),
        "inpainted": filled.digest,
        "settings": settings.model_dump(mode="json"),
    }
    contents = {out: table_text(COLUMNS, rows).encode()}
    write_files({**contents, out.with_suffix(".json"): origin_bytes(said, contents)})
    return int(accepted.sum())


def read_verdicts(path: Path, backbone: Backbone) -> list[dict[str, str]]:
    """The rows of verdicts.csv; UserError where it is missing or none, or where models of another backbone judged."""
    origin, text = read_verdicts_origin(path), read_text(path, "judge")
    origin.check(path, bytes_digest(text.encode()))
    for model in origin.said["models"]:
        check_backbone(origin, model["backbone"], backbone)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise refusal(path, "it has no verdicts", "judge")
    return rows


def write_label_preservation(results: Path, settings: Settings, out: Path) -> None:
    """Write `label_preservation.csv` and `.md` from the verdicts of every backbone."""
    classes = read_index(results / "data" / "train").classes
    table: list[dict[str, str]] = []
    for backbone, chosen in settings.training.backbones.items():
        verdicts = read_verdicts(results / "evaluation" / "labels" / backbone / "verdicts.csv", chosen)
        by_label: dict[int, list[dict[str, str]]] = {}
        for row in verdicts:
            by_label.setdefault(int(row["label"]), []).append(row)
        table.append(_rates(backbone, "", "all classes", verdicts))
        table += [_rates(backbone, classes[c].wnid, classes[c].name, by_label[c]) for c in sorted(by_label)]
    text = table_text(tuple(table[0]), [tuple(row.values()) for row in table])
    files = {"csv": text, "md": "\n".join(_markdown(table, settings)) + "\n"}
    write_files({out / f"label_preservation.{kind}": content.encode() for kind, content in files.items()})


def _rates(backbone: str, wnid: str, name: str, rows: list[dict[str, str]]) -> dict[str, str]:
    from scipy.stats import binomtest

    accepted, count = sum(int(row["accepted"]) for row in rows), len(rows)
    interval = binomtest(accepted, count).proportion_ci(0.95, "exact")
    seen = {view: sum(int(row[view]) / int(row["models"]) for row in rows) / count for view in VIEWS}
    return {
        "backbone": backbone, "wnid": wnid, "class": name, "n": str(count),
        **{view: percent(rate) for view, rate in seen.items()}, "accepted": percent(accepted / count),
        "low": percent(float(interval.low)), "high": percent(float(interval.high)),
    }  # fmt: skip


def _markdown(table: list[dict[str, str]], settings: Settings) -> list[str]:
    lines = ["# Do inpainted images keep their label?", ""]
    if settings.report.note:
        lines += [f"**{markdown_escaped(settings.report.note)}**", ""]
    lines += [
        "Share of training images, in percent, to which the None models give their own class: as they are, with the chosen "
        "parts black, and inpainted (means over seeds). Accepted: the majority of the seeds does so for the inpainted "
        "image, with the exact 95 % interval. None was trained on the originals, so the first column is a ceiling and no "
        "accuracy. Classes from the least accepted on.",
        "",
        "| Architecture | Class | n | Original | Parts black | Inpainted | Accepted |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(table, key=lambda row: (row["backbone"], row["wnid"] != "", float(row["accepted"]))):
        rates = [f"{float(row[view]):.1f}" for view in VIEWS]
        accepted = f"{float(row['accepted']):.1f} ({float(row['low']):.1f} to {float(row['high']):.1f})"
        names = [markdown_escaped(backbone_name(row["backbone"])), markdown_escaped(row["class"])]
        lines.append("| " + " | ".join([*names, row["n"], *rates, accepted]) + " |")
    return [*lines, ""]

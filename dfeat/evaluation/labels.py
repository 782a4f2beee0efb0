"""Whether inpainted images keep their label: what a model that was never shown one still sees in them.

What enters: the trained None models of a backbone, the training images, their occluded twins and the inpainted ones.
What leaves: `verdicts.csv`, a row for each inpainted image: how many of the models (seeds) give it its own class as it is,
with the chosen parts black, and inpainted; accepted is what the majority does for the inpainted one. `verdicts.json`
beside it says which models judged, and on which images. And from them
`label_preservation.csv` and `.md`: acceptance by class, with the exact binomial interval (Clopper and Pearson 1934).
Several copies of an image (`diffusion.inpaint.copies`) are judged each; they are alike, so the interval is that of as
many images as there are, not of as many copies (Korn and Graubard 1998, at the greatest design effect).

None was trained on the originals, so its rate on them is no accuracy; it is there as the ceiling, and the black one
as the floor that inpainting has to rise above.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.crops import image_key, view_keys
from dfeat.data.index import Record, index_digest, read_index
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
    side = loaded[0].image_size

    def views(key: str) -> Iterator[NDArray[np.uint8]]:
        image = originals[key]
        hidden = evaluation_crop(parts.mask(key), settings.crop_pct, side)
        crop = evaluation_crop(image, settings.crop_pct, side)
        yield from (crop, black_out(crop, hidden))
        for copy in view_keys(key, filled.copies):
            yield evaluation_crop(filled[copy], settings.crop_pct, side)

    right = _right_answers(loaded, records, views, 2 + filled.copies, settings.batch_size)
    rows = [
        (copy, record.label, len(loaded), original, blackout, count, int(count * 2 > len(loaded)))
        for record, (original, blackout, *counts) in zip(records, right.tolist(), strict=True)
        for copy, count in zip(view_keys(record.key, filled.copies), counts, strict=True)
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
    return sum(row[-1] for row in rows)


def _right_answers(
    models: Sequence[TrainedModel],
    records: Sequence[Record],
    views: Callable[[str], Iterator[NDArray[np.uint8]]],
    count: int,
    size: int,
) -> NDArray[np.int64]:
    """How many of the models give each of the `count` views of an image its class: (records, count), by batches of `size`."""
    right = np.zeros((len(records), count), np.int64)
    for start in range(0, len(records), size):
        batch = records[start : start + size]
        labels = np.array([record.label for record in batch])
        pictures = np.stack([np.stack(list(views(record.key))) for record in batch])
        padded = np.pad(pictures, [(0, size - len(batch))] + [(0, 0)] * 4, mode="edge")
        for view in range(count):
            for model in models:
                best, _ = model.top5(np.ascontiguousarray(padded[:, view]), None)
                right[start : start + len(batch), view] += best[: len(batch), 0] == labels
    return right


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
    index = read_index(results / "data" / "train")
    classes, keys = index.classes, {record.key for record in index.records}
    table: list[dict[str, str]] = []
    for backbone, chosen in settings.training.backbones.items():
        verdicts = read_verdicts(results / "evaluation" / "labels" / backbone / "verdicts.csv", chosen)
        by_label: dict[int, list[dict[str, str]]] = {}
        for row in verdicts:
            row["image"] = row["key"] if row["key"] in keys else image_key(row["key"])
            by_label.setdefault(int(row["label"]), []).append(row)
        table.append(_rates(backbone, "", "all classes", verdicts))
        table += [_rates(backbone, classes[c].wnid, classes[c].name, by_label[c]) for c in sorted(by_label)]
    text = table_text(tuple(table[0]), [tuple(row.values()) for row in table])
    files = {"csv": text, "md": "\n".join(_markdown(table, settings)) + "\n"}
    write_files({out / f"label_preservation.{kind}": content.encode() for kind, content in files.items()})


def _rates(backbone: str, wnid: str, name: str, rows: list[dict[str, str]]) -> dict[str, str]:
    images = len({row["image"] for row in rows})
    accepted = sum(int(row["accepted"]) for row in rows) / len(rows)
    low, high = exact_interval(accepted * images, images)
    seen = {view: sum(int(row[view]) / int(row["models"]) for row in rows) / len(rows) for view in VIEWS}
    return {
        "backbone": backbone, "wnid": wnid, "class": name, "n": str(images),
        **{view: percent(rate) for view, rate in seen.items()}, "accepted": percent(accepted),
        "low": percent(low), "high": percent(high),
    }  # fmt: skip


def exact_interval(successes: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934). `successes` of `n` may be a fraction: a mean
    over copies of each of n images."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(0.975, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


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

"""Whether inpainted images keep their label: acceptance by class, from the verdicts of the None models.

What enters: `verdicts.csv` of every backbone. What leaves: `label_preservation.csv` and `.md`, with the exact binomial
interval (Clopper and Pearson 1934). Several copies of an image (`diffusion.inpaint.copies`) are judged each; they are
alike, so the interval is that of as many images as there are, not of as many copies (Korn and Graubard 1998, at the
greatest design effect).

None was trained on the originals, so its rate on them is no accuracy; it is there as the ceiling, and the black one
as the floor that inpainting has to rise above.
"""

from __future__ import annotations

from pathlib import Path

from dfeat.config import Settings
from dfeat.data.crops import image_key
from dfeat.data.index import read_index
from dfeat.data.records import table_text
from dfeat.evaluation.judge import VIEWS, read_verdicts
from dfeat.report.numbers.paper import backbone_name
from dfeat.report.tables.layout import markdown_escaped
from dfeat.report.tables.published import percent
from dfeat.storage.atomic import write_files


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

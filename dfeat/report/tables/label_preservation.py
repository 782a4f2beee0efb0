"""Whether inpainted images keep their label: acceptance by class, from the verdicts of the None models.

What enters: `verdicts.csv` of every backbone. What leaves: `label_preservation.csv` and `.md`, with the exact binomial
interval (Clopper and Pearson 1934). Each of several copies of an image (`diffusion.inpaint.copies`) has a verdict;
copies are alike, so the interval is for as many observations as there are images, not copies (Korn and Graubard 1998,
at the greatest design effect).

None was trained on the originals, so its rate on them is a ceiling, not an accuracy; the rate on black parts is the
floor.
"""

from __future__ import annotations

import math
from pathlib import Path

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.data.crops import image_key
from dfeat.data.index import read_index
from dfeat.evaluation.verdicts import VIEWS, read_verdicts
from dfeat.places import TRAIN, Place
from dfeat.report.numbers import text
from dfeat.report.numbers.text import TextRow, escaped, grouped, percent


def write_label_preservation(results: Path, settings: Settings, out: Path) -> None:
    """Write `label_preservation.csv` and `.md` from the verdicts of every backbone."""
    place = Place(results)
    index = read_index(place.data(TRAIN))
    keys = {record.key for record in index.records}
    rows: list[TextRow] = []
    level = settings.report.confidence
    for backbone, chosen in settings.training.backbones.items():
        verdicts = read_verdicts(place.verdicts(backbone), chosen)
        for row in verdicts:
            row["image"] = row["key"] if row["key"] in keys else image_key(row["key"])
        by_class = {int(label): own for (label,), own in grouped(verdicts, "label").items()}
        rows.append(_rates(backbone, "", "all classes", verdicts, level))
        rows += [
            _rates(backbone, index.classes[c].wnid, index.classes[c].name, by_class[c], level) for c in sorted(by_class)
        ]
    title = "Do inpainted images keep their label?"
    text.write_rows(out, "label_preservation", rows, title, settings.report.note, _blocks(rows, level, settings.labels))


def _rates(backbone: str, wnid: str, name: str, verdicts: list[TextRow], confidence: float) -> TextRow:
    images = len({row["image"] for row in verdicts})
    accepted = sum(int(row["accepted"]) for row in verdicts) / len(verdicts)
    low, high = exact_interval(accepted * images, images, confidence)
    rates = {view: math.fsum(int(row[view]) / int(row["models"]) for row in verdicts) / len(verdicts) for view in VIEWS}
    return {
        "backbone": backbone, "wnid": wnid, "class": name, "n": str(images),
        **{view: percent(rate) for view, rate in rates.items()}, "accepted": percent(accepted),
        "low": percent(low), "high": percent(high),
    }  # fmt: skip


def exact_interval(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934).

    `successes` of `n` may be a fraction: a mean over copies of each of n images.
    """
    from scipy.stats import beta

    # low = B(alpha / 2; k, n - k + 1), high = B(1 - alpha / 2; k + 1, n - k), with the beta quantile function B
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def _blocks(rows: list[TextRow], confidence: float, labels: Labels) -> list[str]:
    ranked = sorted(rows, key=lambda row: (row["backbone"], row["wnid"] != "", float(row["accepted"])))
    lines = [
        [
            escaped(labels.backbone(row["backbone"])), escaped(row["class"]), row["n"],
            *(f"{float(row[view]):.1f}" for view in VIEWS), text.with_interval(row["accepted"], row["low"], row["high"]),
        ]
        for row in ranked
    ]  # fmt: skip
    heads = ["Architecture", "Class", "n", "Original", "Parts black", "Inpainted", "Accepted"]
    return [
        "Share of training images, in percent, to which the None models give their own class: as they are, with the chosen "
        "parts black, and inpainted (means over seeds). Accepted: the majority of the seeds does so for the inpainted "
        f"image, with the exact {100 * confidence:g} % interval. None was trained on the originals, so the first column is a ceiling and no "
        "accuracy. Classes from the least accepted on.",
        text.pipe_table("llrrrrr", heads, lines),
    ]

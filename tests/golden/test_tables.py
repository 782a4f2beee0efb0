"""Table 1 of a stored set of predictions: the same bytes as ever, and intervals that another computation confirms.

`python -m tests.golden.test_tables` records the table anew, where a change of the statistics is meant.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dfeat.config import Settings
from dfeat.report.tables.layout import read_rows
from dfeat.report.tables.published import write_table
from dfeat.section import parse
from tests.report.predictions import write_origins

STORED = Path(__file__).parent / "predictions.csv"
GOLDEN = Path(__file__).parent / "table1.csv"
HEADER = "key,label,top1,top2,top3,top4,top5,p1"
SETTINGS = parse(
    Settings,
    {
        "data": {"evaluation": {"imagenet_val": {"kind": "folder", "root": "x", "levels": [0, 60]}}},
        "training": {
            "methods": ["none", "cutmix", "sd_features"],
            "backbones": {"convnext": {"name": "convnext_base.fb_in1k"}},
            "seeds": [0, 1, 2],
        },
        "report": {"note": "stored predictions of a test", "resamples": 4000},
    },
)


def unpack(folder: Path) -> Path:
    """The stored predictions as the files that `dfeat evaluate` writes."""
    files: dict[str, list[str]] = defaultdict(list)
    for line in STORED.read_text().splitlines()[1:]:
        name, _, row = line.partition(",")
        files[name].append(row)
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([HEADER, *rows]) + "\n")
    write_origins(folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("golden") / "evaluation")


def test_table1_is_the_recorded_bytes(evaluation: Path, tmp_path: Path) -> None:
    write_table("table1", evaluation, SETTINGS, tmp_path)
    assert (tmp_path / "table1.csv").read_bytes() == GOLDEN.read_bytes()


def right(method: str, level: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Straight from the stored file: which images were right, (seeds, images), and the images' labels."""
    by_seed: dict[str, list[tuple[str, int, bool]]] = defaultdict(list)
    with STORED.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["file"].startswith(f"{method}/") and row["file"].endswith(f"@{level}.csv"):
                guesses = [row[f"top{k}"] for k in range(1, 2 if metric == "top1" else 6)]
                by_seed[row["file"]].append((row["key"], int(row["label"]), row["label"] in guesses))
    rows = [sorted(of_seed) for _, of_seed in sorted(by_seed.items())]
    return np.array([[hit for *_, hit in of] for of in rows]), np.array([label for _, label, _ in rows[0]])


def independent_interval(correct: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The rescaled bootstrap written out: n_c - 1 images of each class and S - 1 seeds, drawn one resample at a time.

    Percentiles are stretched by t over normal with Satterthwaite's degrees of freedom, as the tables say they are.
    """
    seeds, means = len(correct), []
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(6000):
        drawn_seeds = rng.choice(seeds, seeds - 1)
        total = 0.0
        for images in places:
            drawn = rng.choice(images, len(images) - 1)
            total += correct[drawn_seeds][:, drawn].mean() * len(images)
        means.append(total / correct.shape[1])
    low, high = np.percentile(means, [2.5, 97.5])
    spread = correct.mean(axis=1).var(ddof=1) / seeds
    freedom = max(seeds - 1, np.var(means) ** 2 / (spread**2 / (seeds - 1))) if spread else math.inf
    stretch = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    centre = correct.mean()
    return max(0.0, centre + stretch * (low - centre)), min(1.0, centre + stretch * (high - centre))


def test_its_intervals_agree_with_an_independent_computation() -> None:
    rng = np.random.default_rng(11)
    compared = 0
    for row in read_rows(GOLDEN):
        if row.metric == "top1":
            correct, labels = right(row.method, row.level, row.metric)
            assert float(row.value) == pytest.approx(100 * correct.mean(), abs=1e-4)
            low, high = independent_interval(correct, labels, rng)
            width = float(row.high) - float(row.low)
            assert float(row.low) == pytest.approx(100 * low, abs=0.06 * width)
            assert float(row.high) == pytest.approx(100 * high, abs=0.06 * width)
            compared += 1
    assert compared == 6


def test_its_paired_differences_agree_with_the_stratified_formula() -> None:
    """The variance of a paired difference: over images within classes, plus over seeds, plus their interaction."""
    for row in read_rows(GOLDEN):
        if row.difference_to_none and row.metric == "top1":
            ours, labels = right(row.method, row.level, row.metric)
            none, _ = right("none", row.level, row.metric)
            difference = ours.mean() - none.mean()
            assert float(row.difference_to_none) == pytest.approx(100 * difference, abs=1e-4)
            by_image = ours.mean(axis=0) - none.mean(axis=0)
            sizes = np.bincount(labels)
            images = sum(n * by_image[labels == c].var(ddof=1) for c, n in enumerate(sizes)) / len(labels) ** 2
            seeds = sum(model.mean(axis=1).var(ddof=1) / len(model) for model in (ours, none))
            half = (float(row.difference_high) - float(row.difference_low)) / 200
            assert half > 0.93 * stats.norm.ppf(0.975) * math.sqrt(images + seeds)
            assert half < stats.t.ppf(0.975, 2) * math.sqrt(images + seeds) * 1.35


def test_every_comparison_is_asked_and_adjusted_once() -> None:
    rows = [row for row in read_rows(GOLDEN) if row.metric != "ece"]
    asked = [p for row in rows for p in (row.p_mcnemar, row.baseline_p_mcnemar) if p]
    adjusted = [p for row in rows for p in (row.p_holm, row.baseline_p_holm) if p]
    assert len(asked) == len(adjusted) == 2 * 2 * (2 + 1)  # levels, metrics: two against None, one of ours again
    smallest = min(range(len(asked)), key=lambda place: float(asked[place]))
    assert float(adjusted[smallest]) == pytest.approx(min(1, len(asked) * float(asked[smallest])), rel=1e-3)
    for row in rows:
        assert bool(row.baseline) == (row.method == "sd_features")
        assert len(row.p_by_seed.split()) == (0 if row.method == "none" else 3)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_table("table1", unpack(Path(folder) / "evaluation"), SETTINGS, Path(folder))
        GOLDEN.write_bytes((Path(folder) / "table1.csv").read_bytes())

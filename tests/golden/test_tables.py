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
        "report": {"note": "stored predictions of a test"},
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


def independent_interval(weighted: dict[str, float], level: str) -> tuple[float, float]:
    """The interval of a weighted sum of methods' top-1, straight from the formulas of docs/evidence.md, by loops."""
    tables = {method: right(method, level, "top1") for method in ("none", "cutmix", "sd_features")}
    labels = next(iter(tables.values()))[1]
    n, seeds = len(labels), 3
    values = [sum(w * tables[m][0][:, i].mean() for m, w in weighted.items()) for i in range(n)]
    high, low = (sum(w for w in weighted.values() if (w > 0) == up) for up in (True, False))
    centre = (sum(values) + high + low) / (n + 2)
    assert n - len(set(labels.tolist())) < 100  # classes are no strata in so small a set
    spread = n * np.var(values, ddof=1)
    single = np.mean([np.var(sum(w * tables[m][0][s] for m, w in weighted.items())) for s in range(seeds)])
    shared = max(1 / seeds, np.var(values) / single)
    images = (spread + shared * ((high - centre) ** 2 + (low - centre) ** 2)) / (n + 2) ** 2
    total, beyond = {}, {}
    for method, (correct, _) in tables.items():
        means, table = correct.mean(axis=1), correct.astype(float)
        rest = sum(
            (table[s, i] - means[s] - table[:, i].mean() + means.mean()) ** 2 for s in range(seeds) for i in range(n)
        )
        total[method] = np.var(means, ddof=1)
        beyond[method] = total[method] - rest / ((seeds - 1) * (n - 1)) / n
    lent = {m: (np.mean([t[o] for o in t if o != m]) + t[m]) / 2 for t in (total,) for m in t}
    extra = {m: (np.mean([t[o] for o in t if o != m]) + t[m]) / 2 for t in (beyond,) for m in t}
    of_seeds = max(0.0, sum(w**2 * extra[m] for m, w in weighted.items()) / seeds)
    variance = images + of_seeds
    squares = images**2 / (n - 1) + sum((w**2 * lent[m] / seeds) ** 2 / 4 for m, w in weighted.items())
    freedom = variance**2 / squares if of_seeds else n - 1
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    return centre - half, centre + half


def test_its_intervals_agree_with_an_independent_computation() -> None:
    compared = 0
    for row in read_rows(GOLDEN):
        if row.metric == "top1":
            correct, _ = right(row.method, row.level, row.metric)
            assert float(row.value) == pytest.approx(100 * correct.mean(), abs=1e-4)
            low, high = independent_interval({row.method: 1.0}, row.level)
            assert (float(row.low), float(row.high)) == pytest.approx((100 * low, 100 * high), abs=1e-3)
            compared += 1
        if row.metric == "top1" and row.difference_to_none:
            low, high = independent_interval({row.method: 1.0, "none": -1.0}, row.level)
            found = float(row.difference_low), float(row.difference_high)
            assert found == pytest.approx((100 * low, 100 * high), abs=1e-3)
            compared += 1
    assert compared == 6 + 4


def test_every_comparison_is_asked_and_adjusted_once() -> None:
    rows = [row for row in read_rows(GOLDEN) if row.metric != "ece"]
    asked = [p for row in rows for p in (row.p, row.baseline_p) if p]
    adjusted = [p for row in rows for p in (row.p_holm, row.baseline_p_holm) if p]
    assert len(asked) == len(adjusted) == 2 * 2 * (2 + 1)  # levels, metrics: two against None, one of ours again
    leaders = [row for row in rows if row.best_p_holm]
    assert len(leaders) == 2 * 2
    smallest = min(range(len(asked)), key=lambda place: float(asked[place]))
    family = len(asked) + len(leaders)
    assert float(adjusted[smallest]) == pytest.approx(min(1, family * float(asked[smallest])), rel=1e-3)
    for row in rows:
        assert bool(row.baseline) == (row.method == "sd_features")
        assert len(row.p_by_seed.split()) == (0 if row.method == "none" else 3)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_table("table1", unpack(Path(folder) / "evaluation"), SETTINGS, Path(folder))
        GOLDEN.write_bytes((Path(folder) / "table1.csv").read_bytes())

"""Tables say what the predictions say, name bad files, and are the same bytes for the same inputs."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.methods import NAMES
from dfeat.report.numbers.paper import Cell, paper_table
from dfeat.report.numbers.results import load_predictions
from dfeat.report.tables.layout import COLUMNS, CellRow, plain_tex, read_rows, table_csv, tex, tex_escaped
from dfeat.report.tables.published import write_table
from dfeat.section import parse

from .predictions import GAIN, labelled, small_settings, write_file, write_origins, write_predictions


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "evaluation"
    write_predictions(folder, small_settings())
    return folder


@pytest.fixture(scope="module")
def report(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    for name in ("table1", "table2"):
        write_table(name, evaluation, small_settings(), out)  # type: ignore[arg-type]
    return out


def one_file(folder: Path, method: str = "none", backbone: str = "swin", name: str = "real@0.csv") -> Path:
    return folder / method / backbone / "seed1" / name


def test_the_cells_that_the_page_for_readers_explains(report: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/results.md").read_text(encoding="utf-8")
    rows = [
        row
        for row in read_rows(report / "table1.csv")
        if (row.backbone, row.level, row.metric) == ("swin", "80", "top1")
    ]

    def shown(row: CellRow) -> str:
        value = f"**{float(row.value):.2f}**" if row.best == "true" else f"{float(row.value):.2f}"
        gain = ["", "", ""]
        if row.difference_to_none:
            between = f"({float(row.difference_low):.1f} to {float(row.difference_high):.1f})"
            gain = [
                f"{float(row.difference_to_none):+.2f} {between}",
                *(np.format_float_positional(float(f"{float(p):.2g}")) for p in (row.p, row.p_holm)),
            ]
        marks = "↑" * (row.mark == "better") + "★" * (row.baseline_mark == "better")
        return " ".join(
            f"{value} ({float(row.low):.1f} to {float(row.high):.1f}) | {' | '.join(gain)} | {marks} |".split()
        )

    found = [
        " ".join(line.split("|", 2)[2].split())
        for line in re.findall(r"^\| (?:None|CutMix|SD Features) .*$", page, re.MULTILINE)
    ]
    assert found == [shown(row) for row in rows]


def test_a_row_for_every_cell_and_metric(report: Path) -> None:
    with (report / "table1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * 2 * 3 * 3  # methods, backbones, levels, metrics
    assert {row["set"] for row in rows} == {"simulated"}
    assert {row.set for row in read_rows(report / "table2.csv")} == {"real"}


def test_values_are_the_means_of_the_files(report: Path, evaluation: Path) -> None:
    rows = {(r.level, r.method, r.backbone, r.metric): r for r in read_rows(report / "table1.csv")}
    row = rows["40", "sd_features", "swin", "top5"]
    right = []
    for path in sorted(evaluation.glob("sd_features/swin/seed*/simulated@40.csv")):
        with path.open(newline="") as file:
            right += [r["label"] in [r[f"top{k}"] for k in range(1, 6)] for r in csv.DictReader(file)]
    assert float(row.value) == pytest.approx(100 * np.mean(right), abs=1e-4)
    assert float(row.low) < float(row.value) < float(row.high)
    assert (row.n, row.seeds) == ("200", "2")


def test_differences_are_paired_with_none_and_adjusted_over_the_table(report: Path) -> None:
    rows = read_rows(report / "table1.csv")
    value = {(r.level, r.method, r.backbone, r.metric): float(r.value) for r in rows}
    compared = [r for r in rows if r.difference_to_none]
    assert {r.method for r in compared} == {"cutmix", "sd_features"}
    for r in compared:
        none = value[r.level, "none", r.backbone, r.metric]
        assert float(r.difference_to_none) == pytest.approx(float(r.value) - none, abs=2e-4)
        assert float(r.difference_low) <= float(r.difference_to_none) <= float(r.difference_high)
    asked = [(float(r.p), float(r.p_holm)) for r in compared]
    asked += [(float(r.baseline_p), float(r.baseline_p_holm)) for r in rows if r.baseline]
    leaders = [float(r.best_p_holm) for r in rows if r.best_p_holm]
    assert len(leaders) == 3 * 2 * 2  # levels, backbones, metrics
    family = len(asked) + len(leaders)
    smallest = min(asked)
    assert smallest[1] == pytest.approx(min(1, family * smallest[0]), rel=1e-3)
    for r in compared:
        assert r.mark == ("" if float(r.p_holm) >= 0.05 else "better" if float(r.difference_to_none) > 0 else "worse")
        assert len(r.p_by_seed.split()) == 2 and float(r.smallest_difference) > 0


def test_ours_are_compared_with_the_best_of_the_others(report: Path) -> None:
    rows = read_rows(report / "table1.csv")
    value = {(r.level, r.method, r.backbone, r.metric): float(r.value) for r in rows}
    ours = [r for r in rows if r.baseline]
    assert {r.method for r in ours} == {"sd_features"} and len(ours) == 3 * 2 * 2
    for r in ours:
        others = {m: value[r.level, m, r.backbone, r.metric] for m in ("none", "cutmix")}
        assert others[r.baseline] == max(others.values())
        assert float(r.baseline_difference) == pytest.approx(float(r.value) - others[r.baseline], abs=2e-4)
        assert float(r.baseline_low) <= float(r.baseline_difference) <= float(r.baseline_high)
    text = (report / "table1.md").read_text()
    assert "★" in text and "80 % power" in text and "★: SD Features better than the best of the other methods" in text


def test_one_seed_marks_nothing_and_says_why(tmp_path: Path) -> None:
    settings = small_settings().model_dump(mode="json")
    settings["training"]["seeds"] = [1]
    once = parse(Settings, settings)
    write_predictions(tmp_path / "evaluation", once, gain={"none": 0.0, "cutmix": 3.0, "sd_features": -3.0})
    write_table("table1", tmp_path / "evaluation", once, tmp_path)
    for row in read_rows(tmp_path / "table1.csv"):
        assert not (row.p or row.p_holm or row.mark or row.baseline_mark or row.best_p_holm or row.smallest_difference)
        assert row.best in ("false", "")
    text = (tmp_path / "table1.md").read_text()
    assert "With one seed" in text and "power" not in text and not set("↑↓★") & set(text)


def test_a_worse_method_has_the_mark_of_worse(tmp_path: Path) -> None:
    settings = small_settings()
    write_predictions(tmp_path / "evaluation", settings, gain={"none": 0.0, "cutmix": 0.0, "sd_features": -4.0})
    write_table("table1", tmp_path / "evaluation", settings, tmp_path)
    rows = [row for row in read_rows(tmp_path / "table1.csv") if row.method == "sd_features" and row.metric == "top1"]
    assert {"worse"} <= {row.mark for row in rows} <= {"worse", ""}
    assert {"worse"} <= {row.baseline_mark for row in rows} <= {"worse", ""}
    text = (tmp_path / "table1.md").read_text()
    worst = next(line for line in text.splitlines() if "SD Features" in line)
    assert "↓" in worst and "★" not in worst and "**" not in worst


CVPR = (
    r"\documentclass[10pt,twocolumn]{article}\usepackage{booktabs}\usepackage{graphicx}\setlength{\textwidth}{6.875in}"
    r"\setlength{\textheight}{8.875in}\setlength{\columnsep}{0.3125in}\begin{document}%s\end{document}"
)
"""A page of that conference's size, in a typeface that is wider than its own."""


def wide_rows(name: str, sets: list[str], levels: list[int]) -> Iterator[CellRow]:
    """The paper's whole table with a control, every mark and every printed value, in wide numbers."""
    for place, level, method, backbone in itertools.product(sets, levels, NAMES, ("convnext", "swin")):
        for metric in ("top1", "top5") if name == "table1" else ("top1",):
            ours = "better" if method.startswith("sd_") else ""
            yield CellRow(
                name, place, str(level), method, backbone, metric, "88.8888", low="77.7777", high="99.9999", n="7900", seeds="3",
                mark="worse", baseline_mark=ours, baseline=ours and "none", paper="88.88", paper_inside="false", best="true", smallest_difference="1.2",
            )  # fmt: skip


@pytest.mark.parametrize("shown", ["top1", "all", "none"])
def test_latex_fits_a_conferences_page(report: Path, tmp_path: Path, shown: str) -> None:
    compiler = shutil.which("pdflatex")
    found = compiler and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode == 0
    if not found:
        pytest.skip("pdflatex with booktabs is not here; Debian has it in texlive-latex-recommended")
    sets = {"imagenet_val": {"root": "x", "levels": [0, 80]}, "dfeat_real": {"root": "y"}, "my_set": {"root": "z"}}
    settings = parse(Settings, {"data": {"evaluation": sets}, "report": {"tex_intervals": shown}})
    long = [dict.fromkeys(names, "A label of words & symbols, 100 % as long as one may be ") for names in (NAMES, sets)]
    longest = [{name: f"{text}{number:02}" for number, (name, text) in enumerate(of.items())} for of in long]
    for name, one in (("wide", settings), ("long", labelled(settings, *longest))):
        first = list(wide_rows("table1", ["imagenet_val"], [0, 20, 40, 60, 80]))
        (tmp_path / f"{name}1.tex").write_text(tex("table1", first, one))
        second = list(wide_rows("table2", ["dfeat_real", "my_set"], [0]))
        (tmp_path / f"{name}2.tex").write_text(tex("table2", second, one))
    heads, line = ["Method", "Backbone", *["A column of a table"] * 9], ["CutMix", "Swin", *["88.88 ↑ & 5 %"] * 9]
    (tmp_path / "plain.tex").write_text(plain_tex("plain", heads, [line] * 3, "One. Two. Three.", settings.report))
    files = [f"{report.as_posix()}/{name}" for name in ("table1", "table2")]
    files += ["wide1", "wide2", "long1", "long2", "plain"]
    (tmp_path / "page.tex").write_text(CVPR % "".join(rf"\input{{{file}}}" for file in files))
    command = [str(compiler), "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "Overfull" not in result.stdout and "Undefined" not in result.stdout
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_latex_has_its_caption_above_and_the_long_words_in_comments(report: Path) -> None:
    text = (report / "table1.tex").read_text()
    assert text.index(r"\caption{") < text.index(r"\begin{tabular}") and text.isascii()
    comments = [line for line in text.splitlines() if line.startswith("% ")]
    assert "power" in " ".join(comments) and "power" not in text[text.index(r"\caption{") :]
    assert r"\cmidrule(lr){3-" in text and "$$" not in text


def test_tables_are_the_same_bytes_twice(report: Path, evaluation: Path, tmp_path: Path) -> None:
    for name in ("table1", "table2"):
        write_table(name, evaluation, small_settings(), tmp_path)  # type: ignore[arg-type]
    written = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert written == [f"table{n}.{kind}" for n in (1, 2) for kind in ("csv", "md", "tex")]
    for name in written:
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes()


def test_a_further_set_of_two_lines_has_its_rows_in_the_table_of_its_kind(tmp_path: Path) -> None:
    settings = small_settings().model_dump(mode="json")
    settings["data"]["evaluation"] |= {"mine": {"root": "data/mine"}}
    further = parse(Settings, settings)
    write_predictions(tmp_path / "evaluation", further)
    write_table("table2", tmp_path / "evaluation", further, tmp_path)
    with (tmp_path / "table2.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "mine"]
    assert {row["method"] for row in rows} == set(further.training.methods)
    assert all(row["paper"] == "" for row in rows)
    assert "mine" in (tmp_path / "table2.md").read_text()


def test_a_further_method_changes_nothing_but_the_family_and_what_is_known_of_seeds(
    report: Path, tmp_path: Path
) -> None:
    fewer = small_settings().model_dump(mode="json")
    fewer["training"]["methods"] = ["none", "cutmix"]
    settings = parse(Settings, fewer)
    write_predictions(tmp_path / "evaluation", settings)
    write_table("table2", tmp_path / "evaluation", settings, tmp_path)
    kept = [r for r in read_rows(report / "table2.csv") if r.method != "sd_features"]
    for ours, before in zip(read_rows(tmp_path / "table2.csv"), kept, strict=True):
        for column in ("value", "difference_to_none", "p_by_seed", "n", "seeds", "paper"):
            assert getattr(ours, column) == getattr(before, column)
        for column in ("low", "high", "difference_low", "difference_high"):
            if getattr(ours, column):
                assert float(getattr(ours, column)) == pytest.approx(float(getattr(before, column)), abs=0.6)


def test_rows_of_a_file_may_stand_in_any_order(evaluation: Path, tmp_path: Path) -> None:
    write_predictions(tmp_path, small_settings())
    header, *lines = one_file(tmp_path).read_text().splitlines()
    one_file(tmp_path).write_text("\n".join([header, *reversed(lines)]) + "\n")
    write_origins(tmp_path, small_settings())
    a, b = (load_predictions(folder, small_settings())["real"] for folder in (evaluation, tmp_path))
    assert a.keys == b.keys and np.array_equal(a.rank, b.rank) and np.array_equal(a.p1, b.p1)


def test_fewer_than_five_classes_leave_guesses_empty(tmp_path: Path) -> None:
    write_predictions(tmp_path, small_settings(), classes=3)
    cell = Cell("none", "swin", 0, "top5")
    correct = load_predictions(tmp_path, small_settings())["real"].correct(cell)
    assert ",,," in one_file(tmp_path).read_text()
    assert correct.shape == (2, 60) and 0 < correct.mean() <= 1


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "predictions are missing: .*real@0.csv; make them with `dfeat evaluate`"),
        (lambda path: path.write_text(""), "header is ''"),
        (lambda path: path.write_text("key,label\na,1\n"), "header is 'key,label'"),
        (lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"), "no rows"),
        (lambda path: edit(path, "real_00003", "other"), "other images than .*2 differ, e.g. 'other'"),
        (lambda path: edit(path, "real_00003,0", "real_00003,7"), "image 'real_00003' another label"),
        (lambda path: edit(path, "real_00003", "real_00004"), "image 'real_00004' is in it twice"),
        (lambda path: edit(path, "real_00003,0", "real_00003,zero"), "is no number"),
        (
            lambda path: path.write_text(re.sub(r"0\.\d+\n", "nan\n", path.read_text())),
            "p1 of image 'real_00000' is nan",
        ),
        (lambda path: path.write_text(path.read_text() + "real_1,2\n"), "line 202 has 2 values, not 8"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not UTF-8 text"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, spoil, told: str) -> None:  # type: ignore[no-untyped-def]
    write_predictions(tmp_path, small_settings())
    spoil(one_file(tmp_path))
    write_origins(tmp_path, small_settings())  # so that the file is refused for what stands in it
    with pytest.raises(UserError, match=told) as refusal:
        load_predictions(tmp_path, small_settings())
    assert str(one_file(tmp_path)) in str(refusal.value)
    assert "dfeat evaluate" in str(refusal.value)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_table_reads_only_its_own_sets(tmp_path: Path) -> None:
    write_predictions(tmp_path, small_settings())
    one_file(tmp_path).unlink()
    write_table("table1", tmp_path, small_settings(), tmp_path)
    with pytest.raises(UserError, match=r"real@0\.csv"):
        write_table("table2", tmp_path, small_settings(), tmp_path)


def test_a_run_without_such_sets_gets_an_empty_table(tmp_path: Path) -> None:
    plain = small_settings().model_dump(mode="json")
    del plain["data"]["evaluation"]["real"]
    write_table("table2", tmp_path, parse(Settings, plain), tmp_path)
    assert read_rows(tmp_path / "table2.csv") == []
    assert "this table is empty" in (tmp_path / "table2.md").read_text()
    assert "this table is empty" in (tmp_path / "table2.tex").read_text()


def test_the_papers_values_are_the_papers() -> None:
    first, second = paper_table("table1"), paper_table("table2")
    assert len(first.values) == 6 * 2 * 5 * 2 and len(second.values) == 12
    assert first.values[Cell("none", "convnext", 0, "top1")] == 87.68
    assert first.values[Cell("replace", "convnext", 80, "top5")] == 84.62
    assert first.values[Cell("sd_features", "swin", 60, "top1")] == 85.07
    assert second.values[Cell("sd_features", "convnext", 0, "top1")] == 90.06
    for cell, value in first.values.items():
        if cell.metric == "top1":
            assert value < first.values[cell._replace(metric="top5")]


def papers_run(note: str) -> Settings:
    plain = small_settings(note).model_dump(mode="json")
    sets = plain["data"]["evaluation"]
    sets["imagenet_val"] = {**sets.pop("simulated"), "levels": [0, 80]}
    sets["dfeat_real"] = sets.pop("real")
    plain["training"]["seeds"] = [0]
    return parse(Settings, plain)


def test_the_papers_value_stands_beside_its_own_sets_only(tmp_path: Path, report: Path) -> None:
    write_predictions(tmp_path, papers_run(""))
    write_table("table1", tmp_path, papers_run(""), tmp_path / "own")
    write_table("table1", tmp_path, papers_run("a demo"), tmp_path / "demo")
    rows = read_rows(tmp_path / "own" / "table1.csv")
    shown = {(r.level, r.method, r.backbone, r.metric): r for r in rows if r.metric != "ece"}
    row = shown["80", "cutmix", "swin", "top1"]
    assert row.paper == "77.22"
    assert row.paper_inside == ("true" if float(row.low) <= 77.22 <= float(row.high) else "false")
    assert all(r.paper for r in shown.values())
    assert "paper" in (tmp_path / "own" / "table1.md").read_text()
    for other in (tmp_path / "demo" / "table1.csv", report / "table1.csv"):
        assert not any(r.paper or r.paper_inside for r in read_rows(other))
        assert "paper 77" not in other.with_suffix(".md").read_text()


def test_table_2_is_compared_by_a_prediction_interval(tmp_path: Path) -> None:
    """The paper's images are others: z^2 p (1 - p) / 300 is added to the square of the half-width."""
    settings = papers_run("")
    wider = 0
    for gain in (-1.5, -1.0, -0.5):
        place = tmp_path / str(gain)
        write_predictions(place, settings, gain=dict.fromkeys(GAIN, gain))
        write_table("table2", place, settings, place)
        rows = [row for row in read_rows(place / "table2.csv") if row.paper]
        for row in rows:
            value, low, high, printed = (float(number) / 100 for number in (row.value, row.low, row.high, row.paper))
            half = (value - low) if printed < value else (high - value)
            reach = (half**2 + 1.959964**2 * value * (1 - value) / 300) ** 0.5
            assert row.paper_inside == ("true" if abs(printed - value) <= reach else "false")
            wider += half < abs(printed - value) <= reach
        assert rows and "prediction interval" in (place / "table2.md").read_text()
        write_table("table1", place, settings, place)
        assert "prediction interval" not in (place / "table1.md").read_text()
    assert wider


def test_bold_needs_a_lead_beyond_doubt(tmp_path: Path) -> None:
    write_predictions(tmp_path, small_settings(), gain=dict.fromkeys(GAIN, 0.0) | {"sd_features": 3.0})
    write_table("table2", tmp_path, small_settings(), tmp_path)
    best = [
        (r.method, r.backbone) for r in read_rows(tmp_path / "table2.csv") if r.best == "true" and r.metric == "top1"
    ]
    assert best == [("sd_features", "convnext"), ("sd_features", "swin")]
    for path in tmp_path.glob("cutmix/*/*/real@0.csv"):
        path.write_bytes(Path(str(path).replace("cutmix", "sd_features")).read_bytes())
    write_origins(tmp_path, small_settings())
    write_table("table2", tmp_path, small_settings(), tmp_path)
    assert not any(r.best == "true" for r in read_rows(tmp_path / "table2.csv"))


def test_the_note_stands_in_every_format_and_the_csv_stays_parseable(evaluation: Path, tmp_path: Path) -> None:
    note = 'drawn objects, "not" the paper\n50 % & <b>|$_x'
    write_table("table1", evaluation, small_settings(note), tmp_path)
    assert {row.note for row in read_rows(tmp_path / "table1.csv")} == {note}
    assert r"**drawn objects, " in (tmp_path / "table1.md").read_text()
    assert r"50 \% \& \textless{}b\textgreater{}|\$\_x" in (tmp_path / "table1.tex").read_text()


def test_markdown_and_tex_are_well_formed(report: Path) -> None:
    for name, width in (("table1", 5), ("table2", 3)):
        lines = [line for line in (report / f"{name}.md").read_text().splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {width + 1}
        tex = (report / f"{name}.tex").read_text()
        assert tex.count("{") == tex.count("}")
        assert tex.count(r"\begin{") == tex.count(r"\end{") == 2
        for line in tex.splitlines():
            if line.endswith(r"\\"):
                spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(n - 1 for n in spans) == width
        assert tex.isascii()


def test_tex_escapes_everything() -> None:
    assert tex_escaped("a_b & 5% {x} ~ ^ \\ # $") == (
        r"a\_b \& 5\% \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \# \$"
    )


def test_rows_survive_the_csv(tmp_path: Path) -> None:
    row = CellRow("table1", "s", "0", "none", "swin", "top1", "1.0000", note='a,"b"\nc')
    (tmp_path / "t.csv").write_text(table_csv([row]))
    assert read_rows(tmp_path / "t.csv") == [row]
    (tmp_path / "t.csv").write_text("table,wrong\n1,2\n")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_rows(tmp_path / "t.csv")


def test_one_seed_and_one_image_still_make_a_table(tmp_path: Path) -> None:
    settings = papers_run("tiny")
    for name, entry in settings.data.evaluation.items():
        for level in entry.levels:
            for method in settings.training.methods:
                for backbone in settings.training.backbones:
                    folder = tmp_path / method / backbone / "seed0"
                    folder.mkdir(parents=True, exist_ok=True)
                    write_file(folder / f"{name}@{level}.csv", ["a"], np.array([0]), np.array([1.0]), 3)
    write_origins(tmp_path, settings)
    write_table("table2", tmp_path, settings, tmp_path)
    row = read_rows(tmp_path / "table2.csv")[0]
    assert (row.value, row.low, row.high) == ("100.0000", "2.5000", "100.0000")
    assert "With one seed" in (tmp_path / "table2.md").read_text()

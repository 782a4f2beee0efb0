"""Labels stand for keys in whatever a reader sees, and change nothing that is computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dfeat.config import Settings
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.places import TRAIN
from dfeat.report.claims.claims import write_claims
from dfeat.report.figures import curves
from dfeat.report.numbers.text import number
from dfeat.report.page.charts import accuracy_charts, gain_charts
from dfeat.report.page.page import _environment
from dfeat.report.tables.controls import write_controls
from dfeat.report.tables.layout import explanation, read_rows
from dfeat.report.tables.published import write_table
from dfeat.report.tables.studies import write_study
from dfeat.section import parse
from dfeat.storage.provenance import as_argument
from tests.conftest import World

from .predictions import GAIN, labelled, small_settings, write_predictions

SETS = {"of_levels": {"root": "x", "levels": [0, 40]}, "my_set": {"root": "y"}}
LABELS = {"cutmix": "Mixed (mine)", "my_net": "Net & net", "sd_features": "Features"}


def a_run() -> Settings:
    """A run whose keys all have an underscore or a label of their own."""
    plain = {
        "data": {"evaluation": SETS},
        "training": {
            "methods": ["none", "black_out", "cutmix", "sd_features"],
            "backbones": {"my_net": {"name": "convnext_tiny"}, "convnext": None, "swin": None},
            "seeds": [0, 1],
        },
    }
    return parse(Settings, plain)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "evaluation"
    write_predictions(folder, a_run(), classes=5, gain=GAIN)
    return folder


def test_defaults_are_the_papers_names_and_readable_keys() -> None:
    labels = Settings().labels
    assert [labels.set(name) for name in ("imagenet_val", "dfeat_real", "my_set")] == [
        "ImageNet val",
        "D-Feat",
        "my set",
    ]
    assert [labels.method(name) for name in ("none", "sd_inpaint", "sd_features")] == [
        "None",
        "SD Inpaint",
        "SD Features",
    ]
    assert [labels.backbone(name) for name in ("convnext", "my_vit")] == ["ConvNeXt", "my vit"]
    assert labels.row("sd_inpaint") == "SD Inpaint"
    assert (labels.place("imagenet_val", 40), labels.place("dfeat_real", 0)) == ("ImageNet val, 40 %", "D-Feat")


@pytest.mark.parametrize(
    ("labels", "sets", "told"),
    [
        ({"cutmiks": "x"}, {}, "labels has one for 'cutmiks', .*did you mean 'cutmix'"),
        ({"cutmix": " "}, {}, "labels.cutmix' is ' '.*one line of 1 to 60 characters"),
        ({"cutmix": "two\nlines"}, {}, "one line"),
        ({"cutmix": "x" * 61}, {}, "1 to 60"),
        ({"cutmix": "None"}, {}, "'none' and 'cutmix' would both be 'None' in tables.*training.labels.cutmix"),
        ({"my_net": "Net"}, {"my_set": "of levels"}, "'of_levels' and 'my_set' would both be.*evaluation.my_set.label"),
    ],
)
def test_labels_that_name_nothing_or_two_things_are_refused(
    labels: dict[str, str], sets: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        labelled(a_run(), labels, sets)


def test_labels_reach_no_stage_but_the_report() -> None:
    plain, named = (
        Run(one) for one in (a_run(), labelled(a_run(), LABELS, {"my_set": "Photographs"}, ours=["cutmix"]))
    )
    for name in (TRAIN, *SETS):
        assert named.index_settings(name) == plain.index_settings(name)
    for stage in ("pixels", "parts", "inpaint", "latents", "features", "evaluate", "judge"):
        assert named.stage("", stage) == plain.stage("", stage)
    for method in a_run().training.methods:
        assert named.stage("", "train", "my_net", method) == plain.stage("", "train", "my_net", method)
    assert named.stage("", "pretrained", "my_net") == plain.stage("", "pretrained", "my_net")
    written = as_argument(a_run())
    assert '"labels":{' not in written and '"label":' not in written and '"ours"' not in written
    assert "Photographs" in as_argument(named.settings)


def test_an_index_with_another_label_is_that_of_the_set(world: World) -> None:
    from dfeat.doctor.sets import look_at_index

    chosen = world.settings.data.evaluation["dfeat_real"]
    folder = world.root / "data" / "dfeat_real"
    assert look_at_index("dfeat_real", chosen.model_copy(update={"label": "Photographs"}), folder) == look_at_index(
        "dfeat_real", chosen, folder
    )


def test_readers_see_labels_and_machines_keys(evaluation: Path, tmp_path: Path) -> None:
    settings = labelled(a_run(), LABELS, {"my_set": "My photographs"})
    for name in ("table1", "table2"):
        write_table(name, evaluation, settings, tmp_path)  # type: ignore[arg-type]
    write_controls(evaluation, settings, tmp_path)
    write_study("calibration", evaluation.parent, settings, tmp_path)
    write_claims(evaluation, settings, tmp_path)
    for path in (*tmp_path.glob("*.md"), *tmp_path.glob("*.tex")):
        text = path.read_text()
        assert not re.search(r"\\_|of_levels|my_set|my_net|\bcutmix\b|Ours", text), path
    read = "".join(path.read_text() for path in tmp_path.glob("*.md"))
    assert all(label in read for label in ("Mixed (mine)", "Net &amp; net", "of levels", "My photographs", "Features"))
    assert {(row.set, row.backbone) for row in read_rows(tmp_path / "table2.csv")} == {("my_set", "my_net")}
    rows = [row for name in ("table1", "table2") for row in read_rows(tmp_path / f"{name}.csv")]
    charts = [*accuracy_charts(_environment(autoescape=False), rows, settings.labels)]
    charts += gain_charts(_environment(autoescape=False), rows, settings.labels)
    assert "my_" not in str(charts) and "Mixed (mine)" in str(charts) and "My photographs" in str(charts)


def test_figures_have_labels(evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save_with_note", lambda figure, *_: drawn.append(figure))
    settings = labelled(a_run(), LABELS, {"my_set": "My photographs"})
    curves.accuracy(evaluation, settings, tmp_path)
    curves.gain(evaluation, settings, tmp_path)
    text = " ".join(one.get_text() for figure in drawn for one in figure.findobj(Text))  # type: ignore[union-attr]
    assert "my_" not in text and "of_" not in text and "Ours" not in text
    assert all(label in text for label in ("Mixed (mine)", "Net & net", "My photographs", "of levels"))


def test_ours_are_whose_the_settings_say(evaluation: Path, tmp_path: Path) -> None:
    def compared(ours: list[str]) -> tuple[dict[str, str], str]:
        write_table("table1", evaluation, labelled(a_run(), LABELS, ours=ours), tmp_path)
        rows = read_rows(tmp_path / "table1.csv")
        return {row.method: row.baseline for row in rows if row.baseline}, (tmp_path / "table1.md").read_text()

    found, text = compared(["cutmix"])
    assert set(found) == {"cutmix"} and found["cutmix"] != "cutmix"
    assert "| Ours: Mixed (mine) |" in text and "★: Ours: Mixed (mine) better" in text and "Ours: Features" not in text
    found, text = compared([])
    assert not found and "★" not in text and "Ours" not in text
    with pytest.raises(UserError, match="'none', which all methods are compared with"):
        compared(["none"])


def test_a_few_images_tell_nothing_and_the_text_says_so(tmp_path: Path) -> None:
    settings = small_settings()
    write_predictions(tmp_path, settings, classes=3, images=2)
    write_table("table2", tmp_path, settings, tmp_path)
    rows = read_rows(tmp_path / "table2.csv")
    text = explanation(rows, 0.95, settings.labels)
    assert re.search(
        r"On real, n = 6 is too small to tell methods apart: the intervals are \d\d to \d+ points wide", text
    )
    assert "80 % power" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (4.567, "4.57"),
        (99.96, "100"),
        (999.6, "1,000"),
        (19680.4, "19,680"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert number(value) == shown
    assert "e" not in number(1e-9 * (1 + value))

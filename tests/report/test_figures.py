"""Figures are drawn for any run, and the same inputs give the same bytes."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from dfeat.config import Settings
from dfeat.data.index import read_index
from dfeat.errors import UserError
from dfeat.report.catalogue import find
from dfeat.report.figures import curves, examples, maps, style
from dfeat.section import parse
from tests.conftest import World

from .predictions import labelled, small_settings, write_predictions

TITLES = ["car", "tench, Tinca tinca", "great white shark <script>$x_1$ & man-eater, Carcharodon carcharias, and more"]


def pictures(side: int = 48) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(title, *rng.integers(0, 255, (3, side, side, 3), np.uint8)) for title in TITLES]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "evaluation"
    write_predictions(folder, small_settings())
    return folder


def draw_all(evaluation: Path, settings: Settings, out: Path) -> None:
    examples.figure2(pictures(), settings, out)
    examples.figure3([(t, a) for t, a, *_ in pictures()], [(t, a[:32]) for t, a, *_ in pictures()[:2]], settings, out)
    curves.accuracy(evaluation, settings, out)
    curves.gain(evaluation, settings, out)


def test_every_figure_is_the_same_bytes_twice_whatever_the_users_style(evaluation: Path, tmp_path: Path) -> None:
    draw_all(evaluation, small_settings(), tmp_path / "a")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 33, "svg.fonttype": "none"}):
        draw_all(evaluation, small_settings(), tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_file())
    assert names == sorted(
        f"{name}.{kind}" for name in ("figure2", "figure3", "accuracy", "gain") for kind in ("png", "pdf", "svg")
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        if name.endswith("svg"):
            ElementTree.fromstring((tmp_path / "a" / name).read_text())
            assert "dc:date" not in (tmp_path / "a" / name).read_text()
        elif name.endswith("png"):
            with Image.open(tmp_path / "a" / name) as image:
                assert image.width / 300 == pytest.approx(width_of(name), abs=0.01) and "Software" not in image.info
        else:
            check_for_latex(tmp_path / "a" / name, width_of(name))


def width_of(name: str) -> float:
    """Three pictures side by side fit a column; two panels take the width of the text."""
    return style.COLUMN if name.startswith("figure") else style.TEXT


def check_for_latex(path: Path, width: float) -> None:
    """A PDF of this width in inches, undated, with every font embedded as TrueType, and no text below 6 pt."""
    content = path.read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+)", content)
    assert float(box) / 72 == pytest.approx(width, abs=0.01)
    assert b"CreationDate" not in content and b"/Type3" not in content
    assert content.count(b"/FontFile2") == content.count(b"/Type /FontDescriptor") > 0
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    drawing = b"".join(zlib.decompress(one) for one in streams if one[:1] == b"x")
    sizes = [float(size) for size in re.findall(rb"/F[0-9][^ ]* ([0-9.]+) Tf", drawing)]
    assert min(sizes) >= 6


@pytest.mark.parametrize("columns", [1, 3, 4, 8])
def test_pictures_fill_a_column_or_the_text(tmp_path: Path, columns: int) -> None:
    style.picture_grid(
        "grid", ["Row"], [[pictures()[0][1]] * columns], [["a title"] * columns], small_settings(), tmp_path
    )
    check_for_latex(tmp_path / "grid.pdf", style.COLUMN if columns <= 3 else style.TEXT)


def test_one_panel_is_a_column_wide(evaluation: Path, tmp_path: Path) -> None:
    plain = small_settings().model_dump(mode="json")
    del plain["training"]["backbones"]["convnext"]
    curves.accuracy(evaluation, parse(Settings, plain), tmp_path)
    check_for_latex(tmp_path / "accuracy.pdf", style.COLUMN)


def test_titles_of_many_long_labels_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(maps, "save_with_note", lambda figure, *_: drawn.append(figure))
    write_ablation_table(tmp_path, {"training.drop_path": ["0.0", "0.1"], "training.fusion": ["concat", "sum"]})
    names = {"sd_features": "Features of a frozen model, fused by a module", "swin": "Swin, base, patch 4, window 7"}
    maps.ablation("2", tmp_path, labelled(small_settings(), names), tmp_path)
    (figure,) = drawn
    figure.draw_without_rendering()
    titles = [one for one in figure.findobj(Text) if one.get_text() and one.get_fontweight() == "bold"]  # type: ignore[union-attr]
    boxes = [one.get_window_extent() for one in titles]
    assert len(boxes) == 2 and all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def write_efficiency(folder: Path) -> None:
    lines = ["method,backbone,quantity,prepare,train,test,level,gain,gain_low,gain_high"]
    for method, gain in (("none", ""), ("cutmix", "1.5"), ("sd_features", "-2.5")):
        for backbone in ("convnext", "swin"):
            for quantity, train in (("seconds", "0.03"), ("flops", "2e9"), ("bytes", "900")):
                level, low, high = ("80", "-3.5", "2.5") if gain else ("", "", "")
                lines.append(f"{method},{backbone},{quantity},0.5,{train},0.2,{level},{gain},{low},{high}")
    folder.mkdir()
    (folder / "efficiency.csv").write_text("\n".join(lines) + "\n")


def write_part_cost(folder: Path) -> None:
    lines = ["set,category,part,method,backbone,n,seeds,whole,hidden,cost,cost_low,cost_high"]
    for number, part in enumerate(["Quadruped Head", "Quadruped Body", "Fish Fin"]):
        for method in ("none", "cutmix", "sd_features"):
            for backbone in ("convnext", "swin") if part != "Fish Fin" else ("swin",):
                cost = 7.125 * number - len(method) / 3
                lines.append(
                    f"parts,{number},{part},{method},{backbone},20,1,80,{80 - cost},{cost},{cost - 2},{cost + 2}"
                )
    (folder / "part_cost.csv").write_text("\n".join(lines) + "\n")


def write_ablation_table(folder: Path, keys: dict[str, list[str]]) -> None:
    points = list(itertools.product(*keys.values()))
    lines = [",".join(["point", *keys, "set", "level", "method", "backbone", "metric", "value"])]
    for number, point in enumerate(points):
        for level in (0, 80):
            for backbone in ("convnext", "swin"):
                lines.append(
                    f"{number},{','.join(point)},simulated,{level},sd_features,{backbone},top1,{60 + number - level / 2}"
                )
    (folder / f"ablation_{len(keys)}.csv").write_text("\n".join(lines) + "\n")


USERS = {
    "a notebook's backend": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "a user's settings and language": {"HOME": "{home}", "LC_ALL": "xx_YY", "PYTHONHASHSEED": "7"},
    "settings that are not text": {"MATPLOTLIBRC": "{broken}", "MPLBACKEND": "nonsense", "TZ": "Asia/Tokyo"},
}
DRAW = """\
import sys
from pathlib import Path
from dfeat.report.figures import curves
from tests.report.predictions import small_settings
curves.accuracy(Path(sys.argv[1]), small_settings(), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("user", USERS)
def test_figures_do_not_depend_on_whose_process_draws_them(evaluation: Path, tmp_path: Path, user: str) -> None:
    """matplotlib reads its user's backend, settings and styles at its import, before any figure could set its own."""
    curves.accuracy(evaluation, small_settings(), tmp_path / "a")
    broken, home = tmp_path / "matplotlibrc", tmp_path / "home"
    own = home / ".config" / "matplotlib"
    (own / "stylelib").mkdir(parents=True)
    (own / "matplotlibrc").write_text("backend: TkAgg\naxes.formatter.use_locale: True\nfont.size: 40\n")
    for path in (broken, own / "stylelib" / "mine.mplstyle"):
        path.write_bytes(b"\xff\xfe\x00")
    told = {name: value.format(home=home, broken=broken) for name, value in USERS[user].items()}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **told}
    folder = tmp_path if user == "a notebook's backend" else home  # the first has the broken file beside it
    command = [sys.executable, "-c", DRAW, str(evaluation), str(tmp_path / "b")]
    drawn = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    for kind in ("png", "pdf", "svg"):
        first, second = (tmp_path / name / f"accuracy.{kind}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_where_the_images_are_gone_a_figure_shows_what_the_cache_has(world: World, tmp_path: Path) -> None:
    index = read_index(world.root / "data" / "dfeat_real")
    record, moved = index.records[0], replace(index, root=tmp_path / "gone")
    there, gone = examples.picture_of(record, index), examples.picture_of(record, moved)
    assert there.shape == gone.shape == (record.height, record.width, 3)
    assert np.abs(there.astype(int) - gone).mean() < 20
    with pytest.raises(UserError, match="gone is missing"):
        examples.picture_of(record, replace(moved, folder=tmp_path, _source=None))


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_grids_of_one_two_or_three_settings_are_drawn(tmp_path: Path, keys: int) -> None:
    grid = {"diffusion.features.timestep": ["25", "261"], "blocks": ["mid", "up.1"], "training.fusion": ["concat"]}
    write_ablation_table(tmp_path, dict(list(grid.items())[:keys]))
    for name in ("a", "b"):
        maps.ablation(str(keys), tmp_path, small_settings(), tmp_path / name)
    for kind in ("png", "svg"):
        first, second = (tmp_path / name / f"ablation_{keys}.{kind}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_figures_of_tables_are_the_same_bytes_twice(tmp_path: Path) -> None:
    write_efficiency(tmp_path / "report")
    write_part_cost(tmp_path / "report")
    for name in ("a", "b"):
        with mpl.rc_context({"font.size": 7 + ord(name) % 5, "image.cmap": "jet"}):
            maps.cost(tmp_path / "report", small_settings(), tmp_path / name)
            maps.part_cost(tmp_path / "report", small_settings(), tmp_path / name)
    for file in ("cost.png", "cost.svg", "part_cost.png", "part_cost.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_cost_figure_without_a_gain_is_refused(tmp_path: Path) -> None:
    write_efficiency(tmp_path / "report")
    path = tmp_path / "report" / "efficiency.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    with pytest.raises(UserError, match="no gain over None"):
        maps.cost(tmp_path / "report", small_settings(), tmp_path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no rows with method, backbone"):
        maps.cost(tmp_path / "report", small_settings(), tmp_path)
    assert not (tmp_path / "cost.png").exists()


def test_figures_are_found_by_name(evaluation: Path, tmp_path: Path) -> None:
    find("figure", "accuracy", small_settings()).make(evaluation.parent, small_settings(""), tmp_path)
    assert (tmp_path / "accuracy.png").is_file()
    with pytest.raises(UserError, match="no figure 'acuracy'; did you mean 'accuracy'"):
        find("figure", "acuracy", small_settings())


def test_a_figure_of_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="figure2 got no images"):
        examples.figure2([], small_settings(), tmp_path)

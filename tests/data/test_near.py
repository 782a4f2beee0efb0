"""Near-duplicates: re-encoded, resized, mirrored and slightly edited copies are found, other photographs are not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dfeat.data.index import read_index
from dfeat.data.near import as_csv, near
from dfeat.errors import UserError
from tests.conftest import World
from tests.test_cli import run as dfeat

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "larger": lambda image: image.resize((3 * image.width, 3 * image.height), Image.Resampling.BICUBIC),
    "squeezed": lambda image: image.resize((image.width, image.height // 2), Image.Resampling.LANCZOS),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_found(way: str, world: World, tmp_path: Path) -> None:
    index = read_index(world.train)
    record = index.records[5]
    picture = Image.fromarray(index.load(record))
    COPIES[way](picture).save(tmp_path / "mine.png" if way == "same" else tmp_path / "mine.jpg")
    first = min(near(tmp_path, [index], 8), key=lambda pair: pair.distance)
    assert (first.set, first.key, first.file, first.mirrored) == ("train", record.key, record.file, way == "mirrored")
    assert first.distance == 0 if way == "same" else first.distance <= 8


def test_photographs_do_not_resemble_one_another(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """100 photographs of cars against themselves: at 8 bits almost no pair but each with itself."""
    from dfeat.data.indexing import build_train_index
    from tests.data.conftest import train_set

    index = build_train_index(train_set(shared_data("carparts/testset"), wnid="n02958343"), tmp_path / "index")
    pairs = near(shared_data("carparts/testset/JPEGImages"), [index], 8, threads=2)
    itself = [pair for pair in pairs if Path(pair.photograph).stem == pair.key]
    assert len(itself) == 100 and all(pair.distance == 0 for pair in itself)
    assert len(pairs) - len(itself) <= 10


def test_the_table_and_the_command(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    index = read_index(world.train)
    (tmp_path / "mine").mkdir()
    Image.fromarray(index.load(index.records[0])).save(tmp_path / "mine/a.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine/b.png")
    (tmp_path / "mine/broken.jpg").write_bytes(b"no image")
    given = (
        "near",
        str(tmp_path / "mine"),
        "--index",
        str(world.train),
        "--distance",
        "2",
        "--out",
        str(tmp_path / "near.csv"),
    )
    assert dfeat(monkeypatch, *given) == 0
    told = capsys.readouterr()
    assert "leaves out broken.jpg" in told.err and told.out.endswith("1 photographs resemble an image of the run\n")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "near.csv").read_text())))
    assert {row["photograph"] for row in rows} == {"a.png"} and rows[0]["distance"] == "0"
    assert as_csv([]) == "photograph,set,key,file,distance,mirrored\n"


def test_a_folder_without_images_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image; give the folder"):
        near(tmp_path, [read_index(world.train)], 8)

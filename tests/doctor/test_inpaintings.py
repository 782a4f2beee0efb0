"""The doctor's line on what inpainting left behind: there where it is bad, and only there."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfeat.config import Settings, stage_settings
from dfeat.data.index import read_index
from dfeat.data.pixels import cache_inpainted
from dfeat.doctor import examine
from dfeat.doctor.text import as_plain, as_text
from dfeat.methods.paint import black_out
from dfeat.methods.smooth import smooth_fill
from dfeat.occlusion.parts import read_parts
from dfeat.places import TRAIN, Place
from dfeat.report.tables.inpaint_quality import write_inpaint_quality
from dfeat.section import parse
from dfeat.storage.atomic import write_text
from dfeat.storage.shards import Shard, write_shard
from tests.conftest import World

Fill = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]]


def outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with its hidden pixels white, which is not dark, and so a large step at the mask's edge."""
    return np.where(mask[..., None], np.uint8(255), image)


@pytest.fixture
def filled(
    world: World, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """A function that fills the small world's images, makes their table, and returns the settings of that run."""
    monkeypatch.chdir(tmp_path)

    def fill(how: Fill, **inpaint: str) -> Settings:
        plain = world.settings.model_dump(mode="json")
        plain["training"]["backbones"]["convnext"]["weights"] = str(tiny_weights)
        plain["diffusion"]["inpaint"] |= inpaint
        settings, place = parse(Settings, plain), Place(Path("results/tiny"))
        shutil.copytree(world.root / "data", place.run / "data")
        place.parts().parent.mkdir()
        shutil.copyfile(world.parts, place.parts())
        index, parts = read_index(place.data(TRAIN)), read_parts(place.parts())
        pictures = {}
        for record in index.records:
            picture = io.BytesIO()
            Image.fromarray(how(index.load(record), parts.mask(record.key))).save(picture, "PNG")
            pictures[record.key] = picture.getvalue()
        stage, seeds = stage_settings(settings, "inpaint"), {"seed": np.zeros(len(pictures), np.int64)}
        shard = place.shard("inpaint", TRAIN, 0, 1)
        claims = {"index": index.digest, "parts": parts.digest, "number": "0/1"}
        rows = Shard("inpaint", 1, stage, "", list(pictures), list(pictures.values()), seeds, **claims)
        write_shard(shard, rows)
        cache_inpainted([shard], stage_settings(settings, "pixels"), place.inpainted())
        write_inpaint_quality(place.run, settings, place.report)
        return settings

    return fill


def test_good_inpaintings_have_figures_and_no_line(filled: Callable[..., Settings]) -> None:
    settings = filled(smooth_fill)
    report = examine(settings)
    assert report.faults == [] and report.inpaintings and report.inpaintings.images == 40
    assert "Inpaintings" not in as_text(report, settings)
    assert 0 <= as_plain(report, settings)["inpaintings"]["became_dark"] < 1


@pytest.mark.parametrize(
    ("fill", "inpaint", "said", "remedy"),
    [
        (black_out, {"mask_cells": "nearest"}, "(dark are 100.0 %, in the originals", "mask_cells to any"),
        (black_out, {"hidden": "black"}, "(dark are 100.0 %, in the originals", ".hidden to smooth"),
        (outlined, {}, "luminance steps by", "diffusion.inpaint_model"),
    ],
)
def test_bad_inpaintings_have_a_line_with_figures_and_a_remedy(
    filled: Callable[..., Settings], fill: Fill, inpaint: dict[str, Any], said: str, remedy: str
) -> None:
    settings = filled(fill, **inpaint)
    report = examine(settings)
    assert report.faults == [] and report.inpaintings
    (note,) = report.inpaintings.notes
    assert said in note and remedy in note and "inpaint_quality.md" in note
    assert ("darkened" in note) == (fill is black_out)
    assert f"Inpaintings note: {note}" in " ".join(as_text(report, settings).split())


def test_an_image_that_became_brighter_does_not_offset_residue_in_another(filled: Callable[..., Settings]) -> None:
    settings = filled(smooth_fill)
    table = Path("results/tiny/report/inpaint_quality.csv")
    lines = ["key,class,hidden,dark_original,dark,step_original,step,difference"]
    lines += [",all images,200,10,2,9,9,9", "a,x,100,0,4,9,9,9", "b,x,100,20,0,9,9,9"]
    write_text(table, "\n".join(lines))
    report = examine(settings).inpaintings
    assert report and report.became_dark == 2
    assert "darkened 2.0 % of the hidden pixels (dark are 2.0 %, in the originals 10.0 %)" in report.notes[0]


def test_there_is_no_line_before_the_table_or_for_other_settings(filled: Callable[..., Settings]) -> None:
    settings = filled(black_out)
    table = Path("results/tiny/report/inpaint_quality.csv")
    changed = settings.model_copy(update={"diffusion": settings.diffusion.model_copy(update={"resolution": 128})})
    assert examine(changed).inpaintings is None
    table.write_text(table.read_text() + "\n")
    assert any("inpaint_quality.csv cannot be used" in fault for fault in examine(settings).faults)
    table.unlink()
    report = examine(settings)
    assert report.inpaintings is None and report.faults == []

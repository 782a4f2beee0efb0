"""The cards say what was made from what, by counts and digests read from the artifacts, and under which licences."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from dfeat.config import Settings
from dfeat.config.files import lay_over, read_settings
from dfeat.diffusion.settings import ModelSource
from dfeat.report.page import write_report
from dfeat.report.page.cards import licence_of, model_licence
from dfeat.section import parse
from dfeat.storage.provenance import file_digest
from dfeat.storage.shards import Shard, write_shard

from .predictions import small_settings
from .test_report import EVIL, write_run

MODEL = "a1" * 32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_run(run, small_settings(note=EVIL))
    index = run / "data" / "train" / "index.csv"
    index.write_text("key,file,label,wnid,width,height\n")
    (index.parent / "source.json").write_text('{"images": 41, "classes": 7, "problems": 3}')
    for number, rows in enumerate((3, 2)):
        keys = [f"{number}_{row}" for row in range(rows)]
        shard = Shard("features", 1, {}, MODEL, keys, np.ones((rows, 4), np.float16))
        write_shard(run / f"diffusion/features/train/{number}-of-2.h5", shard)
    write_report(run, small_settings(note=EVIL), run / "report" / "index.html")
    return run


def test_the_data_card_counts_what_is_there(run: Path) -> None:
    card = (run / "report" / "data_card.md").read_text()
    digest = file_digest(run / "data" / "train" / "index.csv")
    assert f"| training images (`train`) | data/PartImageNet | 41 | 7 | 3 | `{digest}` |" in card
    assert f"| features | train | 2 | 5 | `{MODEL}` |" in card
    assert "ImageNet's terms of access" in card and "CreativeML Open RAIL++-M" in card and "manifest.csv" in card


def test_the_data_card_counts_the_images_that_are_held_out(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    described = '{"images": 41, "classes": 7, "problems": 3, "held_out": 14}'
    (tmp_path / "run/data/train/source.json").write_text(described)
    (tmp_path / "run/data/holdout").mkdir()
    index = tmp_path / "run/data/holdout/index.csv"
    index.write_text("key,file,label,wnid,width,height\n")
    settings = small_settings()
    data = settings.data.model_copy(update={"train": settings.data.train.model_copy(update={"holdout": 2})})
    write_report(tmp_path / "run", settings.model_copy(update={"data": data}), tmp_path / "index.html")
    card = (tmp_path / "data_card.md").read_text()
    assert "Held out: 14 further images of the training set, 2 of each class" in card and file_digest(index) in card
    assert "Held out" not in (run / "report" / "data_card.md").read_text()


def test_the_data_card_counts_what_twins_hide(run: Path, tmp_path: Path) -> None:
    """Of 41 images two show nothing of their object, two show a part of it, and one is its own twin."""
    areas = {"a": (4, 4), "b": (3, 10), "c": (60, 100), "d": (6, 6)}
    rows = {key: {"k": 1, "share": 0.25, "area": area, "object_area": whole} for key, (area, whole) in areas.items()}
    content = {"categories": {}, "images": rows, "own_twin": {"e": rows["a"]}}
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/occlusion").mkdir()
    (tmp_path / "run/occlusion/parts.json").write_text(json.dumps(content))
    settings = small_settings()
    least = settings.occlusion.model_copy(update={"min_visible": 0.05})
    write_report(tmp_path / "run", settings.model_copy(update={"occlusion": least}), tmp_path / "index.html")
    card = (tmp_path / "data_card.md").read_text()
    assert "a twin hides 72.5 % on average, quartiles 52.5, 80.0, 100.0 %." in card
    assert "| Twins | 0 | 0 | 0 | 1 | 0 | 0 | 1 | 0 | 0 | 0 | 2 |" in card
    assert "Hidden whole: 2 twins, 50.00 %" in card
    assert "Without parts: 36 images" in card
    assert "Left their own twin by `occlusion.min_visible` (0.05): 1 images" in card


def test_the_model_card_names_every_model_and_its_accuracy(run: Path) -> None:
    card = (run / "report" / "model_card.md").read_text()
    assert f"| None | ConvNeXt | 0 | 2 | 8 | 3 | `{'f' * 64}` |" in card
    assert card.count("| simulated | 80 % |") == card.count("| simulated | 0 % |") == 6
    assert "timm's convnext\\_base.fb\\_in1k" in card


def test_the_model_card_shows_how_a_model_is_used(run: Path) -> None:
    card = (run / "report" / "model_card.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(block, "model_card.md", "exec")
    (folder,) = re.findall(r'Classifier\.from_pretrained\("results/synthetic/(.*?)"\)', block)
    assert (run / folder / "run.json").is_file() and f"`dfeat predict results/synthetic/{folder} photographs/`" in card
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "dfeat"


def test_a_run_of_what_comes_with_the_program_has_its_licence() -> None:
    root = Path(__file__).parents[2]
    own = {"training": {"backbones": {"swin": {"name": "swin_tiny_patch4_window7_224", "weights": "mine.safetensors"}}}}
    demo = read_settings([root / "config.yaml", root / "config/demo.yaml"])
    assert licence_of(demo) == "apache-2.0" and licence_of(read_settings([root / "config.yaml"])) == "other"
    plain = demo.model_dump(mode="json")
    lay_over(plain, own)
    assert licence_of(parse(Settings, plain)) == "other"


@pytest.mark.parametrize("name", ["data_card.md", "model_card.md"])
def test_a_card_opens_with_yaml_and_shows_text_literally(run: Path, name: str) -> None:
    from markdown_it import MarkdownIt

    card = (run / "report" / name).read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "other"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<script" not in html and "alert('x')" in html


def test_the_licence_of_a_diffusion_model_is_what_its_own_card_states(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: openrail++\nlibrary_name: diffusers\n---\n# Card\n")
    assert model_licence(ModelSource(path=str(tmp_path))).startswith("openrail++, as ")
    assert model_licence(ModelSource(path="demo")).startswith("Apache-2.0")
    assert model_licence(Settings().diffusion.model).startswith("CreativeML Open RAIL++-M")
    assert "not known" in model_licence(ModelSource(path=str(tmp_path / "elsewhere")))


def test_two_diffusion_models_are_told_apart(tmp_path: Path) -> None:
    settings = small_settings()
    apart = settings.diffusion.model_copy(update={"inpaint_model": ModelSource(path="weights/painter")})
    settings = settings.model_copy(update={"diffusion": apart})
    write_run(tmp_path, settings)
    write_report(tmp_path, settings, tmp_path / "report" / "index.html")
    data, model = ((tmp_path / "report" / name).read_text() for name in ("data_card.md", "model_card.md"))
    assert "Diffusion model of the inpainted images: weights/painter" in data
    assert "Diffusion model of the features: " in data
    assert "Diffusion model (SD Inpaint): not known" in model
    assert "Diffusion model (SD Features): " in model

"""Paths of the configuration: `~` and $VARIABLES are filled in where a file is opened, and nowhere written down."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dfeat.config import Settings
from dfeat.costs.measured import speeds_of
from dfeat.data.index import read_index
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.data.settings import EvaluationSet, TrainSet
from dfeat.diffusion.layout import local_files
from dfeat.diffusion.settings import ModelSource
from dfeat.doctor import missing_inputs
from dfeat.errors import UserError
from dfeat.section import LocalPath, parse
from dfeat.training.weights import has_imagenet_head, weights_path

from ..data.conftest import TENCH, coco, encoded, write

TEXTS = ("$STORE/set", "${STORE}/set", "~/set", "$NOTED/set")


@pytest.fixture(params=TEXTS)
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STORE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NOTED", "~")
    return str(request.param)


def test_every_reader_of_a_path_fills_it_in(written: str, tmp_path: Path) -> None:
    """Each setting of a path, by the code that opens it."""
    (tmp_path / "set").mkdir()
    assert Path(LocalPath(written)) == tmp_path / "set"
    assert local_files(ModelSource(path=written)).folder == tmp_path / "set"  # type: ignore[union-attr]
    write(tmp_path, {"set/one.safetensors": "x"})
    single = local_files(ModelSource(path=f"{written}/one.safetensors", config=written))
    assert single and (single.folder, single.single) == (tmp_path / "set", tmp_path / "set/one.safetensors")
    backbones = {"b": {"name": "convnext_base", "weights": f"{written}/one.safetensors"}}
    settings = parse(
        Settings, {"training": {"backbones": backbones}, "resources": {"measured": f"{written}/none.json"}}
    )
    weights = settings.training.backbones["b"].weights
    assert weights and weights_path(weights) == tmp_path / "set/one.safetensors"
    with pytest.raises(UserError, match=f"{tmp_path}/set/none.json"):
        speeds_of(settings)


def test_an_index_records_what_was_written_and_is_read_where_that_leads(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, labels = "ILSVRC2012_val_00000001", f"{os.path.dirname(written)}/labels.txt"  # noqa: PTH120
    write(tmp_path, {f"set/{TENCH}_1.JPEG": encoded(), "set/train.json": coco([f"{TENCH}_1.JPEG"])})
    write(tmp_path, {f"set/val/{name}.JPEG": encoded(), "labels.txt": f"{name}.JPEG {TENCH}\n"})
    build_train_index(TrainSet(root=written), tmp_path / "train")
    flat = EvaluationSet(kind="imagenet", root=f"{written}/val", labels=labels)
    build_evaluation_index("val", flat, tmp_path / "train/classes.json", tmp_path / "val")
    source = json.loads((tmp_path / "val/source.json").read_text())
    assert (source["root"], source["settings"]["root"]) == (f"{written}/val", f"{written}/val")
    assert source["settings"]["labels"] == labels
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").rename(tmp_path / "elsewhere/set")
    for variable in ("STORE", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    index = pickle.loads(pickle.dumps(read_index(tmp_path / "val")))
    assert index.load(index.records[0]).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("path", "what"), [("$NOWHERE/x", r"\$NOWHERE is not set"), ("a/${NOWHERE}/x", r"\$\{NOWHERE\} is not set"),
                       ("$EMPTY/x", r"\$EMPTY is not set"), ("~nobody-of-this-name/x", "no such user")],
)  # fmt: skip
def test_a_variable_that_is_not_set_is_a_sentence(
    path: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are read all the same, so that a finished run can be looked at; a check before a run names each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMPTY", "")
    backbones = {"convnext": {"name": "convnext_base", "weights": path}, "swin": None}
    values = {
        "data": {"train": {"root": path}, "evaluation": {"imagenet_val": {"root": path}, "dfeat_real": None}},
        "diffusion": {"model": {"path": path}},
        "training": {"backbones": backbones},
        "resources": {"measured": path},
    }
    settings = parse(Settings, values)
    assert settings.model_dump(mode="json")["data"]["train"]["root"] == path
    assert not has_imagenet_head(settings.training.backbones["convnext"])
    faults = [fault for fault in missing_inputs(settings) if re.search(what, fault)]
    assert len(faults) == 5
    assert all("export the variable, or write the path out" in fault for fault in faults)


def test_a_name_with_a_dollar_that_is_there_is_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cost$in$total", "~backup", "$(date)"):
        (tmp_path / name).mkdir()
        assert Path(LocalPath(name)).is_dir()


def _fields(section: type[BaseModel], key: str = "") -> Iterator[tuple[str, Any, str]]:
    """(key, type, description) of each setting, those in mappings and lists of sections included."""
    for name, field in section.model_fields.items():
        yield f"{key}{name}", field.annotation, field.description or ""
        waiting = [field.annotation]
        while waiting:
            one = waiting.pop()
            waiting += get_args(one)
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from _fields(one, f"{key}{name}.")


def test_each_setting_that_may_be_a_path_has_the_type_of_one() -> None:
    found = {key: kind for key, kind, _ in _fields(Settings) if LocalPath in (kind, *get_args(kind))}
    assert len(found) == 11
    plain = [(key, text) for key, kind, text in _fields(Settings) if str in (kind, *get_args(kind))]
    assert plain
    named = [key for key, text in plain if re.search(r"\b(?:folder|file|path)\b", text)]
    assert named == ["pins"]  # commits by a model's name, which is one of the Hub

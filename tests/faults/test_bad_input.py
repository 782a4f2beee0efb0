"""Any input has a defined outcome: it is taken, or refused in one sentence; no traceback, bounded memory and time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dfeat.config import Settings
from dfeat.config.files import lay_over
from dfeat.data.coco import Part, clean_part
from dfeat.data.index import read_index
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.data.pixels import PixelCache, cache_index
from dfeat.data.records import Problems
from dfeat.data.settings import EvaluationSet, PixelsStage, TrainSet
from dfeat.data.sources import Source
from dfeat.diffusion.settings import FeaturesStage, InpaintStage, LatentsStage
from dfeat.errors import UserError
from dfeat.evaluation.settings import EvaluateStage, EvaluationSettings, PretrainedStage
from dfeat.occlusion.settings import PartsStage
from dfeat.section import Section, parse
from dfeat.storage.atomic import write_text
from dfeat.storage.records import read_json
from dfeat.training.settings import TrainStage
from tests.data.conftest import TENCH, coco, encoded, problems_of, train_set, write

from .conftest import Tried

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=12),
    st.sampled_from([f"{TENCH}_1.JPEG", "../up.JPEG", "/etc/passwd", "\ud800", "\x00", "1e999", "0"]),
)  # fmt: skip
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)  # fmt: skip
coordinates = st.floats() | st.integers(-5, 40) | st.sampled_from([1e9, -1e9, float("nan"), 1e308])
polygons = st.lists(st.lists(coordinates, max_size=12) | anything, max_size=4)
rles = st.fixed_dictionaries({}, optional={
    "size": st.lists(st.integers(-3, 10**6) | scalars, max_size=3) | st.just([16, 24]),
    "counts": st.lists(st.integers(-3, 400) | scalars, max_size=8) | st.text(max_size=20) | st.binary(max_size=8).map(repr),
})  # fmt: skip
categories = st.fixed_dictionaries({}, optional={"id": st.integers(0, 3) | anything, "name": anything, "supercategory": anything})  # fmt: skip
image_records = st.fixed_dictionaries({}, optional={
    "id": st.integers(0, 3) | anything, "file_name": st.just(f"{TENCH}_1.JPEG") | anything,
    "width": st.just(24) | anything, "height": st.just(16) | anything,
})  # fmt: skip
annotation_records = st.fixed_dictionaries({}, optional={
    "id": st.integers(0, 3) | anything, "image_id": st.integers(0, 3) | anything, "category_id": st.integers(0, 3) | anything,
    "segmentation": polygons | rles | anything, "area": anything, "bbox": anything, "iscrowd": anything,
})  # fmt: skip
documents = anything | st.fixed_dictionaries({
    "images": st.lists(image_records | anything, max_size=4) | anything,
    "annotations": st.lists(annotation_records | anything, max_size=5) | anything,
    "categories": st.lists(categories | anything, max_size=3) | anything,
})  # fmt: skip


@pytest.fixture(scope="module")
def one_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("set"), {f"{TENCH}_1.JPEG": encoded()})


def check_document(root: Path, document: Any) -> None:
    """A set with this annotation file is indexed, with a row for each fault, or refused in one sentence."""
    (root / "train.json").write_text(json.dumps(document))
    with tempfile.TemporaryDirectory() as out:
        try:
            index = build_train_index(train_set(root), Path(out))
        except UserError as error:
            assert "\n" not in str(error)
            return
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(None):
            annotations = COCO(str(index.annotations_path()))
        assert all(annotations.annToMask(a).any() for a in annotations.anns.values())
        assert all(read_index(Path(out)).load(record).shape == (16, 24, 3) for record in index.records)


@QUICK
@given(document=documents)
def test_any_annotation_document_is_an_index_or_a_sentence(document: Any, one_image: Path) -> None:
    check_document(one_image, document)


@QUICK
@given(polygon=polygons | rles | anything, width=st.integers(1, 40), height=st.integers(1, 40))
def test_any_outline_is_a_part_inside_its_image_or_a_row(polygon: Any, width: int, height: int) -> None:
    problems = Problems("train")
    record = {"category_id": 1, "segmentation": polygon, "area": 1.0, "bbox": [0, 0, 1, 1]}
    part = clean_part(record, width, height, {1: 1}, problems, "image")
    assert isinstance(part, Part) or problems.rows


def leaves(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of the settings; a name stands for the keys of a mapping."""
    for name, field in model.model_fields.items():
        inner = [
            a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(a, "model_fields")
        ]
        mapping = getattr(field.annotation, "__origin__", None) is dict
        yield (*at, name)
        for section in inner:
            yield from leaves(section, (*at, name, "mine") if mapping else (*at, name))


KEYS = sorted(set(leaves(Settings)))
STAGES: tuple[type[Section], ...] = (
    PartsStage, PixelsStage, InpaintStage, LatentsStage, FeaturesStage, TrainStage, EvaluateStage, PretrainedStage,
    EvaluationSettings, TrainSet, EvaluationSet,
)  # fmt: skip
NEEDED: dict[str, Any] = {"backbone": {"name": "convnext_tiny"}, "root": "x"}
"""What some of them must be given."""
OF_STAGES = [(stage, path) for stage in STAGES for path in sorted(set(leaves(stage)))]
BOUNDS = {"batch_size": 1, "views": 1, "image_size": 16, "resolution": 16, "short_side": 8}
ODD: list[Any] = [
    None, True, "x", "", "\x00", "../..", -1, 0, 10**30, 1e308, float("nan"), float("inf"), -float("inf"), [], [[]], ["x"],
    {}, {"x": 1}, {"": {}}, [1, 1], "1", b"x",
]  # fmt: skip


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_any_value_of_any_setting_is_taken_or_a_sentence_that_names_it(path: tuple[str, ...]) -> None:
    check_values(Settings, path)


@pytest.mark.parametrize(("stage", "path"), OF_STAGES, ids=lambda part: part if isinstance(part, str) else None)
def test_any_value_of_what_a_verb_is_given_is_taken_or_a_sentence(stage: type[Section], path: tuple[str, ...]) -> None:
    check_values(stage, path)


def check_values(model: type[Section], path: tuple[str, ...]) -> None:
    """Each odd value of a key is taken, or refused in a sentence that names the key; a key that is none is refused."""
    refused = 0
    needed = {key: value for key, value in NEEDED.items() if key in model.model_fields}

    def given(path: tuple[str, ...], value: Any) -> dict[str, Any]:
        mapping = deepcopy(needed)
        lay_over(mapping, nested(path, value))
        return mapping

    for value in ODD:
        try:
            taken = parse(model, given(path, value))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
            assert any(key in str(error) for key in path[-2:]), str(error)
        else:
            json.dumps(taken.model_dump(mode="json"), allow_nan=False)
            for name, least in BOUNDS.items():
                if path[-1] == name:
                    assert getattr(taken, name, least) >= least
    assert refused >= len(ODD) // 3
    with pytest.raises(UserError, match="unknown key"):
        parse(model, given((*path[:-1], "no-such-key"), 1))


def test_settings_that_are_no_mapping_are_a_sentence(tried: Tried) -> None:
    for value in (None, [], "", "[]", "{", "1", 1, "\x00", "nul", "[" * 100_000, "[" + "9" * 5000 + "]", "{\n"):
        with pytest.raises(UserError) as error:
            parse(Settings, value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
    tried(
        "wrong value of a setting",
        (len(KEYS) + len(OF_STAGES)) * (len(ODD) + 1) + 10,
        "taken, or one sentence that names the key",
    )


NAMES = ("with space", "ünïcode 日本", "new\nline", "quo'te", 'quo"te', "semi;colon", "$(touch pwned)", "`touch pwned`",
         "-rf", "--out", "star*", "[x]", "tab\t", "%s{0}", "#", "~", "a" * 200, "\u202eright-to-left")  # fmt: skip


def test_folders_and_files_of_any_name_are_read(tmp_path: Path, tried: Tried) -> None:
    write_text(tmp_path / "classes.json", json.dumps([{"wnid": TENCH, "name": "tench"}]))
    root = tmp_path / "odd;$(touch pwned)\n'\"-root"
    for number, name in enumerate(NAMES):
        write(root, {f"{name}/{TENCH}/{name}-{number}.jpg": encoded()})
    built = build_evaluation_index("mine", EvaluationSet(root=str(root)), tmp_path / "classes.json", tmp_path / "out")
    assert len(built.records) == len(NAMES)
    again = read_index(tmp_path / "out")
    assert again.records == built.records
    cache_index(tmp_path / "out", PixelsStage(short_side=16), tmp_path / "out;\n" / "pixels.h5")
    cache = PixelCache(tmp_path / "out;\n" / "pixels.h5")
    assert all(cache[record.key].shape == (16, 24, 3) for record in again.records)
    assert not list(tmp_path.rglob("pwned"))
    tried("odd name of a file or folder", len(NAMES), "read like any other")


def test_a_name_that_is_not_utf8_is_a_row(tmp_path: Path) -> None:
    write_text(tmp_path / "classes.json", json.dumps([{"wnid": TENCH, "name": "tench"}]))
    write(tmp_path / "root", {f"{TENCH}/good.jpg": encoded()})
    (Path(os.fsdecode(os.fsencode(tmp_path / "root" / TENCH) + b"/bad\xff.jpg"))).write_bytes(encoded())
    settings_of_set = EvaluationSet(root=str(tmp_path / "root"))
    built = build_evaluation_index("mine", settings_of_set, tmp_path / "classes.json", tmp_path / "out")
    assert len(built.records) == 1
    assert any("not UTF-8" in row["what"] for row in problems_of(tmp_path / "out"))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read and write everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_what_may_not_be_read_or_written_is_a_sentence(tried: Tried) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        write(base / "set" / TENCH, {"a.jpg": encoded(), "b.jpg": encoded()})
        write(base / "set" / "locked", {"c.jpg": encoded()})
        write_text(base / "artifact.json", "{}")
        (base / "set" / TENCH / "b.jpg").chmod(0)
        (base / "set" / "locked").chmod(0)
        (base / "artifact.json").chmod(0)
        with as_nobody():
            source = Source(base / "set")
            assert source.names() == [f"{TENCH}/a.jpg", f"{TENCH}/b.jpg"]
            assert source.refused == [("locked", "cannot be listed (Permission denied)")]
            with pytest.raises(UserError, match=r"cannot read .*b\.jpg .*Permission denied"):
                source.read(f"{TENCH}/b.jpg")
            with pytest.raises(UserError, match=r"cannot read .*artifact\.json: Permission denied"):
                read_json(base / "artifact.json", "parts")
            if base.stat().st_uid != os.geteuid():
                with pytest.raises(UserError, match=r"cannot write .*new\.json: Permission denied"):
                    write_text(base / "new.json", "{}")
        (base / "set" / "locked").chmod(0o700)
    tried("no permission to read or write", 4, "one sentence, or a row in problems.csv")


def test_files_of_ten_gigabytes_are_not_read(tmp_path: Path, tried: Tried) -> None:
    """Sparse files that claim 10 GB: an image, an annotation file, and weights whose header claims as much."""
    from dfeat.training.network import build_backbone
    from dfeat.training.settings import Backbone

    root = write(
        tmp_path / "set", {f"{TENCH}_1.JPEG": encoded(), "train.json": coco([f"{TENCH}_1.JPEG", f"{TENCH}_2.JPEG"])}
    )
    for name in (f"{TENCH}_2.JPEG", "val.json"):
        with (root / name).open("wb") as file:
            file.truncate(10 << 30)
    with (tmp_path / "header.safetensors").open("wb") as file:
        file.write((10 << 30).to_bytes(8, "little"))
        file.truncate(11 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [record.key for record in index.records] == [f"{TENCH}_1"]
    told = [row["what"] for row in problems_of(tmp_path / "out")]
    assert sum("10,737,418,240 bytes" in what for what in told) == 2
    with pytest.raises(UserError, match=r"header\.safetensors"):
        build_backbone(Backbone(name="convnext_atto", weights=str(tmp_path / "header.safetensors")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    tried("file or header of 10 GB", 3, "refused by name, not read")


def test_links_pipes_and_loops_in_a_folder_do_not_hang(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {f"{TENCH}/good.jpg": encoded()})
    os.mkfifo(root / TENCH / "pipe.jpg")
    (root / TENCH / "loop").symlink_to(root)
    (root / TENCH / "self.jpg").symlink_to("self.jpg")
    (root / TENCH / "broken.jpg").symlink_to("nothing")
    assert Source(root).names() == [f"{TENCH}/good.jpg"]
    for name in ("pipe.jpg", "self.jpg", "broken.jpg"):
        with pytest.raises(UserError):
            Source(root).read(f"{TENCH}/{name}")

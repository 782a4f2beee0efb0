"""Evaluation sets: ImageNet val in every layout, folders of images, both cut to the classes of the training set."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dfeat.data.classes import imagenet_wnids
from dfeat.data.index import Index, read_index
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.data.settings import EvaluationSet
from dfeat.errors import UserError

from .conftest import MACAQUE, TENCH, coco, encoded, problems_of, train_set, write, zipped

CRANE = "n02012849"
NAMES = [f"ILSVRC2012_val_0000000{i}" for i in range(1, 5)]
WNIDS = [TENCH, MACAQUE, CRANE, TENCH]
CUT = [(NAMES[0], 0), (NAMES[1], 1), (NAMES[3], 0)]
"""What remains of the four images: the class of the third is not in the training set."""


@pytest.fixture
def classes(two_images: Path, tmp_path: Path) -> Path:
    build_train_index(train_set(two_images), tmp_path / "train")
    return tmp_path / "train" / "classes.json"


def index_of(root: Path, classes: Path, kind: str = "folder", **kwargs: Any) -> Index:
    settings = EvaluationSet(kind=kind, root=str(root), **kwargs)
    return build_evaluation_index("eval", settings, classes, classes.parent.parent / "out")


def flat(root: Path) -> Path:
    return write(root, {f"{name}.JPEG": encoded() for name in NAMES})


def devkit_order() -> list[str]:
    order = list(imagenet_wnids())
    random.Random(0).shuffle(order)
    return order


@pytest.mark.parametrize("form", ["names", "one a line"])
def test_labels_without_an_image_have_one_row_with_their_count(tmp_path: Path, classes: Path, form: str) -> None:
    root = write(tmp_path / "set", {f"{name}.JPEG": encoded() for name in NAMES[1:3]})
    lines = [f"{n}.JPEG {w}" if form == "names" else w for n, w in zip(NAMES, WNIDS, strict=True)]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    assert len(index_of(root, classes, "imagenet", labels=str(tmp_path / "labels.txt")).records) == 1
    (row,) = problems_of(tmp_path / "out")
    first = NAMES[0].casefold() if form == "names" else "number 1"
    assert row["record"] == "labels.txt" and row["done"] == "left out"
    assert row["what"] == f"has labels of 3 images of the run's classes, 2 of which are not here ({first}, ...)"


def test_a_summary_of_refusals_names_an_example_and_its_remedy(tmp_path: Path) -> None:
    root = write(
        tmp_path / "set", {"train.json": coco(["car1.jpg", "car2.jpg"]), "car1.jpg": encoded(), "car2.jpg": encoded()}
    )
    with pytest.raises(UserError) as error:
        build_train_index(train_set(root), tmp_path / "cars")
    assert (
        "2x class: car1 neither its name nor its folder begins with a wnid such as n02487347 (image dropped; set"
        in str(error.value)
    )


def test_an_image_without_parts_has_one_row_that_says_what_becomes_of_it(tmp_path: Path, classes: Path) -> None:
    content = coco([f"{TENCH}_1.JPEG", f"{TENCH}_2.JPEG", f"{CRANE}_3.JPEG"])
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
    content["images"].append({"id": 9, "file_name": None})
    content["annotations"] += [{**content["annotations"][0], "id": 100 + n, "image_id": 9} for n in range(3)]
    names = {record["file_name"]: encoded() for record in content["images"] if record["file_name"]}
    root = write(tmp_path / "set", {"train.json": content, **names})
    index_of(root, classes, "partimagenet")
    rows = problems_of(tmp_path / "out")
    assert sorted((row["field"], row["done"]) for row in rows) == [
        ("annotations", "left out of this evaluation set"), ("file_name", "image dropped with its annotations")
    ]  # fmt: skip
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert (source["images"], source["images_of_other_classes"], source["classes_with_images"]) == (1, 1, 1)


@pytest.mark.parametrize("container", ["folder", "zip", "tar"])
@pytest.mark.parametrize("layout", ["folders", "suffixed", "flat"])
def test_imagenet_in_any_layout_is_cut_to_the_classes(
    tmp_path: Path, classes: Path, layout: str, container: str
) -> None:
    path = {"folders": "val/{1}/{0}.JPEG", "suffixed": "{0}_{1}.JPEG", "flat": "./{0}.JPEG"}[layout]
    root = write(tmp_path / "set", {path.format(n, w): encoded() for n, w in zip(NAMES, WNIDS, strict=True)})
    kwargs: dict[str, Any] = {}
    if layout == "flat":
        labels = tmp_path / "labels.txt"
        labels.write_text("".join(f"{n}.JPEG {w}\n" for n, w in zip(NAMES, WNIDS, strict=True)))
        kwargs["labels"] = str(labels)
    if container == "zip":
        root = zipped(root, tmp_path / "set.zip")
    elif container == "tar":
        with tarfile.open(tmp_path / "set.tar", "w") as archive:
            archive.add(root, ".")
        root = tmp_path / "set.tar"
    index = index_of(root, classes, "imagenet", **kwargs)
    assert [(r.key[:23], r.label) for r in index.records] == CUT
    assert index == read_index(tmp_path / "out")
    assert index.load(index.records[0]).shape == (16, 24, 3)
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert (source["images_of_other_classes"], source["classes_with_images"]) == (1, 2)
    assert problems_of(tmp_path / "out") == []
    assert index.annotations_path() is None


def label_texts() -> dict[str, str]:
    indices = [imagenet_wnids().index(wnid) for wnid in WNIDS]
    return {
        "name wnid": "".join(f"{n}.JPEG {w}\n" for n, w in zip(NAMES, WNIDS, strict=True)),
        "csv": "filename,wnid\n" + "".join(f"val/{n}.JPEG,{w}\n" for n, w in zip(NAMES, WNIDS, strict=True)),
        "kaggle": "ImageId,PredictionString\n"
        + "".join(f"{n},{w} 1 2 3 4 {w} 5 6 7 8 \n" for n, w in zip(NAMES, WNIDS, strict=True)),
        "name index": "".join(f"{n}.JPEG {i}\n" for n, i in zip(NAMES, indices, strict=True)),
        "wnids": "\n".join(WNIDS),
        "indices": "\r\n".join(map(str, indices)) + "\r\n",
        "bom": "\ufeff" + "\n".join(WNIDS),
    }


@pytest.mark.parametrize("form", label_texts())
def test_label_files_of_every_form(tmp_path: Path, classes: Path, form: str) -> None:
    (tmp_path / "labels.txt").write_bytes(label_texts()[form].encode())
    index = index_of(flat(tmp_path / "set"), classes, "imagenet", labels="labels.txt")
    assert [(r.key, r.label) for r in index.records] == CUT


@pytest.mark.parametrize("form", ["meta.mat", "synsets.txt", "map_clsloc.txt"])
def test_devkit_ids_are_read_with_the_devkits_list(tmp_path: Path, classes: Path, form: str) -> None:
    order = devkit_order()
    labels = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    labels.write_text("".join(f"{order.index(wnid) + 1}\n" for wnid in WNIDS))
    if form == "meta.mat":
        import numpy as np
        from scipy.io import savemat

        synsets = np.array(
            [(i, w, "words") for i, w in enumerate([*order, "n00001740"], 1)],
            dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
        )
        savemat(tmp_path / form, {"synsets": synsets})
    elif form == "synsets.txt":
        (tmp_path / form).write_text("\n".join(order))
    else:
        lines = [f"{wnid} {number} a_name" for number, wnid in enumerate(order, 1)]
        (tmp_path / form).write_text("\n".join(reversed(lines)))
    index = index_of(flat(tmp_path / "set"), classes, "imagenet", labels=str(labels))
    assert [(r.key, r.label) for r in index.records] == CUT


@pytest.mark.parametrize(
    ("name", "text", "beside", "reason"),
    [
        ("labels.txt", "1\n1000\n3\n4\n", None, "order of its own"),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n2\n3\n4\n", None, "order of its own"),
        ("labels.txt", "1\n1000\n3\n4\n", "\n".join(imagenet_wnids()), "sorted"),
        ("labels.txt", "1\n1000\n3\n4\n", "n01440764", "does not name"),
        ("labels.txt", "0\n1000\n3\n4\n", None, "both 0 and 1000"),
        ("labels.txt", "1001\n", None, "line 1"),
        ("labels.txt", "5\nx\n", None, "line 2"),
        ("labels.txt", "", None, "empty"),
        ("labels.txt", "\xff", None, "line 1"),
        ("labels.txt", "a b\nc d\n", None, "line 2"),
        ("labels.txt", f"{NAMES[0]}.JPEG {TENCH}\n{NAMES[0]}.JPEG {MACAQUE}\n", None, "line 2"),
        ("other.txt", "1", None, "missing"),
    ],
)
def test_label_files_that_would_mislead_are_refused(
    tmp_path: Path, classes: Path, name: str, text: str, beside: str | None, reason: str
) -> None:
    (tmp_path / name).write_text(text)
    if beside is not None:
        (tmp_path / "synsets.txt").write_text(beside)
    wanted = "labels.txt" if name == "other.txt" else name
    with pytest.raises(UserError, match=reason):
        index_of(flat(tmp_path / "set"), classes, "imagenet", labels=wanted)


def test_flat_images_without_labels_are_refused(tmp_path: Path, classes: Path) -> None:
    with pytest.raises(UserError, match="labels"):
        index_of(flat(tmp_path / "set"), classes, "imagenet")


def test_an_image_without_a_label_has_a_row(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "labels.txt").write_text(f"{NAMES[0]}.JPEG {TENCH}\n")
    index = index_of(flat(tmp_path / "set"), classes, "imagenet", labels="labels.txt")
    assert len(index.records) == 1
    assert [row["record"] for row in problems_of(tmp_path / "out")] == NAMES[1:]


@pytest.mark.parametrize(
    "folder", [TENCH, TENCH.upper(), "tench", "Tench", "Tinca tinca", "tinca_tinca", "TINCA-TINCA"]
)
def test_a_folder_may_be_a_wnid_or_any_name_of_the_class(tmp_path: Path, classes: Path, folder: str) -> None:
    index = index_of(write(tmp_path / "set", {f"photos/{folder}/by me/1.jpg": encoded()}), classes)
    assert [(r.key, r.wnid) for r in index.records] == [("1", TENCH)]


def test_folder_images_get_unique_keys(tmp_path: Path, classes: Path) -> None:
    names = ["tench/1.jpg", "macaque/1.jpg", "macaque/2.jpg", "macaque/1.png", "tench/3.txt"]
    index = index_of(write(tmp_path / "set", {name: encoded() for name in names}), classes)
    assert [r.key for r in index.records] == ["2", f"{TENCH}_1", f"{MACAQUE}_1"]
    assert [row["field"] for row in problems_of(tmp_path / "out")] == ["key", "unused"]


def test_unknown_folders_have_a_row_and_other_classes_are_counted(tmp_path: Path, classes: Path) -> None:
    names = ["tench/1.jpg", "gnorf/2.jpg", "3.jpg", "goldfish/4.jpg", "crane/5.jpg"]
    index = index_of(write(tmp_path / "set", {name: encoded() for name in names}), classes)
    assert [r.key for r in index.records] == ["1"]
    assert [row["record"] for row in problems_of(tmp_path / "out")] == ["3.jpg", "crane/5.jpg", "gnorf/2.jpg"]
    assert json.loads((tmp_path / "out/source.json").read_text())["images_of_other_classes"] == 1


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_manifest_overrides_the_folders(tmp_path: Path, classes: Path, delimiter: str) -> None:
    rows = [
        ["File", "Class", "source URL", "licence"],
        ["misc/1.jpg", "tench", "https://x", "CC0"], ["tench/2.jpg", MACAQUE],
        ["../out.jpg", "tench"], ["gone.jpg", "tench"], ["misc/1.jpg", MACAQUE], ["misc/4.jpg", "gnorf"], [""],
    ]  # fmt: skip
    text = "\ufeff" + "\n".join(delimiter.join(row) for row in rows)
    pictures = {name: encoded() for name in ("misc/1.jpg", "tench/2.jpg", "tench/3.jpg", "misc/4.jpg")}
    index = index_of(write(tmp_path / "set", {**pictures, "manifest.csv": text}), classes)
    assert [(r.key, r.wnid) for r in index.records] == [("1", TENCH), ("2", MACAQUE), ("3", TENCH)]
    assert [row["record"] for row in problems_of(tmp_path / "out")] == [
        "manifest.csv line 4", "manifest.csv line 5", "manifest.csv line 6", "misc/4.jpg"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "a,b\n", b"\xff\xfe\x00", "file\n1.jpg\n"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, classes: Path, text: str | bytes) -> None:
    root = write(tmp_path / "set", {"tench/1.jpg": encoded(), "manifest.csv": text})
    with pytest.raises(UserError, match=r"manifest\.csv"):
        index_of(root, classes)


def test_upright_pictures_and_broken_ones(tmp_path: Path, classes: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "tench/turned.jpg": encoded(exif=exif),
        "tench/cut.jpg": encoded((200, 200))[:1500],
        "tench/ok.jpg": encoded(),
    }
    index = index_of(write(tmp_path / "set", pictures), classes)
    assert [(r.key, r.width, r.height) for r in index.records] == [("ok", 24, 16), ("turned", 16, 24)]
    assert index.load(index.records[1]).shape == (24, 16, 3)
    assert [row["record"] for row in problems_of(tmp_path / "out")] == ["cut", "turned"]


@pytest.mark.parametrize(("kind", "hint"), [("imagenet", "image-net.org"), ("folder", "folder of your own images")])
def test_missing_or_empty_sets_say_where_data_is(tmp_path: Path, classes: Path, kind: str, hint: str) -> None:
    for root in (tmp_path / "none", write(tmp_path / "set", {"n01443537/1.jpg": encoded()})):
        with pytest.raises(UserError, match=hint) as caught:
            index_of(root, classes, kind)
        assert "make demo" in str(caught.value)


def test_the_training_set_comes_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="index the training set first"):
        index_of(write(tmp_path / "set", {"tench/1.jpg": encoded()}), tmp_path / "train" / "classes.json")

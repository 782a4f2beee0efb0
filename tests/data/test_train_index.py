"""The training set is read in every layout people have, the same way, and nothing in it is lost unnoticed."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from dfeat.data.index import Index, read_index
from dfeat.data.indexing import build_train_index
from dfeat.errors import UserError
from dfeat.occlusion.parts import choose_all
from dfeat.occlusion.settings import PartsStage
from dfeat.storage.provenance import file_digest

from .conftest import MACAQUE, SQUARE, TENCH, coco, encoded, problems_of, train_set, write, zipped

ONE, TWO, THREE = f"{MACAQUE}_1.JPEG", f"{TENCH}_2.JPEG", f"{MACAQUE}_3.JPEG"
LABELS = {"train": [ONE, TWO], "val": [THREE]}


def files(layout: str) -> dict[str, Any]:
    """Three images in two splits, laid out in one of the ways seen."""
    found: dict[str, Any] = {}
    for split, names in LABELS.items():
        for name in names:
            wnid = name.partition("_")[0]
            picture = {
                "ood": f"{split}/{wnid}/{name}", "ood images": f"images/{split}/{wnid}/{name}",
                "ood flat": f"{split}/{name}", "ood nested": f"PartImageNet/PartImageNet/{split}/{split}/{wnid}/{name}",
                "seg": f"images/{split}/{name}", "seg root": f"PartImageNet/images/{split}/{name}",
            }[layout]  # fmt: skip
            found[picture] = encoded()
        kind, _, way = layout.partition(" ")
        prefix = {"nested": "PartImageNet/PartImageNet/", "root": "PartImageNet/"}.get(way, "")
        where = f"{split}.json" if kind == "ood" else f"annotations/{split}/{split}.json"
        found[prefix + where] = coco(names)
        if kind == "seg":
            found[f"{prefix}annotations/{split}_whole/{split}.json"] = coco([])
            for name in names:
                found[f"{prefix}annotations/{split}/{name[:-5]}.json"] = {"imgHeight": 16, "imgWidth": 24}
                found[f"{prefix}annotations/{split}/{name[:-5]}.png"] = encoded(mode="L", format="PNG")
                found[f"__MACOSX/{prefix}images/{split}/._{name}"] = b"\0\5\x16\7 junk"
                found[f"{prefix}images/{split}/._{name}"] = b"\0\5\x16\7 junk"
            found[f"{prefix}.DS_Store"] = b"junk"
    return found


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize("layout", ["ood", "ood images", "ood flat", "ood nested", "seg", "seg root"])
def test_every_layout_gives_the_same_index(tmp_path: Path, layout: str, container: str) -> None:
    root = write(tmp_path / "set", files(layout))
    if container == "zip":
        root = zipped(root, tmp_path / "set.zip")
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [(r.key, r.label, r.wnid, r.width, r.height) for r in index.records] == [
        (f"{TENCH}_2", 0, TENCH, 24, 16), (f"{MACAQUE}_1", 1, MACAQUE, 24, 16), (f"{MACAQUE}_3", 1, MACAQUE, 24, 16)
    ]  # fmt: skip
    rows = problems_of(tmp_path / "out")
    of_others = 2 + 2 * 3 if layout.startswith("seg") else 0  # whole objects, and a mask and a size of each image
    assert [row["field"] for row in rows if row["field"] != "clutter"] == ["unused"] * of_others
    assert len(rows) == (of_others and of_others + 3), "and a row for each of __MACOSX, ._* and .DS_Store"
    assert [info.name for info in index.classes] == ["tench", "macaque"]
    assert all(index.load(record).shape == (16, 24, 3) for record in index.records)
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert (source["layout"], source["container"], source["images"]) == (layout[:3], container, 3)
    annotations = COCO(str(index.annotations_path()))
    assert len(annotations.anns) == 6
    assert all(annotations.annToMask(a).sum() == 100 for a in annotations.loadAnns(annotations.getAnnIds()))
    assert {image["key"] for image in annotations.imgs.values()} == {record.key for record in index.records}


def test_an_index_reads_back_equal_and_pickles(two_images: Path, tmp_path: Path) -> None:
    built = build_train_index(train_set(two_images), tmp_path / "out")
    built.load(built.records[0])
    for again in (read_index(tmp_path / "out"), pickle.loads(pickle.dumps(built))):
        assert isinstance(again, Index)
        assert (again.records, again.classes, again.set_name) == (built.records, built.classes, "train")
        assert again.load(again.records[1]).shape == (16, 24, 3)


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    root = write(tmp_path / "set", files("ood"))
    contents = []
    for out in (tmp_path / "a", tmp_path / "b"):
        build_train_index(train_set(root), out)
        contents.append({path.name: path.read_bytes() for path in out.iterdir() if path.is_file()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"index.csv", "problems.csv", "annotations.json", "classes.json", "source.json"}
    rows = list(csv.reader(contents[0]["index.csv"].decode().splitlines()))
    assert rows[0] == ["key", "file", "label", "wnid", "width", "height", "sha256", "parts_sha256"]
    assert [row[6] for row in rows[1:]] == [file_digest(root / row[1]) for row in rows[1:]]


def test_a_partial_split_will_do(tmp_path: Path) -> None:
    found = files("ood")
    del found["train.json"], found[f"val/{MACAQUE}/{THREE}"]
    found["val.json"] = coco([THREE, ONE])
    index = build_train_index(train_set(write(tmp_path / "set", found)), tmp_path / "out")
    assert [r.key for r in index.records] == [f"{MACAQUE}_1"]
    rows = problems_of(tmp_path / "out")
    unnamed = f"train/{TENCH}/{TWO}"
    assert [(row["record"], row["field"]) for row in rows] == [(THREE, "file_name"), (unnamed, "unused")]
    assert json.loads((tmp_path / "out/source.json").read_text())["files_without_record"] == 1


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    document = coco([ONE, TWO])
    change(document)
    return document


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], int, str]] = {
    "missing file": (lambda d: d["images"][0].update(file_name=f"{MACAQUE}_99.JPEG"), 1, "file_name"),
    "traversal": (lambda d: d["images"][0].update(file_name=f"../{ONE}"), 1, "file_name"),
    "absolute": (lambda d: d["images"][0].update(file_name=f"/etc/{ONE}"), 1, "file_name"),
    "drive": (lambda d: d["images"][0].update(file_name=f"C:\\data\\{ONE}"), 1, "file_name"),
    "no name": (lambda d: d["images"][0].pop("file_name"), 1, "file_name"),
    "list as name": (lambda d: d["images"][0].update(file_name=[ONE]), 1, "file_name"),
    "nul in name": (lambda d: d["images"][0].update(file_name="a\0b.JPEG"), 1, "file_name"),
    "lone surrogate": (lambda d: d["images"][0].update(file_name="\ud800.JPEG"), 1, "file_name"),
    "other case": (lambda d: d["images"][0].update(file_name=f"{MACAQUE}_1.jpg"), 2, "file_name"),
    "wrong size": (lambda d: d["images"][0].update(width=25), 1, "size"),
    "no size": (lambda d: d["images"][0].pop("width"), 2, "size"),
    "size as text": (lambda d: d["images"][0].update(width="wide"), 2, "size"),
    "size NaN": (lambda d: d["images"][0].update(width=float("nan")), 2, "size"),
    "no image id": (lambda d: d["images"][0].pop("id"), 1, "id"),
    "boolean id": (lambda d: d["images"][0].update(id=True), 1, "id"),
    "text id": (lambda d: d["images"][0].update(id="0"), 2, "id"),
    "huge id": (lambda d: d["images"][0].update(id=10**40), 1, "id"),
    "shared id": (lambda d: d["images"][1].update(id=0) or d["images"].append({**d["images"][1], "id": 5}), 1, "id"),
    "image twice": (lambda d: d["images"].append(dict(d["images"][0])), 2, "id"),
    "image is no record": (lambda d: d["images"].append([]), 2, "image"),
    "dangling": (lambda d: d["annotations"][0].update(image_id=77), 2, "image_id"),
    "no image_id": (lambda d: d["annotations"][0].pop("image_id"), 2, "image_id"),
    "annotation is no record": (lambda d: d["annotations"].append(None), 2, "annotation"),
    "annotation twice": (lambda d: d["annotations"].append(dict(d["annotations"][0])), 2, "id"),
    "annotation id shared": (lambda d: d["annotations"][0].update(id=1), 2, "id"),
    "no annotation id": (lambda d: d["annotations"][0].pop("id"), 2, "id"),
    "no parts": (lambda d: d["annotations"].clear(), 2, "annotations"),
    "category without name": (lambda d: d["categories"].append({"id": 9}), 2, "category"),
    "category twice": (lambda d: d["categories"].append(dict(d["categories"][0])), 2, "id"),
    "category is no record": (lambda d: d["categories"].append("Head"), 2, "category"),
    "huge category": (lambda d: d["categories"].append({"id": 2**40, "name": "x"}), 2, "category"),
    "NaN outline": (lambda d: d["annotations"][0].update(segmentation=[[float("nan")] * 8]), 2, "segmentation"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_defect_has_a_row_and_an_outcome(tmp_path: Path, name: str) -> None:
    change, usable, field = CHANGES[name]
    pictures = {f"train/{n.partition('_')[0]}/{n}": encoded() for n in (ONE, TWO)}
    root = write(tmp_path / "set", {**pictures, "train.json": broken(change)})
    index = build_train_index(train_set(root), tmp_path / "out")
    assert len(index.records) == usable
    rows = problems_of(tmp_path / "out")
    assert field in {row["field"] for row in rows}
    assert all(row["what"] and row["done"] and row["set"] == "train" for row in rows)
    annotations = COCO(str(index.annotations_path()))
    for annotation in annotations.anns.values():
        assert annotations.annToMask(annotation).any()


@pytest.mark.parametrize(
    ("picture", "usable", "what"),
    [
        (b"", 1, "empty"), (b"text", 1, "no image"), (encoded((240, 160))[:2000], 1, "truncated"),
        (encoded(mode="CMYK"), 2, "CMYK"), (encoded(mode="P", format="PNG"), 2, "mode P"),
        (encoded(mode="RGBA", format="PNG"), 2, "RGBA"), (encoded(format="PNG"), 2, "is PNG"),
        (encoded((16, 24)), 1, "16x24"), (encoded(mode="L"), 2, ""),
    ],
)  # fmt: skip
def test_a_broken_or_unusual_file_has_a_row(tmp_path: Path, picture: bytes, usable: int, what: str) -> None:
    pictures = {f"train/{n.partition('_')[0]}/{n}": encoded() for n in (ONE, TWO)}
    pictures[f"train/{MACAQUE}/{ONE}"] = picture
    root = write(tmp_path / "set", {**pictures, "train.json": coco([ONE, TWO])})
    index = build_train_index(train_set(root), tmp_path / "out")
    assert len(index.records) == usable
    assert all(index.load(record).shape == (16, 24, 3) for record in index.records)
    rows = problems_of(tmp_path / "out")
    assert any(what in row["what"] for row in rows) if what else not rows


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"[" * 100_000, b'{"images": 1, "annotations": [], "categories": []}', b"\xff\xfe\x00",
     b'{"images": [' + b"9" * 5000 + b"]}", b"null", b'{"a":' * 5000 + b"1" + b"}" * 5000],
)  # fmt: skip
def test_a_broken_annotation_file_is_ignored_by_name(tmp_path: Path, two_images: Path, text: bytes) -> None:
    (two_images / "val.json").write_bytes(text)
    index = build_train_index(train_set(two_images), tmp_path / "out")
    assert len(index.records) == 2
    assert [row["record"] for row in problems_of(tmp_path / "out")] == ["val.json"]


def test_a_stray_annotation_file_does_not_hide_ours(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {ONE: encoded(), "mine.json": coco([ONE]), "test.json": coco(["other.jpg"])})
    index = build_train_index(train_set(root), tmp_path / "out")
    assert len(index.records) == 1
    assert [row["record"] for row in problems_of(tmp_path / "out")] == ["test.json"]


def test_same_name_in_two_splits_keeps_the_first(tmp_path: Path) -> None:
    found = {"train/a/" + ONE: encoded(), "val/b/" + ONE: encoded(mode="L")}
    root = write(tmp_path / "set", {**found, "train.json": coco([ONE]), "val.json": coco([ONE])})
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [record.file for record in index.records] == ["train/a/" + ONE]
    assert [row["field"] for row in problems_of(tmp_path / "out")] == ["key"]


def test_a_name_with_several_files_is_not_guessed(tmp_path: Path) -> None:
    found = {"x/" + ONE: encoded(), "y/" + ONE: encoded(mode="L"), "x/" + TWO: encoded(), "y/" + TWO: encoded()}
    root = write(tmp_path / "set", {**found, "train.json": coco([ONE, TWO])})
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [record.key for record in index.records] == [f"{TENCH}_2"], "copies with equal bytes do no harm"
    assert "several files" in problems_of(tmp_path / "out")[0]["what"]


def test_conflicting_categories_are_the_users_to_mend(tmp_path: Path, two_images: Path) -> None:
    other = coco([])
    other["categories"][0]["name"] = "Fish Head"
    write(two_images, {"val.json": other})
    with pytest.raises(UserError, match="Fish Head"):
        build_train_index(train_set(two_images), tmp_path / "out")


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**files("ood"), **files("seg")})
    with pytest.raises(UserError, match="both releases"):
        build_train_index(train_set(root), tmp_path / "out")
    index = build_train_index(train_set(root, layout="seg"), tmp_path / "out")
    assert len(index.records) == 3
    with pytest.raises(UserError, match="'ood'"):
        build_train_index(train_set(write(tmp_path / "x", files("seg")), layout="ood"), tmp_path / "out")


@pytest.mark.parametrize("kind", ["missing", "empty", "text file", "no json", "broken zip"])
def test_no_usable_image_says_what_was_looked_for(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    if kind == "empty":
        root.mkdir()
    elif kind == "text file":
        root.write_text("hello")
    elif kind == "no json":
        write(root, {f"train/{MACAQUE}/{ONE}": encoded()})
    elif kind == "broken zip":
        root.write_bytes(b"PK\3\4 not really")
    with pytest.raises(UserError) as caught:
        build_train_index(train_set(root), tmp_path / "out")
    assert str(root) in str(caught.value)
    assert "TACJu/PartImageNet" in str(caught.value) or kind == "broken zip"
    assert "make demo" in str(caught.value) or kind == "broken zip"
    assert "\n" not in str(caught.value)


def test_links_out_of_the_root_are_not_followed(tmp_path: Path, two_images: Path) -> None:
    write(tmp_path / "elsewhere", {THREE: encoded()})
    (two_images / THREE).symlink_to(tmp_path / "elsewhere" / THREE)
    (two_images / "val").symlink_to(tmp_path / "elsewhere")
    (two_images / "round").symlink_to(two_images)
    os.mkfifo(two_images / f"{MACAQUE}_4.JPEG")
    write(two_images, {"train.json": coco([ONE, TWO, THREE, f"{MACAQUE}_4.JPEG"])})
    index = build_train_index(train_set(two_images), tmp_path / "out")
    assert len(index.records) == 2
    assert {row["record"] for row in problems_of(tmp_path / "out")} == {THREE, "val", f"{MACAQUE}_4.JPEG"}


def test_a_file_that_breaks_later_is_named(tmp_path: Path, two_images: Path) -> None:
    index = build_train_index(train_set(two_images), tmp_path / "out")
    path = two_images / index.records[0].file
    for change in (lambda: path.write_bytes(encoded((30, 30))), lambda: path.write_bytes(b"x"), path.unlink):
        change()
        with pytest.raises(UserError, match=f"{TENCH}_2"):
            index.load(index.records[0])


def test_names_may_have_anything_a_file_system_allows(tmp_path: Path) -> None:
    names = [f'{MACAQUE}_potter\'s "wheel" é 日本, 1.JPEG', f"{TENCH}_a\nb.JPEG", f"{TENCH}_=1+1.JPEG"]
    root = write(
        tmp_path / "a set with 'quotes'", {**{f"train/{n}": encoded() for n in names}, "train.json": coco(names)}
    )
    decomposed = f"train/{MACAQUE}_cafe\u0301.JPEG"
    write(root, {decomposed: encoded(), "val.json": coco([f"{MACAQUE}_caf\u00e9.JPEG"])})
    (root / os.fsdecode(b"train/\xff\xfe.JPEG")).write_bytes(encoded())
    build_train_index(train_set(root), tmp_path / "out")
    index = read_index(tmp_path / "out")
    assert len(index.records) == 4
    assert all(index.load(record).shape == (16, 24, 3) for record in index.records)
    assert [row["what"] for row in problems_of(tmp_path / "out")] == ["its name is not UTF-8; rename it"]


@pytest.mark.parametrize("damage", ["missing", "cut", "header", "number", "json", "classes"])
def test_a_damaged_index_is_refused(tmp_path: Path, two_images: Path, damage: str) -> None:
    out = tmp_path / "out"
    build_train_index(train_set(two_images), out)
    text = (out / "index.csv").read_text()
    if damage == "missing":
        (out / "index.csv").unlink()
    elif damage == "json":
        (out / "source.json").write_text("{")
    elif damage == "classes":
        (out / "classes.json").write_text("[1]")
    else:
        changed = {
            "cut": text[: len(text) // 2],
            "header": text.replace("key", "kee"),
            "number": text.replace("24", "x"),
        }
        (out / "index.csv").write_text(changed[damage])
    with pytest.raises(UserError, match=r"dfeat index|index the training set"):
        read_index(out)


def test_one_class_sets_need_the_class(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"JPEGImages/car1.jpg": encoded(), "annotations.json": coco(["car1.jpg"])})
    with pytest.raises(UserError, match="wnid"):
        build_train_index(train_set(root), tmp_path / "out")
    index = build_train_index(train_set(root, wnid="n02958343"), tmp_path / "out")
    assert [(r.key, r.wnid) for r in index.records] == [("car1", "n02958343")]
    assert index.classes[0].name == "car"


def by_class(root: Path, classes: int) -> Path:
    """PartImageNet++ as it is published: a file a class, whose ids of images, annotations and categories all start anew."""
    for number in range(classes):
        wnid = f"n{1440764 + number:08d}"
        names = [f"{wnid}_{image}.JPEG" for image in range(2 + number % 3)]
        document = coco(names)
        for category, part in zip(document["categories"], ("head", "body"), strict=True):
            category |= {"name": f"{wnid} {part}", "supercategory": wnid}
        write(root, {f"train/{wnid}/{name}": encoded() for name in names} | {f"json/{wnid}.json": document})
    return root


def test_a_set_with_a_file_a_class_whose_ids_clash(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set", 20)
    index = build_train_index(train_set(root, expected_images=None, expected_classes=None), tmp_path / "out")
    assert len(index.classes) == 20 and len(index.records) == sum(2 + number % 3 for number in range(20))
    assert problems_of(tmp_path / "out") == []
    read = COCO(str(index.annotations_path()))
    assert len(read.cats) == 40 and len(read.anns) == 2 * len(index.records)
    for annotation in read.anns.values():
        image = read.imgs[annotation["image_id"]]
        assert read.cats[annotation["category_id"]]["supercategory"] == image["file_name"].split("/")[-1][:9]
    assert choose_all(tmp_path / "out", PartsStage(), tmp_path / "parts.json") == len(index.records)
    # As the authors merge them, one file a split, beside the files of the classes: read from these.
    names = [f"n{1440764:08d}_{image}.JPEG" for image in range(2)]
    write(root, {"Pin++Part_train.json": coco(names)})
    merged = build_train_index(train_set(root), tmp_path / "merged")
    assert [record.key for record in merged.records] == [Path(name).stem for name in names]
    again = build_train_index(train_set(root, layout="by_class"), tmp_path / "again")
    assert again.records == index.records


def test_a_category_twice_in_the_file_of_a_class_is_taken_once(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set", 2)
    path = root / "json/n01440764.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"categories": [*content["categories"], content["categories"][1]]}))
    index = build_train_index(train_set(root), tmp_path / "out")
    assert len(COCO(str(index.annotations_path())).cats) == 4
    assert [row["done"] for row in problems_of(tmp_path / "out")] == ["taken once"]


@pytest.mark.parametrize("layout", ["coco", "ood", "seg", "zip"])
def test_reference_cars(shared_data: Callable[[str], Path], tmp_path: Path, layout: str) -> None:
    """A real part data set: as exported, rearranged as either release of PartImageNet, and zipped."""
    cars = shared_data("carparts/testset")
    root = cars
    if layout != "coco":
        root = tmp_path / "set"
        pictures, document = {"seg": ("images/val", "annotations/val/val.json")}.get(
            layout, ("val/n02958343", "val.json")
        )
        (root / document).parent.mkdir(parents=True)
        shutil.copyfile(cars / "annotations.json", root / document)
        shutil.copytree(cars / "JPEGImages", root / pictures)
    if layout == "zip":
        root = zipped(root, tmp_path / "set.zip", "PartImageNet/")
    index = build_train_index(train_set(root, wnid="n02958343"), tmp_path / "out")
    assert len(index.records) == 100
    annotations = json.loads((tmp_path / "out/annotations.json").read_text())
    assert len(annotations["annotations"]) == 811
    assert problems_of(tmp_path / "out") == []
    assert index.load(index.records[0]).shape == (index.records[0].height, index.records[0].width, 3)


def test_the_photographs_in_the_documents_have_parts_to_hide(tmp_path: Path) -> None:
    index = build_train_index(train_set(Path(__file__).parents[2] / "docs/photographs/set"), tmp_path)
    assert [info.name for info in index.classes] == ["tabby", "missile", "cup"]
    assert problems_of(tmp_path) == []
    assert choose_all(tmp_path, PartsStage(), tmp_path / "parts.json") == 3


def test_other_coco_files_are_ignored_or_read(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Annotation files of other data sets beside ours: none of them crashes a run."""
    root = write(tmp_path / "set", {ONE: encoded(), "mine.json": coco([ONE])})
    for path in shared_data("torture/json").glob("*.json"):
        shutil.copyfile(path, root / path.name)
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [record.key for record in index.records] == [f"{MACAQUE}_1"]
    named = {row["record"] for row in problems_of(tmp_path / "out")}
    assert {path.name for path in shared_data("torture/json").glob("*.json")} <= named


def test_reference_records_with_their_images(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Real annotation files, with drawn pictures of the right size: what is kept can be read."""
    for number, path in enumerate(sorted(shared_data("torture/json").glob("*.json"))):
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or "images" not in content:
            continue
        root = tmp_path / str(number)
        pictures = {i["file_name"]: encoded((i["width"], i["height"])) for i in content["images"][:20]}
        write(root, {**pictures, "annotations.json": content})
        index = build_train_index(train_set(root, wnid=MACAQUE), tmp_path / "out")
        assert len(index.records) == len(pictures)
        annotations = COCO(str(index.annotations_path()))
        for annotation in annotations.anns.values():
            assert annotations.annToMask(annotation).any()
        rows = [row["done"] for row in problems_of(tmp_path / "out")]
        of_others = sum(a["image_id"] not in {i["id"] for i in content["images"][:20]} for a in content["annotations"])
        lost = rows.count("annotation dropped") + rows.count("dropped") + rows.count("taken once")
        assert len(annotations.anns) + lost + of_others == len(content["annotations"]), path.name


ODD_OUTLINES: list[Any] = [
    [[5, 6]], [[5, 6, 7, 8]], [list(SQUARE), [5, 6]], [[5, 6], list(SQUARE)], [[9, 9, 9, 9, 10, 9, 10, 9]], [SQUARE[:7]],
    [], [[]], [[-9, -9, 40, -9, 40, 40, -9, 40]], [[float("nan"), *SQUARE[1:]]], [[1e9, *SQUARE[1:]]], list(SQUARE),
    [[str(number) for number in SQUARE]], {"size": [16, 24], "counts": [1, 2]}, {"size": [8, 8], "counts": [30, 4, 30]},
    {"size": [16, 24], "counts": [100, 50, 234]}, {"size": [16, 24], "counts": "not RLE"}, None, "text", [SQUARE, None],
]  # fmt: skip


def test_every_record_is_kept_or_has_a_row_that_says_it_was_dropped(tmp_path: Path) -> None:
    """All kinds of defect in one set: nothing crashes, and what came in is what is kept and what was dropped."""
    odd = {
        "cmyk": encoded(mode="CMYK"), "grey": encoded(mode="L"), "png": encoded(format="PNG"), "palette": encoded(mode="P", format="PNG"),
        "cut": encoded()[:-40], "empty": b"", "text": b"no image", "other_size": encoded((30, 16)), "missing": None, "whole": encoded(),
    }  # fmt: skip
    names = {name: f"{MACAQUE}_{name}.JPEG" for name in odd}
    document = coco(list(names.values()))
    last = len(names) - 1
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != last]
    document["annotations"] += [
        {"id": 1000 + n, "image_id": last, "category_id": 0, "segmentation": outline, "area": 1, "bbox": [0, 0, 1, 1]}
        for n, outline in enumerate(ODD_OUTLINES)
    ]
    pictures = {f"train/{names[name]}": picture for name, picture in odd.items() if picture is not None}
    index = build_train_index(train_set(write(tmp_path / "set", pictures | {"train.json": document})), tmp_path / "out")
    rows = problems_of(tmp_path / "out")
    lost = {row["record"].removesuffix(".JPEG") for row in rows if row["done"].startswith("image dropped")}
    assert {record.key for record in index.records} | lost == {name.removesuffix(".JPEG") for name in names.values()}
    assert lost == {f"{MACAQUE}_{name}" for name in ("cut", "empty", "text", "other_size", "missing")}
    kept = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"]
    dropped = [row for row in rows if row["done"] == "annotation dropped"]
    of_lost = 2 * len(lost)
    assert len(kept) + len(dropped) + of_lost == len(document["annotations"])


def test_importing_the_index_is_cheap() -> None:
    code = "import sys, dfeat.data.indexing; print(sorted({'torch', 'timm', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    assert done.stdout.strip() == "[]"

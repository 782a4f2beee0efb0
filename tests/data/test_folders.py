"""Folders and archives as people have them: what other programs left, links, newer formats, archives made on Windows."""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfeat.data import files, images
from dfeat.data.clutter import mark_of
from dfeat.data.files import MOST_ROWS, images_of
from dfeat.data.index import Index
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.data.settings import EvaluationSet
from dfeat.data.sources import Source
from dfeat.errors import UserError

from .conftest import MACAQUE, TENCH, coco, encoded, problems_of, train_set, write, zipped

OTHERS = {
    f"{TENCH}/.ipynb_checkpoints/1-checkpoint.jpg": ".ipynb_checkpoints",
    f"{TENCH}/.stversions/1~20240101-120000.jpg": ".stversions",
    f"{TENCH}/1.sync-conflict-20240101-120000-ABCDEFG.jpg": "conflicted copies",
    f"{TENCH}/1 (Anna's conflicted copy 2024-01-01).jpg": "conflicted copies",
    f"{TENCH}/1.jpg:Zone.Identifier": "*zone.identifier",
    f"{TENCH}/.1.jpg.q8Xy2A": ".*",
    f"{TENCH}/._1.jpg": "._*",
    f"{TENCH}/2.jpg.crdownload": "*.crdownload",
    f"{TENCH}/3.jpg.aria2": "*.aria2",
    f"{TENCH}/1.jpg~": "*~",
    f"{TENCH}/THUMBS.DB": "THUMBS.DB",
    f"{TENCH}/.nfs000000000004c1b200000001.jpg": ".nfs*",
    f"{TENCH}/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg": "@eaDir",
    f"{TENCH}/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    f"{TENCH}/.@__thumb/default1.jpg": ".@__thumb",
    f"#recycle/{TENCH}/9.jpg": "#recycle",
    f"$RECYCLE.BIN/S-1-5/{TENCH}/9.jpg": "$RECYCLE.BIN",
    f".Trash-1000/files/{TENCH}/9.jpg": ".Trash-*",
    f".snapshot/daily/{TENCH}/1.jpg": ".snapshot",
    f"__MACOSX/{TENCH}/._1.jpg": "__MACOSX",
    f"lost+found/{TENCH}/9.jpg": "lost+found",
    "System Volume Information/IndexerVolumeGuid": "System Volume Information",
}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps([{"wnid": TENCH, "name": "tench"}, {"wnid": MACAQUE, "name": "macaque"}]))
    return path


def index_of(root: Path, classes: Path, kind: str = "folder", **settings: Any) -> Index:
    return build_evaluation_index(
        "mine", EvaluationSet(kind=kind, root=str(root), **settings), classes, classes.parent / "out"
    )


def rows_of(classes: Path) -> dict[str, dict[str, str]]:
    return {row["record"]: row for row in problems_of(classes.parent / "out")}


def packed(root: Path, kind: str) -> Path:
    if kind == "zip":
        return zipped(root, root.with_suffix(".zip"))
    if kind == "tar":
        with tarfile.open(root.with_suffix(".tar"), "w") as archive:
            archive.add(root, ".")
        return root.with_suffix(".tar")
    return root


@pytest.mark.parametrize("container", ["folder", "zip", "tar"])
@pytest.mark.parametrize("kind", ["folder", "imagenet", "partimagenet"])
def test_what_other_programs_left_is_counted_once_and_never_an_image(
    tmp_path: Path, classes: Path, kind: str, container: str
) -> None:
    files = {f"{TENCH}/1.jpg": encoded(), **dict.fromkeys(OTHERS, encoded())}
    root = write(tmp_path / "set", files | ({"train.json": coco(["1.jpg"])} if kind == "partimagenet" else {}))
    index = index_of(packed(root, container), classes, kind)
    assert [record.file for record in index.records] == [f"{TENCH}/1.jpg"]
    rows = problems_of(tmp_path / "out")
    assert {(row["field"], row["done"]) for row in rows} == {("clutter", "left out")}
    assert {row["record"] for row in rows} == set(OTHERS.values())
    twice = [row["record"] for row in rows if row["what"].endswith("(2x)")]
    assert (len(rows), twice) == (len(set(OTHERS.values())), ["conflicted copies"])
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert source["left_out"] == len(OTHERS) - 1, "of a folder, once"


@pytest.mark.parametrize(
    "name", ["photo.jpg", "part.jpg", "a~b.jpg", "#1.jpg", "IMG (copy).jpg", "trash", "temp.jpg", "@home"]
)
def test_names_of_people_are_no_marks(name: str) -> None:
    assert mark_of(name) is None


def test_every_other_file_has_a_row_with_the_remedy(
    tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (images, files):
        monkeypatch.setattr(module, "formats", lambda: images.FORMATS)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    given = {
        "1.jpg": encoded(), "2.HEIC": heic, "2.jpg": encoded(), "3.avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
        "4.jxl": b"\xff\x0a" + bytes(60), "5": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "6.jpg": heic,
        "7.dat": encoded(), "8.dng": encoded(format="TIFF"), "9.jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "notes.txt": "x",
        "old.zip": "PK", "10.heic": encoded(), ".11.jpg.icloud": b"bplist00", "12.jpg?w=9": encoded(), "13": encoded(),
        "empty": b"", "14.2024": encoded(format="PNG"),
    }  # fmt: skip
    index = index_of(write(tmp_path / "set", {f"{TENCH}/{n}": c for n, c in given.items()}), classes)
    used = {record.file.removeprefix(f"{TENCH}/") for record in index.records}
    assert used == {"1.jpg", "2.jpg", "10.heic", "12.jpg?w=9", "13", "14.2024"}
    assert index.load(index.records[0]).shape == (16, 24, 3)
    rows = {name.removeprefix(f"{TENCH}/"): row["what"] for name, row in rows_of(classes).items()}
    told = {
        "2.HEIC": "pip install pillow-heif", "3.avif": "pip install pillow-avif-plugin", "4.jxl": "pillow-jxl-plugin",
        "5": "JPEG XL", "6": "pip install pillow-heif", "7.dat": "rename it to end in .jpeg", "8.dng": "convert it",
        "9.jp2": "JPEG 2000", "notes.txt": "is no image", "old.zip": "unpack it", ".11.jpg.icloud": "download that one",
        "empty": "is no image",
    }  # fmt: skip
    assert {name: what for name, what in told.items() if what not in rows.get(name, "")} == {}
    assert set(given) - used <= {"6.jpg"} | set(rows)


def test_many_files_of_a_folder_have_one_row(tmp_path: Path, classes: Path) -> None:
    files = {f"boxes/{number}.xml": "<x/>" for number in range(MOST_ROWS + 1)}
    index_of(write(tmp_path / "set", {f"{TENCH}/1.jpg": encoded(), **files}), classes)
    assert [(row["record"], row["what"][:28]) for row in problems_of(tmp_path / "out")] == [
        ("boxes/", f"{MOST_ROWS + 1} files (boxes/0.xml, ...)")
    ]


HEIF_PLUGIN = """
import io
from PIL import Image, ImageFile

class Reader(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        self.inside = Image.open(io.BytesIO(self.fp.read()[24:]))
        self._size, self._mode = self.inside.size, self.inside.mode
    def load(self):
        self.im = self.inside.convert("RGB").im
        return Image.Image.load(self)

def register_heif_opener():
    Image.register_open("HEIF", Reader, lambda prefix: prefix[4:12] == b"ftypheic")
"""


def test_newer_formats_are_read_where_pillow_can(
    tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVIF by Pillow, and HEIC by a plugin that stands in for pillow-heif: it is found, registered and asked."""
    write(tmp_path / "plugins", {"pillow_heif.py": HEIF_PLUGIN, "pillow_jxl.py": "raise OSError('no libjxl')"})
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    images.formats.cache_clear()
    try:
        heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + encoded()
        files = {
            "1.avif": encoded((40, 30), format="AVIF"),
            "2.HEIC": heic,
            "3": heic,
            "4.jpg": heic,
            "5.jxl": b"\xff\x0a",
        }
        index = index_of(write(tmp_path / "set", {f"{TENCH}/{n}": c for n, c in files.items()}), classes)
        sizes = {record.file[10:]: (record.width, record.height) for record in index.records}
        assert sizes == {"1.avif": (40, 30), "2.HEIC": (24, 16), "3": (24, 16), "4.jpg": (24, 16)}
        assert [index.load(record).shape[:2] for record in index.records] == [(30, 40), *[(16, 24)] * 3]
        assert "pip install pillow-jxl-plugin" in rows_of(classes)[f"{TENCH}/5.jxl"]["what"]
    finally:
        images.formats.cache_clear()
        Image.OPEN.pop("HEIF", None)
        sys.modules.pop("pillow_heif", None)


def test_links_inside_the_root_are_followed_once(tmp_path: Path, classes: Path) -> None:
    root = write(
        tmp_path / "set",
        {"pool/a/1.jpg": encoded(), "pool/a/2.jpg": encoded(), ".annex/x9": encoded(), "tench/0.jpg": encoded()},
    )
    for link, target in {
        "macaque": "pool/a", "tench/again.jpg": "0.jpg", "tench/annexed.jpg": "../.annex/x9", "pool/loop": "..",
        "pool/b": "a", "pool/a/back": "../../tench", "tench/there": "../pool", "store": ".annex",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    index = index_of(root, classes)
    found = {(record.file.rpartition("/")[2], record.wnid) for record in index.records}
    assert found == {("0.jpg", TENCH), ("annexed.jpg", TENCH), ("1.jpg", MACAQUE), ("2.jpg", MACAQUE)}
    assert len(index.records) == 4
    assert all(index.load(record).shape == (16, 24, 3) for record in index.records)
    rows = rows_of(classes)
    assert "second link to pool/a" in rows.pop("pool/b")["what"]
    assert {name: row["field"] for name, row in rows.items()} == {
        ".annex": "clutter", "tench/there/a/1.jpg": "class", "tench/there/a/2.jpg": "class"
    }  # fmt: skip


def test_links_in_every_direction_do_not_multiply(tmp_path: Path) -> None:
    folders = [f"f{number}" for number in range(12)]
    root = write(tmp_path / "set", {f"{folder}/{TENCH}.jpg": encoded() for folder in folders})
    for folder in folders:
        for other in folders:
            if other != folder:
                (root / folder / other).symlink_to(f"../{other}")
    assert len(images_of(Source(root))) == 2 * len(folders), "each by its own name and by one link"


def test_two_records_of_one_file_are_one_image(tmp_path: Path) -> None:
    root = write(
        tmp_path / "set",
        {f"train/{TENCH}_1.JPEG": encoded(), "train.json": coco([f"{TENCH}_1.JPEG", f"{TENCH}_2.JPEG"])},
    )
    (root / f"train/{TENCH}_2.JPEG").symlink_to(f"{TENCH}_1.JPEG")
    index = build_train_index(train_set(root), tmp_path / "out")
    assert [record.key for record in index.records] == [f"{TENCH}_1"]
    assert [(row["record"], row["field"]) for row in problems_of(tmp_path / "out")] == [(f"{TENCH}_2", "file")]


def test_a_link_that_leads_out_says_what_to_do(tmp_path: Path, classes: Path) -> None:
    write(tmp_path / "blobs", {"1.jpg": encoded()})
    (tmp_path / f"set/{TENCH}").mkdir(parents=True)
    (tmp_path / f"set/{TENCH}/1.jpg").symlink_to(tmp_path / "blobs/1.jpg")
    with pytest.raises(UserError, match=r"leads out of the root, to .*/blobs/1\.jpg; copy its files in \(cp -rL\)"):
        index_of(tmp_path / "set", classes)


@pytest.mark.parametrize("page", ["cp437", "cp850", "cp1252", "utf-8"])
def test_a_zip_made_on_windows_is_read(tmp_path: Path, classes: Path, page: str) -> None:
    name = {"cp850": "Über Ó.jpg", "cp1252": "Ménage à É.jpg"}.get(page, "Grüße é.jpg")
    manifest = f"File;Class\r\nBilder\\{name};tench\r\n"
    raw = name.encode(page)
    stand_in = "x" * len(raw)
    files = {f"Mine\\Bilder\\{stand_in}": encoded(), "Mine\\MANIFEST.CSV": manifest, "Mine\\Bilder\\Thumbs.db": "x"}
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for stored, content in {**files, "Mine\\Bilder\\": ""}.items():
            archive.writestr(stored, content)
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), raw))  # no flag of UTF-8
    index = index_of(path, classes)
    assert [(record.file, record.wnid) for record in index.records] == [(f"Mine/Bilder/{name}", TENCH)]
    assert index.load(index.records[0]).shape == (16, 24, 3)
    assert [row["field"] for row in problems_of(tmp_path / "out")] == ["clutter"]


def test_backslashes_that_an_unpacker_left_in_names_are_folders(tmp_path: Path, classes: Path) -> None:
    index = index_of(write(tmp_path / "set", {f"mine\\{TENCH}\\1.jpg": encoded()}), classes)
    assert [(record.key, record.file) for record in index.records] == [("1", f"mine/{TENCH}/1.jpg")]
    assert index.load(index.records[0]).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("archives", "way"),
    [
        (["PartImageNet.zip"], r"give the \.zip \(root: .*/set/PartImageNet\.zip\)"),
        (["train.tar", "val.tar"], "give the .zip or .tar that has everything"),
        (["val.tar.gz"], "unpack it and give the folder"),
        (["a.7z", "b.rar"], "unpack them and give the folder"),
    ],
)
@pytest.mark.parametrize("kind", ["partimagenet", "folder"])
def test_a_folder_that_holds_archives_says_so(
    tmp_path: Path, classes: Path, archives: list[str], way: str, kind: str
) -> None:
    root = write(tmp_path / "set", {**dict.fromkeys(archives, "PK"), "train.json": coco([])})
    with pytest.raises(UserError, match=way):
        index_of(root, classes, kind)


def test_a_hidden_folder_is_not_entered(tmp_path: Path) -> None:
    """A snapshot of a network disk holds the disk once more for each day, and file systems refuse to list some."""
    root = write(tmp_path / "set", {"1.jpg": encoded(), ".snapshot/daily/1.jpg": encoded()})
    (root / ".snapshot").chmod(0)
    try:
        source = Source(root)
        assert source.names() == ["1.jpg"]
        assert (source.clutter, source.refused) == ({".snapshot": 1}, [])
    finally:
        (root / ".snapshot").chmod(0o700)


def test_the_coco_file_is_whole_for_other_readers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pycocotools 2.0.9 and 2.0.10 look up `info` when they load results; other readers look up `licenses`."""
    from pycocotools.coco import COCO

    root = write(tmp_path / "set", {f"train/{TENCH}_1.JPEG": encoded(), "train.json": coco([f"{TENCH}_1.JPEG"])})
    index = build_train_index(train_set(root, holdout=0), tmp_path / "out")
    ground_truth = COCO(str(index.annotations_path()))
    assert set(ground_truth.dataset) == {"info", "licenses", "images", "annotations", "categories"}
    assert all(isinstance(category["supercategory"], str) for category in ground_truth.dataset["categories"])
    ground_truth.info()
    assert "description: The usable images of the set 'train'" in capsys.readouterr().out
    one = ground_truth.anns[1]
    results = [{key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 1.0}]
    assert len(ground_truth.loadRes(results).anns) == 1


@pytest.mark.parametrize("flat", [True, False])
def test_names_in_capitals_mean_the_same(tmp_path: Path, classes: Path, flat: bool) -> None:
    """As some programs of Windows write the names of an archive."""
    name = "ILSVRC2012_VAL_00000001.JPEG" if flat else f"{TENCH.upper()}/ILSVRC2012_VAL_00000001.JPEG"
    root = write(tmp_path / "set", {name: encoded(), "val.txt": f"ILSVRC2012_val_00000001.JPEG {TENCH}"})
    index = index_of(root, classes, "imagenet", labels="val.txt")
    assert [(record.file, record.wnid) for record in index.records] == [(name, TENCH)]
    assert problems_of(tmp_path / "out") == [], "the label file is used"


def test_a_training_set_in_capitals_is_read(tmp_path: Path) -> None:
    files = {f"TRAIN/{TENCH.upper()}/{TENCH.upper()}_1.JPEG": encoded(), "TRAIN.JSON": coco([f"{TENCH}_1.JPEG"])}
    index = build_train_index(train_set(write(tmp_path / "set", files)), tmp_path / "out")
    assert [(record.key, record.wnid) for record in index.records] == [(f"{TENCH.upper()}_1", TENCH)]

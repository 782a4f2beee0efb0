"""Archives are read in place, in every process, and nothing in them leads out of them."""

from __future__ import annotations

import multiprocessing
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dfeat.data import sources
from dfeat.data.classes import ClassFinder, class_infos, imagenet_wnids, prompt_name
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.section import safe_inside

from .conftest import write, zipped


def make(root: Path, kind: str) -> Path:
    write(
        root,
        {
            "a/1.txt": "one",
            "b.txt": "two",
            "__MACOSX/b.txt": "junk",
            ".DS_Store": "junk",
            "a/._1.txt": "junk",
            "a/.sha256/1.txt": "a digest record",
        },
    )
    if kind == "zip":
        return zipped(root, root.with_suffix(".zip"))
    if kind == "tar":
        with tarfile.open(root.with_suffix(".tar"), "w") as archive:
            archive.add(root, "")
        return root.with_suffix(".tar")
    return root


def read_in_child(source: Source, name: str, queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    queue.put(source.read(name))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_files_are_listed_and_read_alike(tmp_path: Path, kind: str) -> None:
    source = Source(make(tmp_path / "set", kind))
    assert source.names() == ["a/1.txt", "b.txt"]
    assert source.read("a/1.txt") == b"one"
    again = pickle.loads(pickle.dumps(source))
    assert again.read("b.txt") == b"two"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(source, "b.txt", queue))
    child.start()
    assert queue.get(timeout=20) == b"two"
    child.join()
    for name in ("none.txt", "../set/b.txt", "/etc/passwd", "a", "", "a\0b"):
        with pytest.raises(UserError):
            source.read(name)


def test_unsafe_members_are_left_out_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("ok.txt", "../up.txt", "/root.txt", "a/../../b.txt"):
            archive.writestr(name, "x")
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        write(tmp_path, {"ok.txt": "x"})
        archive.add(tmp_path / "ok.txt", "ok.txt")
        for name in ("../up.txt", "/root.txt", "a/../../b.txt"):
            member = tarfile.TarInfo(name)
            archive.addfile(member)
        member = tarfile.TarInfo("link.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    for name in ("x.zip", "x.tar"):
        source = Source(tmp_path / name)
        assert source.names() == ["ok.txt"]
        assert len(source.refused) == 4


def test_damage_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "set", "zip")
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace(b"two", b"TWO"))
    with pytest.raises(UserError, match=r"b\.txt"):
        Source(archive).read("b.txt")
    archive.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="download it again"):
        Source(archive).names()
    tar = make(tmp_path / "set", "tar")
    source = Source(tar)
    source.names()
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(UserError, match="cut off"):
        source.read("a/1.txt")
    with pytest.raises(UserError, match="missing"):
        Source(tmp_path / "none")
    write(tmp_path, {"x.rar": "text"})
    with pytest.raises(UserError, match="neither"):
        Source(tmp_path / "x.rar")
    monkeypatch.setattr(sources, "MAX_FILE", 2)
    with pytest.raises(UserError, match="more than"):
        Source(tmp_path / "set").read("b.txt")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_damaged_archive_is_anything_but_read_or_refused(tmp_path: Path, kind: str) -> None:
    archive = make(tmp_path / "set", kind)
    whole = archive.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        raw = bytearray(whole)
        for place in rng.integers(min(len(raw), 4000), size=3):
            raw[place] = rng.integers(256)
        archive.write_bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.3 else raw)
        try:
            source = Source(archive)
            for name in source.names():
                assert safe_inside("root", name)
                source.read(name)
        except UserError as error:
            assert str(archive) in str(error)


def test_a_link_made_later_is_not_followed(tmp_path: Path) -> None:
    source = Source(make(tmp_path / "set", "folder"))
    source.names()
    write(tmp_path, {"secret.txt": "secret"})
    (tmp_path / "set/b.txt").unlink()
    (tmp_path / "set/b.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match="link"):
        source.read("b.txt")


def test_classes_are_in_the_usual_order() -> None:
    assert len(imagenet_wnids()) == 1000
    assert [prompt_name(imagenet_wnids()[index]) for index in (0, 281, 373, 999)] == [
        "tench",
        "tabby",
        "macaque",
        "toilet tissue",
    ]


def test_names_for_the_prompt() -> None:
    assert prompt_name("n02487347") == "macaque"
    assert prompt_name("n03710721") == "tank suit", "maillot is the name of two classes"
    assert prompt_name("n02012849") == "crane", "has no second name"
    assert prompt_name("n99999999") == "n99999999"
    names = [prompt_name(wnid) for wnid in imagenet_wnids()]
    assert len(names) - len(set(names)) == 1, "only the two cranes share a name"


def test_a_name_of_several_classes_means_the_one_in_the_run() -> None:
    assert ClassFinder(class_infos(["n02012849"])).find("Crane") == "n02012849"
    assert ClassFinder(class_infos(["n02012849", "n03126707"])).find("crane") is None
    assert ClassFinder(class_infos([])).find("potters wheel") == "n03992509"

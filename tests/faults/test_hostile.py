"""Nothing from outside runs code or leaves its folder.

Every attack is made twice: as it is, where it must fail, and with the guard taken out, where it must succeed. So no
test here passes because its attack is a dud.
"""

from __future__ import annotations

import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.config import Settings
from dfeat.data import images, locate, sources
from dfeat.data.images import decode
from dfeat.data.locate import Locator
from dfeat.data.records import Problems
from dfeat.data.settings import TrainSet
from dfeat.data.sources import Source
from dfeat.diffusion import single_file
from dfeat.errors import UserError
from dfeat.report.page import page, write_report
from dfeat.section import parse
from dfeat.storage import shards
from dfeat.storage.records import record_path
from dfeat.storage.shards import Shard, read_shard, write_shard
from dfeat.training import network
from dfeat.training.settings import Backbone
from tests.data.conftest import encoded
from tests.report.predictions import small_settings
from tests.report.test_report import EVIL, write_run

from .conftest import Tried

UNSAFE = ("../up.txt", "/absolute.txt", "a/../../up.txt", "..\\up.txt")
Patch = pytest.MonkeyPatch


def make_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ok.txt", *UNSAFE):
            archive.writestr(name, "x")
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return path


def make_tar(path: Path) -> Path:
    (path.parent / "ok").write_text("x")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "ok", "ok.txt")
        for name in UNSAFE:
            archive.addfile(tarfile.TarInfo(name))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"link{kind!r}.txt")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_in_archives_do_not_lead_out(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: Patch, tried: Tried
) -> None:
    path = make(tmp_path / "archive")
    source = Source(path)
    assert source.names() == ["ok.txt"]
    for name in UNSAFE:
        with pytest.raises(UserError, match="leads out"):
            source.read(name)
    monkeypatch.setattr(sources, "safe_inside", lambda *_: True)
    assert set(Source(path).names()) > {"ok.txt", "../up.txt", "/absolute.txt"}
    tried("name in an archive that leads out", len(UNSAFE), "listed in problems.csv, not read")


def test_links_in_a_folder_do_not_lead_out(tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(secret / "file")
    (root / "folder").symlink_to(secret)
    assert Source(root).names() == []
    for name in ("link", "folder/file", "../secret/file"):
        with pytest.raises(UserError, match="lead"):
            Source(root).read(name)
    monkeypatch.setattr(sources, "_leads_inside", lambda *_: True)
    assert Source(root).read("link") == b"secret"
    tried("link that leads out of a folder", 3, "listed in problems.csv, not read")


@pytest.mark.parametrize("name", ["../../n01440764_1.JPEG", "/etc/n01440764_1.JPEG", "C:\\n01440764_1.JPEG",
                                  "a\\..\\..\\n01440764_1.JPEG"])  # fmt: skip
def test_file_names_in_annotations_do_not_lead_out(name: str, tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    (tmp_path / "n01440764_1.JPEG").write_bytes(encoded())
    problems = Problems("train")
    assert Locator(Source(tmp_path)).find(name, "", problems) is None
    assert "is an absolute path or contains '..'" in problems.csv()
    if not name.startswith("C:"):
        monkeypatch.setattr(locate, "safe_inside", lambda *_: True)
        assert Locator(Source(tmp_path)).find(name, "", problems) is not None
    tried("file_name in annotations that leads out", 1, "a row in problems.csv, image dropped")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickled_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    harm, path = tmp_path / "harm", tmp_path / "model.ckpt"
    with path.open("wb") as file:
        pickle.dump({"state_dict": Bomb(harm)}, file)
    torch.save({"state_dict": Bomb(harm)}, tmp_path / "zip.ckpt")
    for checkpoint in (path, tmp_path / "zip.ckpt"):
        with pytest.raises(UserError):
            single_file.read_checkpoint(checkpoint)
        with pytest.raises(UserError, match=r"holds more than tensors|is not a readable file"):
            network.build_backbone(Backbone(name="convnext_atto", weights=str(checkpoint)))
    assert not harm.exists()
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: real(*args, **(kwargs | {"weights_only": False})))
    with pytest.raises(UserError):
        single_file.read_checkpoint(tmp_path / "zip.ckpt")
    assert harm.exists()
    tried("pickled checkpoint that runs code", 4, "refused, nothing was run")


@pytest.mark.parametrize(
    "bad", ["../../etc", "/etc", "..", ".hidden", "a/b", "a b", "$(id)", "a;b", "-rf", "a\nb", "é", ""]
)
def test_names_in_the_configuration_stay_names(bad: str, tried: Tried) -> None:
    """They become parts of paths and of command lines."""
    places: list[dict[str, Any]] = [
        {"run": bad},
        {"data": {"evaluation": {bad: {"root": "x"}}}},
        {"training": {"backbones": {bad: {"name": "resnet18"}}}},
    ]
    for place in places:
        with pytest.raises(UserError, match="is part of a path, so give letters"):
            parse(Settings, place)

    class Unguarded(Settings):
        run: str = "x"

    assert parse(Unguarded, {"run": bad}).run == bad, "without its pattern any name would be taken"
    tried("name in the configuration that leads out", len(places), "refused in one sentence")


@pytest.mark.parametrize("wnid", ["n0144076", "../n01440764", "n01440764/x"])
def test_a_forced_wnid_is_a_wnid(wnid: str) -> None:
    with pytest.raises(UserError, match="is no wnid; give one such as"):
        parse(TrainSet, {"wnid": wnid})


def test_hdf5_links_are_not_followed(tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    secret = np.full((1, 4), 7, np.float16)
    for name, payload in (("mine.h5", np.zeros((1, 4), np.float16)), ("secret.h5", secret)):
        write_shard(tmp_path / name, Shard("features", 1, {}, "m", ["a"], payload))
    path = tmp_path / "mine.h5"
    record_path(path).unlink()
    digest = h5py.File(tmp_path / "secret.h5").attrs["sha256"]
    with h5py.File(path, "r+") as file:
        del file["feature"]
        file["feature"] = h5py.ExternalLink("secret.h5", "feature")
        file.attrs["sha256"] = digest
    with pytest.raises(UserError, match="link to elsewhere"):
        read_shard(path, "features")
    monkeypatch.setattr(shards, "_fault", lambda *_: None)
    assert (read_shard(path, "features").payload == secret).all()
    tried("HDF5 file with an external link", 1, "refused by name")


def test_images_that_run_programs_are_not_opened(tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    opened: list[str] = []

    def load(self: Any, *_: Any, **__: Any) -> None:
        opened.append(self.format)
        raise OSError("an interpreter would run now")

    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "load", load)
    with pytest.raises(UserError, match="no image that can be read"):
        decode(eps, "x.jpg")
    assert not opened
    monkeypatch.setattr(images, "formats", lambda: None)
    Image.init()
    with pytest.raises(UserError):
        decode(eps, "x.jpg")
    assert opened == ["EPS"]
    tried("image that a program would be run for", 1, "refused by name")


def test_a_picture_that_would_fill_the_memory_is_not_decoded(monkeypatch: Patch, tried: Tried) -> None:
    from tests.data.test_images import png_header

    decoded: list[int] = []
    monkeypatch.setattr(images, "_converted", lambda image, _: decoded.append(image.size) or image)
    bomb = png_header(12_000, 12_000)
    with pytest.raises(UserError, match="100,000,000"):
        decode(bomb, "x.png")
    assert not decoded
    monkeypatch.setattr(images, "MAX_PIXELS", 10**9)
    decode(bomb, "x.png")
    assert decoded == [(12_000, 12_000)]
    tried("decompression bomb", 1, "refused by name")


def test_names_in_the_report_run_nothing(tmp_path: Path, monkeypatch: Patch, tried: Tried) -> None:
    """A class, a cell of a table and the note of a run that are a script: the page shows them as text."""
    script, settings = EVIL.partition("</script>")[0] + "</script>", small_settings(note=EVIL)
    write_run(tmp_path, settings, class_name=EVIL)
    out = tmp_path / "report" / "index.html"
    write_report(tmp_path, settings, out)
    text = out.read_text()
    assert script not in text
    assert text.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") > 5
    real = page._environment
    monkeypatch.setattr(page, "_environment", lambda **_: real(autoescape=False))
    write_report(tmp_path, settings, out)
    text = out.read_text()
    for place in ('<p class="note" role="note">', "<caption><strong>", '<th scope="row">', "<option>"):
        assert place + script in text, place
    tried("script as a name in the report", 4, "shown as text, not run")

"""Where a set's files come from: a folder, a .zip or a .tar, read in place and never unpacked.

What enters: the root a user configured. What leaves: names (relative, '/' between parts, sorted) and bytes.
Links that lead out of the root, absolute names and names with '..' are never followed; `Source.refused` lists them.
What other programs left (`clutter`) is not listed but counted. A name is the same whatever wrote it: backslashes of Windows
are '/', and an archive's names in an old code page are read in it.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final, Literal

from dfeat.data.clutter import is_ours, is_placeholder, left_by_others
from dfeat.data.walk import PLACEHOLDER, code_page, inside, walk
from dfeat.errors import UserError
from dfeat.section import LocalPath, safe_inside
from dfeat.shortage import pass_on

MAX_FILE: Final = 1 << 30
"""Bytes of the largest file that is read: an annotation file has some 100 MB, an image some 0.1 MB."""
_UTF8: Final = 0x800
"""The flag of a zip's member whose name is UTF-8."""


class Source:
    """The files under `root`. May be pickled; every process opens its own handles, when it first reads."""

    def __init__(self, root: Path | LocalPath) -> None:
        self.written = LocalPath(str(PurePath(str(root))))
        """The root as the configuration has it; `root` is where it lies on this machine."""
        self.root = Path(root)
        self.kind = _kind(self.root)
        self.refused: list[tuple[str, str]] = []
        self.clutter: Counter[str] = Counter()
        """How many files and folders that other programs left were left out, by their mark."""
        self.links: dict[str, str] = {}
        """For each name that is a link's: the name of the file inside the root that it means."""
        self.images: list[str] | None = None
        """The names of `files.images_of`, once it was called."""
        self.used: set[str] = set()
        """Names of which a reader used something, or which have a row of their own."""
        self._names: list[str] | None = None
        self._stored: dict[str, str] = {}
        self._members: dict[str, tuple[int, int]] = {}
        self._zip: zipfile.ZipFile | None = None
        self._process = os.getpid()
        self._resolved = self.root.resolve()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}

    def names(self) -> list[str]:
        """The names of all files, sorted; listed on the first call, which also fills `refused`, `clutter` and `links`."""
        if self._names is None:
            found = self._list_folder() if self.kind == "folder" else self._list_archive()
            # Bytes of a name that are not UTF-8 are surrogates in Python's text, which UTF-8 does not encode.
            writable = {name for name in found if name.encode(errors="ignore").decode() == name}
            self.refused += [(ascii(name)[1:-1], "its name is not UTF-8; rename it") for name in found - writable]
            self.refused.sort()
            self._names = sorted(writable)
        return self._names

    def file_of(self, name: str) -> str:
        """The name of the file that a name means: its own, or where it is a link's that of the file which it leads to."""
        return self.links.get(name, name)

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of one file, or the first `most` of them.

        Raises UserError if it is missing, unreadable, too large or outside the root.
        """
        if not safe_inside(str(self.root), name):
            raise UserError(f"{name} leads out of {self.root}; it is not read")
        try:
            return {"folder": self._read_file, "zip": self._read_zip, "tar": self._read_tar}[self.kind](name, most)
        except OSError as error:
            pass_on(error, name)
            raise UserError(f"cannot read {name} in {self.root}: {error.strerror or error}") from None

    def _list_folder(self) -> set[str]:
        found = walk(self.root, self._resolved)
        self.refused, self.clutter = found.refused, found.clutter
        names = {name: self._plain(name, name) for name in found.names}
        self.links = {names[link]: names.get(target, target) for link, target in found.links.items()}
        return set(names.values())

    def _list_archive(self) -> set[str]:
        """The names of the members that are files; a folder that another program left counts once."""
        found: set[str] = set()
        left: dict[str, str] = {}
        for stored, name, fault in self._list_zip() if self.kind == "zip" else self._list_tar():
            name = self._plain(stored, name)
            others = left_by_others(name)
            if is_placeholder(name):
                self.refused.append((name, PLACEHOLDER))
            elif others:
                left[others[0]] = others[1]
            elif fault or not safe_inside("", name):
                self.refused.append((name, fault or "is an absolute path or contains '..'"))
            else:
                found.add(name)
        self.clutter.update(mark for mark in left.values() if not is_ours(mark))
        if self.kind == "tar":
            self._members = {name: self._members[self._stored.get(name, name)] for name in found}
        return found

    def _plain(self, stored: str, name: str) -> str:
        """A name as it is listed, which `_stored` leads back from to the one in the file system or archive."""
        plain = name.replace("\\", "/").removeprefix("./")
        if plain != stored:
            self._stored[plain] = stored
        return plain

    def _read_file(self, name: str, most: int | None) -> bytes:
        path = self.root / name
        if not _leads_inside(path, self._resolved):
            self.names()
            path = self.root / self._stored.get(name, name)
        if not _leads_inside(path, self._resolved):
            raise UserError(f"{name} in {self.root} is missing, or a link that leads out of it; it is not read")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{name} in {self.root} is no plain file; it is not read")
            if most is None:
                _refuse_large(self.root, name, status.st_size)
            return file.read(most)

    def _list_zip(self) -> Iterator[tuple[str, str, str]]:
        """(stored name, readable name, why it is not read or "") of each member that is no folder."""
        members = [info for info in self._open_zip().infolist() if not info.filename.endswith(("/", "\\"))]
        old = [info.filename for info in members if not info.flag_bits & _UTF8 and not info.filename.isascii()]
        page = code_page([name.encode("cp437", "replace") for name in old])
        for info in members:
            name = info.filename
            if not info.flag_bits & _UTF8 and not name.isascii():
                name = name.encode("cp437", "replace").decode(page)
            fault = "is encrypted; unpack it with its password and give the folder" if info.flag_bits & 1 else ""
            linked = stat.S_ISLNK(info.external_attr >> 16)
            yield info.filename, name, "is a link inside an archive; unpack it and give the folder" if linked else fault

    def _open_zip(self) -> zipfile.ZipFile:
        if self._zip is None or self._process != os.getpid():
            try:
                self._zip = zipfile.ZipFile(self.root)
            except Exception as error:  # a damaged directory makes zipfile raise whatever it likes
                pass_on(error, str(self.root))
                raise UserError(f"cannot open {self.root} as a zip archive ({error}); download it again") from None
            self._process = os.getpid()
        return self._zip

    def _read_zip(self, name: str, most: int | None) -> bytes:
        archive = self._open_zip()
        try:
            if name not in archive.NameToInfo:
                self.names()
            info = archive.getinfo(self._stored.get(name, name))
            if most is None:
                _refuse_large(self.root, name, info.file_size)
                return archive.read(info)
            with archive.open(info) as file:
                return file.read(most)
        except KeyError:
            raise UserError(f"{name} is not in {self.root}") from None
        except (UserError, OSError):
            raise
        except Exception as error:  # damaged archives make zipfile and its decompressors raise whatever they like
            pass_on(error, name)
            raise UserError(f"cannot read {name} in {self.root} ({error}); download the archive again") from None

    def _list_tar(self) -> Iterator[tuple[str, str, str]]:
        """As `_list_zip`, of a tar."""
        try:
            with tarfile.open(self.root, "r:") as archive:
                for member in archive:
                    if not member.isdir():
                        plain = member.isreg() and not member.issparse()
                        self._members[member.name] = (member.offset_data, member.size)
                        why = "is a link or no plain file inside an archive; unpack it and give the folder"
                        yield member.name, member.name, "" if plain else why
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
        except Exception as error:  # damaged headers make tarfile raise whatever they like
            pass_on(error, str(self.root))
            raise UserError(
                f"cannot read {self.root} as a tar archive ({error}); download it again, or gunzip it if it is packed"
            ) from None

    def _read_tar(self, name: str, most: int | None) -> bytes:
        self.names()
        if name not in self._members:
            raise UserError(f"{name} is not in {self.root}")
        offset, size = self._members[name]
        if most is None:
            _refuse_large(self.root, name, size)
        size = size if most is None else min(most, size)
        with self.root.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        if len(raw) != size:
            raise UserError(f"{name} in {self.root} is cut off; download the archive again")
        return raw


def _kind(root: Path) -> Literal["folder", "zip", "tar"]:
    try:
        if root.is_dir():
            return "folder"
        if not root.is_file():
            raise UserError(f"{root} is missing (no folder, .zip or .tar is there)")
        with root.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"cannot read {root}: {error.strerror}") from None
    if head[:2] == b"PK":
        return "zip"
    if head[257:262] == b"ustar" or root.suffix == ".tar":
        return "tar"
    raise UserError(f"{root} is neither a folder nor a .zip nor a plain .tar archive; unpack it and give the folder")


def _refuse_large(root: Path, name: str, size: int) -> None:
    if size > MAX_FILE:
        raise UserError(
            f"{name} in {root} has {size:,} bytes, more than the {MAX_FILE:,} that are read; it is not opened"
        )


def _leads_inside(path: Path, root: Path) -> bool:
    return inside(path, root) is not None

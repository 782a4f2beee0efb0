"""Where a set's files come from: a folder, a .zip or a .tar, read in place and never unpacked.

What enters: the root a user configured. What leaves: names (relative, '/' between parts, sorted) and bytes.
Links that lead out of the root, absolute names and names with '..' are never followed; `Source.refused` lists them.
The metadata files of macOS (`__MACOSX`, `._*`, `.DS_Store`) and digest records are not listed.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.errors import UserError
from dfeat.section import safe_inside
from dfeat.shortage import pass_on
from dfeat.storage.records import FOLDER

MAX_FILE: Final = 1 << 30
"""Bytes of the largest file that is read: an annotation file has some 100 MB, an image some 0.1 MB."""


class Source:
    """The files under `root`. May be pickled; every process opens its own handles, when it first reads."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.kind = _kind(self.root)
        self.refused: list[tuple[str, str]] = []
        self._names: list[str] | None = None
        self._members: dict[str, tuple[int, int]] = {}
        self._zip: zipfile.ZipFile | None = None
        self._process = os.getpid()
        self._resolved = self.root.resolve()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}

    def names(self) -> list[str]:
        """The names of all files, sorted; listed on the first call, which also fills `refused`."""
        if self._names is None:
            listing = {"folder": self._walk, "zip": self._list_zip, "tar": self._list_tar}[self.kind]
            found = {name for name in listing() if not _junk(name)}
            # Bytes of a name that are not UTF-8 are surrogates in Python's text, which UTF-8 does not encode.
            writable = {name for name in found if name.encode(errors="ignore").decode() == name}
            self.refused += [(ascii(name)[1:-1], "its name is not UTF-8") for name in found - writable]
            self.refused.sort()
            self._names = sorted(writable)
        return self._names

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises UserError if it is missing, unreadable, too large or outside the root."""
        if not safe_inside(str(self.root), name):
            raise UserError(f"{name} leads out of {self.root}; it is not read")
        try:
            return {"folder": self._read_file, "zip": self._read_zip, "tar": self._read_tar}[self.kind](name)
        except OSError as error:
            pass_on(error, name)
            raise UserError(f"cannot read {name} in {self.root}: {error.strerror or error}") from None

    def _walk(self) -> list[str]:
        found: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError as error:
                pass_on(error, folder)
                self.refused.append((folder or ".", f"cannot be listed ({error.strerror})"))
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink() and not _leads_inside(Path(entry.path), self._resolved):
                    self.refused.append((name, "is a link that is broken or leads out of the root"))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file():  # neither pipes nor devices: they could block for ever
                    found.append(name)
        return found

    def _read_file(self, name: str) -> bytes:
        path = self.root / name
        if not _leads_inside(path, self._resolved):
            raise UserError(f"{name} in {self.root} is missing, or a link that leads out of it; it is not read")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{name} in {self.root} is no plain file; it is not read")
            _refuse_large(self.root, name, status.st_size)
            return file.read()

    def _list_zip(self) -> list[str]:
        found: list[str] = []
        for info in self._open_zip().infolist():
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                self.refused.append((info.filename, "is a link inside an archive"))
            elif info.flag_bits & 1:
                self.refused.append((info.filename, "is encrypted"))
            elif not safe_inside("", info.filename):
                self.refused.append((info.filename, "is an absolute path or contains '..'"))
            else:
                found.append(info.filename)
        return found

    def _open_zip(self) -> zipfile.ZipFile:
        if self._zip is None or self._process != os.getpid():
            try:
                self._zip = zipfile.ZipFile(self.root)
            except Exception as error:  # a damaged directory makes zipfile raise whatever it likes
                pass_on(error, str(self.root))
                raise UserError(f"cannot open {self.root} as a zip archive ({error}); download it again") from None
            self._process = os.getpid()
        return self._zip

    def _read_zip(self, name: str) -> bytes:
        archive = self._open_zip()
        try:
            info = archive.getinfo(name)
            _refuse_large(self.root, name, info.file_size)
            return archive.read(info)
        except KeyError:
            raise UserError(f"{name} is not in {self.root}") from None
        except (UserError, OSError):
            raise
        except Exception as error:  # damaged archives make zipfile and its decompressors raise whatever they like
            pass_on(error, name)
            raise UserError(f"cannot read {name} in {self.root} ({error}); download the archive again") from None

    def _list_tar(self) -> list[str]:
        try:
            with tarfile.open(self.root, "r:") as archive:
                for member in archive:
                    self._add_member(member)
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
        except Exception as error:  # damaged headers make tarfile raise whatever they like
            pass_on(error, str(self.root))
            raise UserError(
                f"cannot read {self.root} as a tar archive ({error}); download it again, or gunzip it if it is packed"
            ) from None
        return list(self._members)

    def _add_member(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        if member.isdir():
            return
        if not member.isreg() or member.issparse():
            self.refused.append((name, "is a link or no plain file inside an archive"))
        elif not safe_inside("", name):
            self.refused.append((name, "is an absolute path or contains '..'"))
        else:
            self._members[name] = (member.offset_data, member.size)

    def _read_tar(self, name: str) -> bytes:
        self.names()
        if name not in self._members:
            raise UserError(f"{name} is not in {self.root}")
        offset, size = self._members[name]
        _refuse_large(self.root, name, size)
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
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError, ValueError) as error:
        pass_on(error, str(path))
        return False


def _junk(name: str) -> bool:
    return any(part in {"__MACOSX", ".DS_Store", FOLDER} or part.startswith("._") for part in name.split("/"))

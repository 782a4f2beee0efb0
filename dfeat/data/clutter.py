"""What other programs leave in a folder of images: copies, thumbnails, metadata, rubbish bins and half downloads.

What enters: the names of a `Source`. What leaves: for each of them the mark of a program that left it there, or nothing.
Hidden files and folders are such by the convention of every Unix program; the others are listed here, compared without
regard to case, as Windows and macOS compare them.
"""

from __future__ import annotations

import re
from typing import Final

from dfeat.storage.records import FOLDER

_NAMES: Final = frozenset(
    {
        "__macosx", "icon\r", "network trash folder", "temporary items", "thefindbycontentfolder", "thevolumesettingsfolder",
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "folder.htt", "system volume information",
        "$recycle.bin", "recycler", "recycled", "found.000", "lost+found", "__pycache__", "cvs",
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin", "@transcode", "#recycle", "#snapshot",
        "picasa.ini", "zbthumbnail.info", "pspbrwse.jbf",
    }
)  # fmt: skip
"""Of macOS, Windows, file systems, Python, network disks (Synology, QNAP), and programs that show pictures."""
_HIDDEN: Final = (
    "._",
    ".~lock.",
    ".nfs",
    ".fuse_hidden",
    ".smbdelete",
    ".goutputstream-",
    ".Trash-",
    ".trashed-",
    ".pending-",
)
"""Beginnings of hidden names that end in a number or in another file's name."""
_ENDINGS: Final = (
    "~", ".crdownload", ".part", ".partial", ".filepart", ".opdownload", ".download", ".aria2", ".!ut", ".!qb", ".tmp", ".temp",
    ".swp", ".swo", ".bak", ".orig", "zone.identifier",
)  # fmt: skip
"""Of downloads that did not end, of editors, and of Windows for files that were downloaded."""
_CONFLICT: Final = re.compile(r"\.sync-conflict-\d{8}-|\bconflicted copy\b", re.IGNORECASE)
"""The second version of a file that Syncthing, Dropbox or Nextcloud keeps."""
_PLACEHOLDER: Final = re.compile(r"\..+\.icloud")


def mark_of(part: str, *, folder: bool = False) -> str | None:
    """The mark by which a file, or a folder, is what another program left; None where its name has none."""
    low = part.lower()
    if part.startswith(".") and part not in (".", ".."):
        beginning = next((f"{one}*" for one in _HIDDEN if part.startswith(one)), "")
        return beginning or (part if folder or "." not in part[1:] else ".*")
    if low in _NAMES:
        return part.rstrip("\r")
    if folder:
        return None
    ending = next((one for one in _ENDINGS if low.endswith(one)), None)
    if ending:
        return f"*{ending}"
    if part.startswith(("~$", "~syncthing~")) or (len(part) > 2 and part[0] == part[-1] == "#"):
        return f"{part[:2]}*" if part[0] == "~" else "#*#"
    return "conflicted copies" if _CONFLICT.search(part) else None


def left_by_others(name: str) -> tuple[str, str] | None:
    """(path, mark) of the outermost part of a name that another program left; None where there is none."""
    parts = name.split("/")
    for place, part in enumerate(parts, 1):
        mark = mark_of(part, folder=place < len(parts))
        if mark is not None:
            return "/".join(parts[:place]), mark
    return None


def is_ours(mark: str) -> bool:
    """Whether it is the folder of digest records, which this project writes: it is left out without a word."""
    return mark == FOLDER


def is_placeholder(name: str) -> bool:
    """Whether iCloud put this file in the place of one that is not on the disk."""
    return _PLACEHOLDER.fullmatch(name.rpartition("/")[2]) is not None

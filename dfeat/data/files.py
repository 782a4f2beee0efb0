"""The files of a source by what they are: its images, and those of which nothing was used.

What enters: a `Source`. What leaves: the names of its images; the name and class of each image file, once whatever links
lead to it; and, when a set was read, a row in `Problems` for what was refused, left out or not used. A file whose name says
nothing of its kind is looked into.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Final

from dfeat.data.images import HEAD, LATER_SUFFIXES, format_of, formats, is_image_name, unread_format
from dfeat.data.records import Problems
from dfeat.data.sources import Source
from dfeat.errors import UserError

_SUFFIX: Final = re.compile(r"\.[a-z][a-z0-9]{0,9}", re.IGNORECASE)
_ARCHIVES: Final = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar")
MOST_ROWS: Final = 100
"""Files of one folder and kind that have a row each; more of them have one row together."""


def images_of(source: Source) -> list[str]:
    """The names of all images, sorted: by their ending, or by their first bytes where the ending does not tell."""
    if source.images is None:
        source.images = [name for name in source.names() if _is_image(source, name)]
    return source.images


def _is_image(source: Source, name: str) -> bool:
    suffix = PurePosixPath(name).suffix
    if is_image_name(name) and suffix.lower() not in LATER_SUFFIXES:
        return True
    if _SUFFIX.fullmatch(suffix) and suffix.lower() not in LATER_SUFFIXES:
        return False
    return format_of(_head(source, name)) in formats()


def _head(source: Source, name: str) -> bytes:
    try:
        return source.read(name, HEAD)
    except UserError:
        return b""


def classified(
    source: Source, class_of: Callable[[str], str | None], problems: Problems
) -> list[tuple[str, str | None]]:
    """(name, class or None) of each image file of the source.

    A file that links lead to has several names: the first with a class counts, and one of another class has a row.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images_of(source), key=lambda name: name in source.links):
        names[source.file_of(name)].append(name)
    found: list[tuple[str, str | None]] = []
    for same in names.values():
        source.used.update(same)
        classes = [class_of(name) for name in same]
        place = next((place for place, wnid in enumerate(classes) if wnid), 0)
        found.append((same[place], classes[place]))
        for name, wnid in zip(same, classes, strict=True):
            if wnid and wnid != classes[place]:
                problems.add(
                    name, "class", f"is a link to the file of {same[place]}, of another class", "used once, as that"
                )
    return sorted(found)


def report_unused(source: Source, problems: Problems) -> None:
    """Add a row for each name that is refused, for each file of which nothing is used, and one for other programs' files."""
    for name, why in source.refused:
        problems.add(name, "file", why, "not read")
    for mark, count in source.clutter.items():
        problems.add(
            mark, "clutter", f"is what another program left: a copy, a thumbnail or metadata ({count:,}x)", "left out"
        )
    used, images = {source.file_of(name) for name in source.used}, set(images_of(source))
    there = set(source.names())
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in source.names():
        file = source.file_of(name)
        if file not in used and (file == name or file not in there):
            folders[str(PurePosixPath(name).parent), _why_unused(source, name, images)].append(name)
    for (folder, why), names in folders.items():
        if len(names) > MOST_ROWS:
            problems.add(
                f"{folder}/", "unused", f"{len(names):,} files ({names[0]}, ...), each of which {why}", "not used"
            )
        else:
            for name in names:
                problems.add(name, "unused", why, "not used")


def _why_unused(source: Source, name: str, images: set[str]) -> str:
    if is_archive(name):
        return "is an archive; unpack it, or give it as the root"
    if name in images:
        return "is an image that no record names"
    head = _head(source, name)
    found = format_of(head)
    if found in formats():
        way = "convert it to JPEG or PNG" if found == "TIFF" else f"rename it to end in .{found.lower()}"
        return f"is {found} by its content and {PurePosixPath(name).suffix} by its name; {way} to have it used"
    return unread_format(head) or "is no image, and nothing of the set names it"


def is_archive(name: str) -> bool:
    """Whether a file's name says that it is an archive."""
    return name.lower().endswith(_ARCHIVES)


def refuse_packed(source: Source) -> None:
    """Raise UserError where a set has no image but archives, which hold its images."""
    packed = [name for name in source.names() if is_archive(name)]
    if not packed or images_of(source):
        return
    readable = [name for name in packed if name.lower().endswith((".zip", ".tar"))]
    there = ", ".join(packed[:3]) + (", ..." if len(packed) > 3 else "")
    if source.kind != "folder" or not readable:
        way = "unpack it and give the folder" if len(packed) == 1 else "unpack them and give the folder"
    elif len(packed) == 1:
        way = f"give the {PurePosixPath(packed[0]).suffix} (root: {source.written}/{packed[0]}), or unpack it there"
    else:
        way = "give the .zip or .tar that has everything as the root, or unpack them there"
    raise UserError(f"{source.written} holds no image but {there}; {way}")


def unused(names: Iterable[str], source: Source) -> int:
    """How many files the names mean of which nothing is used."""
    used = {source.file_of(name) for name in source.used}
    return len({source.file_of(name) for name in names} - used)

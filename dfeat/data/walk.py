"""The files under a folder, each once: links inside it are followed, links out of it are not, and no loop is endless.

What enters: a folder. What leaves: names of plain files, what a link among them means, and what is not read, with why.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dfeat.data.clutter import is_ours, is_placeholder, mark_of
from dfeat.shortage import pass_on

PLACEHOLDER: Final = "stands for a file that iCloud keeps elsewhere; download that one"
_NO_FILE: Final = "is a pipe, a socket or a device, not a file"


@dataclass
class Found:
    """What lies under a folder. `links` has for each name of `names` that is a link's the name of the file it means."""

    names: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    clutter: Counter[str] = field(default_factory=Counter)


def walk(root: Path, resolved: Path) -> Found:
    """List what is under `root`, whose real path is `resolved`."""
    found = Found()
    found.names, more = _list(root, "", found)
    links = deque(more)
    followed: dict[str, str] = {}
    while links:
        name = links.popleft()
        target = inside(root / name, resolved)
        if target is None:
            found.refused.append((name, _why_not(root / name)))
        elif (resolved / target).is_file():
            found.links[name] = target
        elif not (resolved / target).is_dir():
            found.refused.append((name, _NO_FILE))
        elif target == "." or f"{_real(root / name, resolved)}/".startswith(f"{target}/"):
            continue  # a folder around it, whose files are listed
        elif target in followed:
            found.refused.append((name, f"is a second link to {target}, whose files are listed as {followed[target]}"))
        else:
            followed[target] = name
            below = _under(found.names, target)
            if not below:  # a hidden folder, say, which is listed by its link alone
                names, more = _list(root, name, found)
                below = [target + one[len(name) :] for one in names]
                links += more
            found.links |= {name + one[len(target) :]: one for one in below}
    found.names += found.links
    return found


def _list(root: Path, top: str, found: Found) -> tuple[list[str], list[str]]:
    """The plain files and the links under a folder, sorted; what is neither is added to `found`."""
    names, links, folders = [], [], [top]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            pass_on(error, folder)
            found.refused.append((folder or ".", f"cannot be listed ({error.strerror})"))
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            mark = mark_of(entry.name, folder=entry.is_dir(follow_symlinks=False))
            if is_placeholder(entry.name):
                found.refused.append((name, PLACEHOLDER))
            elif mark is not None:
                found.clutter.update([] if is_ours(mark) else [mark])
            elif entry.is_symlink():
                links.append(name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                names.append(name)
            else:  # it could block for ever
                found.refused.append((name, _NO_FILE))
    return sorted(names), sorted(links)


def inside(path: Path, root: Path) -> str | None:
    """The place of a path inside the real path `root`, every link followed; None where it is not there or leads out."""
    try:
        real = path.resolve(strict=True)
        return real.relative_to(root).as_posix() if real.is_relative_to(root) else None
    except (OSError, RuntimeError, ValueError) as error:
        pass_on(error, str(path))
        return None


def _real(link: Path, root: Path) -> str:
    """The place of the link itself, the links in its folders followed."""
    return f"{inside(link.parent, root)}/{link.name}".removeprefix("./")


def _why_not(link: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        pass_on(error, str(link))
        return "is a link to nothing or to itself; take it away, or put its file there"
    return (
        f"is a link that leads out of the root, to {target}; copy its files in (cp -rL), or give as root a folder "
        "that holds both"
    )


def _under(names: Sequence[str], folder: str) -> list[str]:
    """The sorted names that lie in a folder."""
    return list(names[bisect_left(names, f"{folder}/") : bisect_left(names, f"{folder}0")])  # "0" comes after "/"


def code_page(names: Sequence[bytes]) -> str:
    """The encoding in which all names have Latin letters alone beside ASCII, as Western programs write zip archives.

    UTF-8 without its flag is macOS's, cp437 and cp850 are Windows Explorer's, cp1252 (Latin 1 but for rare letters) is that of others.
    """
    for page in ("utf-8", "cp437", "latin-1", "cp850", "cp1252"):
        try:
            letters = {letter for name in names for letter in name.decode(page) if not letter.isascii()}
        except UnicodeDecodeError:
            continue
        if page == "utf-8" or all(unicodedata.name(letter, "").startswith("LATIN") for letter in letters):
            return page
    return "cp437"

"""Classes of ImageNet by WordNet id (wnid): their order, their names, and which class a folder's name means.

What enters: timm's packaged tables, read as plain text (importing timm costs seconds, and nothing of it but these
tables is needed). What leaves: wnids, names for the prompt "A class of <object_class>" [Sec. 4.2].
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from dfeat.data.records import ClassInfo
from dfeat.errors import UserError

WNID: Final = re.compile(r"n\d{8}", re.ASCII)


def is_wnid(text: str) -> bool:
    """Whether `text` is a WordNet noun id: n and eight digits."""
    return WNID.fullmatch(text) is not None


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 wnids of ImageNet-1k in the order of the usual class indices, which is sorted order."""
    return tuple(_table("imagenet_synsets.txt").split())


@cache
def _lemma_table() -> dict[str, tuple[str, ...]]:
    rows = (line.partition("\t") for line in _table("imagenet_synset_to_lemma.txt").splitlines())
    return {wnid: tuple(part.strip() for part in text.split(",") if part.strip()) for wnid, _, text in rows}


@cache
def _first_lemma_uses() -> Counter[str]:
    return Counter(lemmas(wnid)[0] for wnid in imagenet_wnids())


def lemmas(wnid: str) -> tuple[str, ...]:
    """All names of a class, the commonest first; the wnid itself where it is unknown."""
    return _lemma_table().get(wnid) or (wnid,)


def prompt_name(wnid: str) -> str:
    """The name of a class for the prompt: its first lemma, or the wnid where it has none.

    Where another class of ImageNet-1k has the same first lemma (maillot) it is the second lemma, if there is one: crane,
    the bird and the machine, has no other name in WordNet.
    """
    names = lemmas(wnid)
    if len(names) > 1 and _first_lemma_uses()[names[0]] > 1:
        return names[1]
    return names[0]


def class_infos(wnids: Iterable[str]) -> tuple[ClassInfo, ...]:
    """The classes of a run: sorted by wnid; a class's label is its place here."""
    return tuple(ClassInfo(wnid, prompt_name(wnid)) for wnid in sorted(set(wnids)))


class ClassFinder:
    """Finds the class that a folder or a manifest names, by wnid or by any lemma.

    Case, spaces, underscores, hyphens and apostrophes do not matter. A lemma of several classes means the
    one that is in the run; it stays unknown where several are.
    """

    def __init__(self, classes: Iterable[ClassInfo]) -> None:
        self._run = {info.wnid for info in classes}
        self._known = self._run | set(imagenet_wnids())
        self._by_name: dict[str, set[str]] = {}
        named = [(info.name, info.wnid) for info in classes]
        named += [(lemma, wnid) for wnid in self._known for lemma in lemmas(wnid)]
        for name, wnid in named:
            self._by_name.setdefault(_plain(name), set()).add(wnid)

    def find(self, text: str) -> str | None:
        """The wnid that `text` means, or None."""
        wnid = text.strip().lower()
        if is_wnid(wnid):
            return wnid
        found = self._by_name.get(_plain(text), set())
        chosen = found if len(found) == 1 else found & self._run
        return next(iter(chosen)) if len(chosen) == 1 else None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _table(name: str) -> str:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package timm is not installed; its class tables are needed: pip install timm")
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / "_info" / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read timm's class table {path}: {error.strerror}; reinstall timm") from None

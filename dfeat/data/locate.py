"""Find the file that an annotation's `file_name` means, whatever folders were nested around it.

What enters: the names in a `Source`. What leaves: one of them for each `file_name`, or a row in `Problems`.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import PurePosixPath

from dfeat.data.files import images_of, unused
from dfeat.data.images import stem_of
from dfeat.data.records import Problems
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.section import safe_inside


class Locator:
    """Names of images by base name, and by stem for files whose ending or case was changed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in images_of(source):
            path = PurePosixPath(name)
            if not any(part.lower().startswith("annotation") for part in path.parts[:-1]):
                self._by_name[_composed(path.name)].append(name)
                self._by_stem[_composed(stem_of(name)).casefold()].append(name)

    def images(self) -> list[str]:
        """All image files, without what lies in folders of annotations."""
        return [name for names in self._by_name.values() for name in names]

    def stems(self) -> set[str]:
        """Stems of all images."""
        return {stem_of(name) for name in self._by_name}

    def unused(self) -> int:
        """The number of images that no record named."""
        return unused(self.images(), self._source)

    def knows(self, file_name: str) -> bool:
        """Whether there is any file that `file_name` could mean."""
        return bool(self._of_stem(_composed(PurePosixPath(file_name.replace("\\", "/")).name)))

    def _of_stem(self, base: str) -> list[str]:
        """The images whose name is `base` but for the ending or case."""
        stems = (stem_of(base).casefold(), PurePosixPath(base).stem.casefold())
        return next((self._by_stem[stem] for stem in stems if stem in self._by_stem), [])

    def find(self, file_name: str, split: str, problems: Problems) -> str | None:
        """The file that `file_name` means in `split`; None, with a row in `problems`, where none or several do."""
        wanted = file_name.replace("\\", "/")
        if not safe_inside("root", wanted) or wanted[1:3] == ":/":
            problems.add(file_name, "file_name", "is an absolute path or contains '..'", "image dropped")
            return None
        base = _composed(PurePosixPath(wanted).name)
        matches = self._by_name.get(base, [])
        if not matches:
            matches = self._of_stem(base)
            if matches:
                problems.add(file_name, "file_name", f"is there as {matches[0]}", "that file taken")
        found = self._one_of(matches, _composed(wanted), split)
        if found is None:
            what = f"means several files ({', '.join(matches[:3])})" if matches else "is not there"
            problems.add(file_name, "file_name", what, "image dropped with its annotations")
        else:
            self._source.used.add(found)
        return found

    def _one_of(self, matches: list[str], wanted: str, split: str) -> str | None:
        if len(matches) > 1:
            matches = [name for name in matches if f"/{_composed(name)}".endswith(f"/{wanted}")] or matches
        if len(matches) > 1 and split:
            own = [name for name in matches if split in PurePosixPath(name.lower()).parts[:-1]]
            matches = own or matches
        if len(matches) > 1 and self._identical(matches):
            matches = matches[:1]
        return matches[0] if len(matches) == 1 else None

    def _identical(self, names: list[str]) -> bool:
        """Whether all the files have the same bytes: a copy nested in a copy does no harm, nor does a link."""
        if len({self._source.file_of(name) for name in names}) == 1:
            return True
        try:
            first = self._source.read(names[0])
            return all(self._source.read(name) == first for name in names[1:])
        except UserError:
            return False


def _composed(name: str) -> str:
    """`name` in Unicode NFC: macOS stores accents decomposed (NFD), annotations have them composed."""
    return unicodedata.normalize("NFC", name)

"""The origin of a job's tables: a JSON file beside them that records what they were made from.

What enters: the facts to record, and the contents of the job's files. What leaves: the JSON, to be written together
with them, with the SHA-256 of each file under `files`; and, read back, an `Origin` that rejects any other file. The
tables have fixed columns with no place for this, and a digest record is copied together with its file, so neither can
show that a table belongs where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfeat.errors import UserError
from dfeat.storage.atomic import json_bytes
from dfeat.storage.provenance import bytes_digest
from dfeat.storage.records import decoded, read_digested, read_json, refusal


@dataclass(frozen=True)
class Origin:
    """The content `said` of the JSON file `path`, and the verb `remake` that makes it and the files beside it."""

    path: Path
    said: dict[str, Any]
    remake: str

    def check(self, file: Path, digest: str) -> None:
        """Raise UserError unless `files` lists a file beside `path` with this SHA-256."""
        if file.name not in self.said["files"]:
            raise refusal(file, f"{self.path.name} beside it does not list it", self.remake)
        if self.said["files"][file.name] != digest:
            raise refusal(file, f"it is another file than {self.path.name} beside it lists", self.remake)

    def read_text(self, file: Path) -> str:
        """The text of a file beside `path`, hashed once for its digest record and for `check`."""
        content, digest = read_digested(file, self.remake)
        self.check(file, digest)
        return decoded(file, content, self.remake)

    def refusal(self, reason: str) -> UserError:
        """The error for an origin that is not the expected one."""
        return refusal(self.path, reason, self.remake)


def origin_bytes(said: Mapping[str, Any], contents: Mapping[Path, bytes]) -> bytes:
    """The JSON to write beside the files of `contents`: `said`, and their digests under `files`."""
    return json_bytes({**said, "files": {path.name: bytes_digest(content) for path, content in contents.items()}})


def read_origin(path: Path, remake: str, needed: Mapping[str, type]) -> Origin:
    """Read an origin file. Raises UserError if it is missing or damaged, or lacks one of `needed` (names and types)."""
    said = read_json(path, remake)
    if not isinstance(said, dict):
        raise refusal(path, "it is not a JSON object", remake)
    lacking = [name for name, kind in {**needed, "files": dict}.items() if not isinstance(said.get(name), kind)]
    if lacking:
        raise refusal(path, f"it does not say {', '.join(lacking)}", remake)
    return Origin(path, said, remake)

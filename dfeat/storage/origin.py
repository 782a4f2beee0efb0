"""What a job says of the tables it wrote: a JSON file beside them, which names what they were made of.

What enters: what is to be said, and the contents of the job's files. What leaves: the JSON, to be written in the same
breath, with the SHA-256 of each file under `files`; and read back, an `Origin` that refuses any other file. A table in
a fixed format has no room for this, and a digest record moves along with the file that it is of.
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
    """What `path` says of the files beside it, and the verb `remake` that makes all of them again."""

    path: Path
    said: dict[str, Any]
    remake: str

    def check(self, file: Path, digest: str) -> None:
        """Refuse a file beside `path` whose SHA-256 is not the one that is said."""
        if file.name not in self.said["files"]:
            raise refusal(file, f"{self.path.name} beside it does not tell of it", self.remake)
        if self.said["files"][file.name] != digest:
            raise refusal(file, f"it is another file than {self.path.name} beside it tells of", self.remake)

    def read_text(self, file: Path) -> str:
        """The text of a file beside `path`, hashed once for its digest record and for `check`."""
        content, digest = read_digested(file, self.remake)
        self.check(file, digest)
        return decoded(file, content, self.remake)

    def refusal(self, reason: str) -> UserError:
        """The sentence for an origin that is not the one that is wanted."""
        return refusal(self.path, reason, self.remake)


def origin_bytes(said: Mapping[str, Any], contents: Mapping[Path, bytes]) -> bytes:
    """The JSON beside the files of `contents`: what is `said` of them, and their digests."""
    return json_bytes({**said, "files": {path.name: bytes_digest(content) for path, content in contents.items()}})


def read_origin(path: Path, remake: str, needed: Mapping[str, type]) -> Origin:
    """Read such a file. UserError where it is missing, damaged, or lacks one of `needed`, names with the type of each."""
    said = read_json(path, remake)
    if not isinstance(said, dict):
        raise refusal(path, "it is not a JSON object", remake)
    lacking = [name for name, kind in {**needed, "files": dict}.items() if not isinstance(said.get(name), kind)]
    if lacking:
        raise refusal(path, f"it does not say {', '.join(lacking)}", remake)
    return Origin(path, said, remake)

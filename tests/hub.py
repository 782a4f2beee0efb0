"""A stand-in for the Hub on loopback: repositories held in memory, served as the Hub serves them.

Small files come straight from `resolve`; large ones (`.safetensors`, `.bin`) by a redirect to another path, as from the
Hub's CDN, where ranges are served. Faults are set by the test: a gated repository, a transfer that breaks, wrong bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin")
Files = dict[str, bytes]


@dataclass
class StandIn:
    """The repositories: the commits of each, last the one that main is at, and the files at each commit."""

    url: str = ""
    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    gated: dict[str, str] = field(default_factory=dict)
    """Repositories that only this token may read."""
    broken: set[str] = field(default_factory=set)
    """Names of files whose next transfer ends in the middle."""
    wrong: set[str] = field(default_factory=set)
    """Names of files that come with a changed byte."""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests, by method and path."""
    ranges: list[str] = field(default_factory=list)
    """The ranges that were asked for."""

    def add(self, repository: str, files: Files) -> str:
        """Add a commit; returns its name."""
        commits = self.repositories.setdefault(repository, {})
        commit = hashlib.sha1(f"{repository}{len(commits)}".encode()).hexdigest()
        commits[commit] = files
        return commit

    def sent(self, name: str) -> int:
        """How often the bytes of a file were asked for."""
        return sum(count for path, count in self.asked.items() if path.startswith("GET") and path.endswith(name))


def files_in(folder: Path) -> Files:
    """The files of a folder as those of a repository."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serve a stand-in from a thread for the length of the block."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _info(repository: str, commit: str, files: Files) -> dict[str, Any]:
    siblings = []
    for name, content in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        one: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name.endswith(LARGE):
            one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        siblings.append(one)
    return {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "private": False, "tags": []}


def _handler(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked[f"{self.command} {self.path}"] += 1
            listed = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^?]+))?(?:\?.*)?", self.path)
            tree = re.fullmatch(r"/api/models/([^/]+/[^/?]+)/tree/([^?]+)(?:\?.*)?", self.path)
            named = re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            found = listed or tree or named
            if found is None:
                return self.answer(b"{}", 404)
            repository, revision = found[1], found[2] or "main"
            if repository not in hub.repositories:
                return self.refuse(401, "RepoNotFound")
            commits = hub.repositories[repository]
            commit = list(commits)[-1] if revision == "main" else revision
            if commit not in commits:
                return self.refuse(404, "RevisionNotFound")
            if listed:
                return self.answer(json.dumps(_info(repository, commit, commits[commit])).encode())
            if tree:
                info = _info(repository, commit, commits[commit])["siblings"]
                entries = [
                    {"type": "file", "path": one["rfilename"], "size": one["size"], "oid": one["blobId"]}
                    | ({"lfs": one["lfs"] | {"oid": one["lfs"]["sha256"]}} if "lfs" in one else {})
                    for one in info
                ]
                return self.answer(json.dumps(entries).encode())
            assert named is not None
            return self.file(repository, commit, named[3])

        do_HEAD = do_GET

        def file(self, repository: str, commit: str, name: str) -> None:
            token = hub.gated.get(repository)
            far = self.path.startswith("/cdn/")
            if token and not far and self.headers.get("Authorization") != f"Bearer {token}":
                return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            content = hub.repositories[repository][commit].get(name)
            if content is None:
                return self.refuse(404, "EntryNotFound")
            large = name.endswith(LARGE)
            digest = (hashlib.sha256(content) if large else hashlib.sha1(content)).hexdigest()
            stated = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
            if large and not far:
                linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
                return self.answer(b"", 302, stated | linked | {"Location": f"{hub.url}/cdn{self.path}"})
            if name in hub.wrong:
                content = bytes([content[0] ^ 1]) + content[1:]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            if start:
                hub.ranges.append(self.headers["Range"])
                stated["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if name in hub.broken and self.command == "GET":
                hub.broken.remove(name)
                return self.answer(content, 200, stated, sent=len(content) // 2)
            return self.answer(content[start:], 206 if start else 200, stated)

        def answer(
            self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, sent: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:sent])
            if sent is not None:
                self.wfile.flush()
                self.close_connection = True

        def refuse(self, status: int, code: str) -> None:
            self.answer(b"{}", status, {"X-Error-Code": code, "X-Error-Message": code})

        def log_message(self, *_: Any) -> None:
            pass

    return Handler

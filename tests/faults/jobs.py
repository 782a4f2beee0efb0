"""The verbs as jobs: a command line, where it writes, and a process that runs it and can be killed.

A job's process is forked from a server that has the libraries imported but has computed nothing, so it is at work
after milliseconds; what it runs is the command line's own `main`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfeat.storage.journal import is_journal
from dfeat.storage.records import FOLDER

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.warm"])


@dataclass(frozen=True)
class Job:
    """A verb with its arguments; `{out}` in them is the folder that it is given to write in."""

    name: str
    arguments: tuple[str, ...]

    def start(self, out: Path, log: Path, limit: int | None = None) -> Any:
        """A process that runs the verb into `out`; what it prints goes to `log`.

        `limit` is how many bytes of address space it may take beyond what the server has.
        """
        words = [word.replace("{out}", str(out)) for word in self.arguments]
        process = FORKS.Process(target=_run, args=(words, str(log), limit))
        process.start()
        return process

    def run(self, out: Path, log: Path, limit: int | None = None) -> int:
        """Run the verb to its end; returns the exit status."""
        process = self.start(out, log, limit)
        process.join(120)
        assert process.exitcode is not None, f"{self.name} did not end"
        return int(process.exitcode)


def _run(words: list[str], log: str, limit: int | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if limit is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + limit, resource.RLIM_INFINITY))
    multiprocessing.set_start_method("fork", force=True)  # a training's workers are its own, as of the command line
    sys.argv = ["dfeat", *words]
    if words[0] == "demo-model":  # the tool beside the package
        from tools.demo_models.__main__ import main

        del sys.argv[1]
    else:
        from dfeat.cli import main

    try:
        main()
    except SystemError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
        main()  # Python had no memory to enter it, so none of its lines ran


def artifacts(folder: Path) -> dict[str, str]:
    """Digest of every file under a final name; of run.json without the seconds, of a page without where it lies."""
    place = str(folder).encode()
    return {
        path.relative_to(folder).as_posix(): digest_of(path.name, path.read_bytes().replace(place, b"."))
        for path in sorted(folder.rglob("*"))
        if is_artifact(path)
    }


def is_artifact(path: Path) -> bool:
    """Whether a file has a final name: no record, and nothing that a job has while it is at work."""
    return path.is_file() and path.parent.name != FOLDER and ".tmp." not in path.name and not is_journal(path)


def digest_of(name: str, content: bytes) -> str:
    """SHA-256 of an artifact, leaving out what a clock wrote, and how far the way is from a page to its files."""
    if name == "run.json":
        content = json.dumps({**json.loads(content), "seconds": 0}).encode()
    if name == "index.html":
        content = re.sub(rb'href="(\.\./)+', b'href="', content)
    return hashlib.sha256(content).hexdigest()

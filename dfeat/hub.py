"""Files of models on the Hub: the only door to the network, and the folder where `dfeat fetch` puts them.

What enters: a repository, a commit and the names of files in it. What leaves: their places on this disk, or one sentence
that names the remedy. huggingface_hub does the work; it takes HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dfeat.errors import MACHINE, MachineError, UserError
from dfeat.progress import shows_bars
from dfeat.shortage import pass_on
from dfeat.storage.provenance import unguarded_file_digest

WEIGHTS: Final = Path("weights")
"""The folder in the working folder where fetched files are, as weights/<repository>/<commit>/<file>."""
_NETWORK: Final = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet"}
"""Packages whose exceptions mean that the network, or the Hub, is at fault."""


class UnreachableError(UserError):
    """The Hub cannot be asked: HF_HUB_OFFLINE is set, or there is no network."""


@dataclass(frozen=True)
class HubFile:
    """A file as the Hub states it: its size, and its SHA-256 or, for a small one, git's digest of it (SHA-1)."""

    name: str
    size: int
    sha256: str | None
    git: str

    def fault(self, path: Path) -> str | None:
        """What is wrong with a file on this disk that should be this one; None if it is the same."""
        size = path.stat().st_size
        if size != self.size:
            return f"it has {size:,} bytes, the Hub states {self.size:,}"
        if self.sha256 is not None:
            kind, wanted, found = "SHA-256", self.sha256, unguarded_file_digest(path)
        else:
            blob = b"blob %d\0" % size + path.read_bytes()  # as git names a file
            kind, wanted, found = "git digest", self.git, hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        return None if wanted in (found, "") else f"its {kind} is {found}, the Hub states {wanted}"


@dataclass(frozen=True)
class Listing:
    """A repository at a commit, and its files by name."""

    repository: str
    commit: str
    files: dict[str, HubFile]


def folder_of(repository: str, commit: str) -> Path:
    """Where the files of a repository at a commit are, once they are fetched."""
    return WEIGHTS / repository / commit


def offline() -> bool:
    """Whether HF_HUB_OFFLINE keeps the Hub from being asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def list_files(repository: str, commit: str | None = None) -> Listing:
    """The files of a repository at a commit, by default that of its main branch now. Raises UserError."""
    from huggingface_hub import HfApi

    with _asked(repository, commit):
        info = HfApi().model_info(repository, revision=commit, files_metadata=True)
    files = {
        one.rfilename: HubFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None, one.blob_id or "")
        for one in info.siblings or ()
    }
    assert info.sha is not None
    return Listing(repository, info.sha, files)


def download(repository: str, commit: str, name: str, into: Path, afresh: bool = False) -> Path:
    """Download a file into a folder, or copy it from huggingface_hub's cache unless `afresh`. Raises UserError."""
    from huggingface_hub import hf_hub_download

    with _asked(repository, commit, name):
        return Path(hf_hub_download(repository, name, revision=commit, local_dir=into, force_download=afresh))


def cached(repository: str, commit: str, name: str) -> Path | None:
    """A file that lies in `folder_of` or in huggingface_hub's cache; None where it is in neither."""
    fetched = folder_of(repository, commit) / name
    if fetched.is_file():
        return fetched
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def first_of(repository: str, commit: str | None, names: Sequence[str]) -> Path:
    """The first of these files that there is: one on this disk, else one that is downloaded into the cache.

    Raises UserError if there is none, or the Hub cannot be asked.
    """
    from huggingface_hub import hf_hub_download

    found = next(filter(None, (cached(repository, commit, name) for name in names)), None) if commit else None
    if found is not None:
        return found
    for name in names[:-1]:
        try:
            with _asked(repository, commit, name):
                return Path(hf_hub_download(repository, name, revision=commit))
        except _MissingError:
            continue
    with _asked(repository, commit, names[-1]):
        return Path(hf_hub_download(repository, names[-1], revision=commit))


def snapshot(repository: str, commit: str, names: Collection[str]) -> Path:
    """Download these files of a repository into the cache; returns their folder. Raises UserError."""
    from huggingface_hub import snapshot_download

    with _asked(repository, commit):
        return Path(snapshot_download(repository, revision=commit, allow_patterns=list(names)))


class _MissingError(UserError):
    """A repository lacks a file."""


@contextmanager
def _asked(repository: str, commit: str | None, name: str = "") -> Iterator[None]:
    """Inside, what the Hub refuses and what keeps it from being asked raises UserError; no bars but on a terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = not shows_bars() and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    except Exception as error:
        pass_on(error, repository)
        told = _refusal(error, repository, commit, name)
        if told is None:
            raise
        raise told from None
    finally:
        if hidden:
            enable_progress_bars()


def _refusal(error: Exception, repository: str, commit: str | None, name: str) -> UserError | None:
    """The sentence for what the Hub refuses or what keeps it from being asked; None for any other error."""
    from huggingface_hub import constants, errors

    at = f"{repository} at {commit or 'main'}"
    page = f"{constants.ENDPOINT}/{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{repository} is gated: accept its terms at {page}, then set HF_TOKEN to a token of yours (or run "
            "`hf auth login`) and give the command again"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"the Hub has no repository {repository} that you may see ({page}); check its name, and for a private one set "
            "HF_TOKEN to a token of yours"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"{repository} has no commit {commit} on the Hub; take the `revision`, or its line in config/pinned.yaml, out, "
            "and `dfeat fetch` pins the commit that it stands at now"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return _MissingError(f"{at} has no file {name}; take another commit of it, or another model")
    if status in (401, 403):
        return UserError(
            f"the Hub does not take the token for {repository} ({status}); set HF_TOKEN to one that is valid"
        )
    if isinstance(error, OSError) and error.errno in MACHINE:
        return MachineError(f"cannot fetch {name} of {at}: {error.strerror}; make room, and give the command again")
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK:
        return UnreachableError(f"cannot fetch {f'{name} of ' if name else ''}{at} ({_cause(error)})")
    return None


def _cause(error: BaseException) -> str:
    """The end of a chain of errors, in one line."""
    if offline():
        return "HF_HUB_OFFLINE is set"
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__

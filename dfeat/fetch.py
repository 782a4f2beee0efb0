"""Fetch the models of a run from the Hub: pin each to a commit, get the files that are read, verify them.

What enters: the settings, and the Hub. What leaves: files under `weights/`, whole and verified or not at all, and the
commits of the models without a `revision` in `config/pinned.yaml`, over which every configuration is laid.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from dfeat import hub
from dfeat.config import Settings
from dfeat.config.files import PINNED, read_pins
from dfeat.config.reading import parsed
from dfeat.config.run import ablation_points
from dfeat.diffusion.layout import files_read, is_hub_id, local_files
from dfeat.diffusion.settings import ModelSource
from dfeat.doctor.machine import free_bytes
from dfeat.doctor.weights import diffusion_models
from dfeat.errors import UserError
from dfeat.hub import WEIGHTS, HubFile, Listing, UnreachableError
from dfeat.storage.atomic import locked, staged, write_bytes
from dfeat.training.settings import Backbone
from dfeat.training.weights import hub_weights

HEAD: Final = """\
# The commit at which each model of the Hub was fetched, written by `dfeat fetch`. Every configuration is laid over
# this file: a `revision` there wins. To take a model's newest commit, remove its line and run `dfeat fetch` again.
pins:
"""
_STAGING: Final = ".fetching-"


@dataclass
class Model:
    """A model of the run that is on the Hub: its name in the configuration, and what is read of its repository."""

    name: str
    repository: str
    revision: str | None
    read: Callable[[Listing], list[str]]
    here: Callable[[str], bool]
    """Whether all that is read at a commit is on this disk, as far as can be told without the Hub."""
    listing: Listing | None = None
    files: dict[str, HubFile] = field(default_factory=dict)
    """The files that are read, by name, as the Hub states them."""

    @property
    def folder(self) -> Path:
        """Where its files go."""
        assert self.listing is not None
        return hub.folder_of(self.repository, self.listing.commit)

    def left(self) -> list[HubFile]:
        """The files that are not here, or not with the size that the Hub states."""
        return [file for name, file in self.files.items() if not _stands(self.folder / name, file)]


def fetch(settings: Settings, dry_run: bool, say: Callable[[str], object]) -> None:
    """Fetch and pin every Hub model of the run, or with `dry_run` tell what would be fetched.

    Raises:
        UserError: The Hub refuses or lacks something, or cannot be asked, and then what is missing; a file that is not
            as the Hub states it, which is not kept; a `config/pinned.yaml` that holds something else; a full disk.
    """
    read_pins()
    models = hub_models(settings)
    if not models:
        say("every model of this run is a local one, so there is nothing to fetch")
        return
    with locked(WEIGHTS, lambda: say(f"waits for another `dfeat fetch`, which holds {WEIGHTS}")):
        pins = read_pins()
        for model in models:
            model.revision = model.revision or pins.get(model.name)
        try:
            _list(models)
        except UnreachableError as error:
            _check_offline(models, error)
            say(f"{error}; every model of this run is on this disk, and was compared with nothing")
            return
        for model in models:
            say(_line(model))
        missing = {model.folder / file.name: file for model in models for file in model.left()}.values()
        _check_room(missing)
        if dry_run:
            say(f"{_size(missing)} would be fetched into {WEIGHTS}")
            return
        for stale in WEIGHTS.glob(f"{_STAGING}*"):
            shutil.rmtree(stale, ignore_errors=True)
        for model in models:
            for name in sorted(model.files, key=lambda name: (name == "model_index.json", name)):
                _fetch(model, model.files[name], say)
        _pin(models, say)


def hub_models(settings: Settings) -> list[Model]:
    """The models on the Hub that the run's methods use, and those that an ablation puts in their place."""
    sources = diffusion_models(settings)
    for name, grid in settings.grids.items():
        if any(key.startswith(("diffusion.model", "diffusion.inpaint_model")) for key in grid.grid):
            sources += [source for _, point in ablation_points(settings, name) for source in diffusion_models(point)]
    diffusion = [_diffusion(source) for source in dict.fromkeys(sources) if is_hub_id(source)]
    return diffusion + [_backbone(one) for one in settings.training.backbones.values() if one.weights is None]


def _diffusion(source: ModelSource) -> Model:
    def read(listing: Listing) -> list[str]:
        return files_read(listing.files, source.variant, f"{source.path} at {listing.commit}")

    def here(commit: str) -> bool:
        return local_files(source.model_copy(update={"revision": commit})) is not None

    return Model(str(source.path), str(source.path), source.revision, read, here)


def _backbone(backbone: Backbone) -> Model:
    repository, names = hub_weights(backbone.name)

    def read(listing: Listing) -> list[str]:
        found = [name for name in names if name in listing.files][:1]
        if not found:
            raise UserError(
                f"{repository} at {listing.commit} has neither of {', '.join(names)}; give a local file as `weights`"
            )
        return found

    def here(commit: str) -> bool:
        return any(hub.cached(repository, commit, name) for name in names)

    return Model(backbone.name, repository, backbone.revision, read, here)


def _list(models: Sequence[Model]) -> None:
    """Ask the Hub for the commit and files of each model. Raises UserError."""
    asked: dict[tuple[str, str | None], Listing] = {}
    for model in models:
        at = model.repository, model.revision
        if at not in asked:
            asked[at] = hub.list_files(*at)
        model.listing = asked[at]
        model.files = {name: model.listing.files[name] for name in model.read(model.listing)}


def _check_offline(models: Sequence[Model], error: UserError) -> None:
    """Where the Hub cannot be asked, raise UserError with what is missing; return if nothing is."""
    missing = [
        f"{model.name} at {model.revision}" if model.revision else f"{model.name} (no commit of it is known here)"
        for model in models
        if model.revision is None or not model.here(model.revision)
    ]
    if missing:
        raise UnreachableError(f"{error}; of this run's models these are missing: {', '.join(dict.fromkeys(missing))}")


def _line(model: Model) -> str:
    """What there is to say of a model before anything is fetched."""
    assert model.listing is not None
    left = model.left()
    state = f"{_size(left)} to fetch" if left else "here"
    pinned = "pinned" if model.revision else "newest"
    read = f"{len(model.files)} file{'s' * (len(model.files) > 1)}, {_size(model.files.values())}"
    return f"{model.name} at {model.listing.commit} ({pinned}): {read}, {state}"


def _size(files: Iterable[HubFile]) -> str:
    size = sum(file.size for file in files)
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _check_room(missing: Iterable[HubFile]) -> None:
    free = free_bytes(WEIGHTS)
    if sum(file.size for file in missing) > free:
        raise UserError(
            f"{WEIGHTS} needs {_size(missing)} more, and {free / 1e9:.1f} GB are free there; make room, or make {WEIGHTS} a "
            "link to a larger disk"
        )


def _stands(path: Path, file: HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _fetch(model: Model, file: HubFile, say: Callable[[str], object]) -> None:
    """Get a file unless it stands and is as the Hub states it. Raises UserError if what comes is not."""
    path = model.folder / file.name
    if _stands(path, file):
        fault = file.fault(path)
        if fault is None:
            return
        say(f"{path} is damaged ({fault}) and is fetched again")
    assert model.listing is not None

    def check(temporary: Path) -> None:
        fault = file.fault(temporary)
        if fault is not None:
            raise UserError(
                f"{file.name} of {model.repository} at {model.folder.name} did not come whole: {fault}. Nothing of it was kept; "
                "run `dfeat fetch` again, and if this stays, something on the way changes files (a proxy, HF_ENDPOINT)"
            )

    with staged(path, check, recorded=False) as temporary, _staging() as folder:
        got = hub.download(model.repository, model.listing.commit, file.name, folder)
        if (
            file.fault(got) is not None
        ):  # of huggingface_hub's cache, or of a transfer that broke: once more, from the Hub
            got = hub.download(model.repository, model.listing.commit, file.name, folder, afresh=True)
        got.replace(temporary)
    say(f"{path}: {_size([file])}, as the Hub states it")


@contextmanager
def _staging() -> Iterator[Path]:
    """A folder beside the fetched ones, removed after the block."""
    folder = Path(mkdtemp(prefix=_STAGING, dir=WEIGHTS))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pin(models: Sequence[Model], say: Callable[[str], object]) -> None:
    """Add the commits of models without a `revision` to `PINNED`, whose own text stays. Raises UserError if that cannot be."""
    pins = read_pins()
    added = {model.name: model.listing.commit for model in models if model.listing and model.revision is None}
    added = {name: commit for name, commit in added.items() if name not in pins}
    if not added:
        return
    lines = "".join(f'  {name}: "{commit}"\n' for name, commit in added.items())
    text = PINNED.read_text(encoding="utf-8") if PINNED.exists() else HEAD
    text = f"{text.rstrip()}\n{lines}"
    try:
        whole = parsed(text, str(PINNED)) == {"pins": pins | added}
    except UserError:
        whole = False
    if not whole:
        raise UserError(
            f"{PINNED} is not as `dfeat fetch` writes it, so these lines could not be added to its `pins`; add them:\n{lines}"
        )
    write_bytes(PINNED, text.encode(), recorded=False)
    say(f"{PINNED}: {', '.join(added)}")

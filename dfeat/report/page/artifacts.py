"""What a run's folder holds, read once for the page and the cards.

What enters: `results/<run>`; files that are not there are left out. What leaves: `Artifacts`: the digests of indexes and
parts, the generated views, the trained models. Every shard is checked as it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dfeat.config.labels import Labels
from dfeat.occlusion.hidden import HiddenShares, hidden_shares
from dfeat.occlusion.parts import read_parts
from dfeat.places import Place
from dfeat.storage.expected import shards_in
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import read_text, refusal
from dfeat.storage.shards import open_shard
from dfeat.training.trained import read_run


class Generated(NamedTuple):
    """Artifacts of one kind and view: rows over all files, and the digest of the diffusion model."""

    kind: str
    view: str
    files: int
    rows: int
    model: str


class Hidden(NamedTuple):
    """The chosen parts: their mean number, the mean share of the image they cover, and the shares of the objects."""

    parts: float
    share: float
    objects: HiddenShares
    digest: str


class Trained(NamedTuple):
    """A trained model by its labels, its run.json, and its training accuracy by epoch, fractions."""

    method: str
    backbone: str
    seed: str
    run: dict[str, Any]
    curve: tuple[float, ...]


class Artifacts(NamedTuple):
    """A run's artifacts; `indexes` has the SHA-256 of each `index.csv` by its path."""

    place: Place
    indexes: dict[Path, str]
    hidden: Hidden | None
    generated: tuple[Generated, ...]
    models: tuple[Trained, ...]

    def diffusion_models(self) -> dict[str, list[str]]:
        """The digests of the diffusion models that made the shards, each with the kinds of shards it made."""
        first = {one.kind: one.model for one in reversed(self.generated)}
        models: dict[str, list[str]] = {}
        for kind in sorted(first):
            models.setdefault(first[kind], []).append(kind)
        return models


def read_artifacts(results: Path, labels: Labels) -> Artifacts:
    """Read what `results/<run>` holds. Raises UserError for a damaged artifact."""
    place = Place(results)
    indexes = {path: file_digest(path) for path in sorted(results.glob("data/*/index.csv"))}
    return Artifacts(place, indexes, _hidden(place.parts()), tuple(_generated(place)), tuple(_trained(results, labels)))


def _hidden(path: Path) -> Hidden | None:
    if not path.is_file():
        return None
    parts = read_parts(path)
    number, share = (fmean(row[key] for row in parts.rows.values()) for key in ("k", "share"))
    return Hidden(number, share, hidden_shares(parts), parts.digest)


def _generated(place: Place) -> Iterator[Generated]:
    for kind in ("inpaint", "latents", "features"):
        for view in sorted(path for path in place.run.glob(f"diffusion/{kind}/*") if path.is_dir()):
            rows, models = [], []
            for path in shards_in(view):
                with open_shard(path, kind) as file:
                    rows.append(int(file.attrs["rows"]))
                    models.append(str(file.attrs["model"]))
            if rows:
                yield Generated(kind, view.name, len(rows), sum(rows), models[0])


def _trained(results: Path, labels: Labels) -> Iterator[Trained]:
    for path in sorted(results.glob("training/*/*/seed*/run.json")):
        method, backbone, seed = path.parts[-4:-1]
        names = labels.method(method), labels.backbone(backbone), seed.removeprefix("seed")
        yield Trained(*names, read_run(path.parent), _curve(path.parent / "metrics.jsonl"))


def _curve(path: Path) -> tuple[float, ...]:
    """Training accuracy by epoch; none where the file is not there."""
    lines = read_text(path, "train").splitlines() if path.is_file() else []
    try:
        return tuple(float(json.loads(line)["top1"]) for line in lines)
    except (ValueError, KeyError, TypeError) as error:
        raise refusal(path, f"it is no metrics.jsonl ({error!r})", "train") from None

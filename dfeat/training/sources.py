"""What a training reads: its files, opened, and refused where they are not of the same images or the same making.

What enters: `Inputs`, the paths of the earlier steps' artifacts. What leaves: `Sources`, from which batches are made.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfeat.data.crops import view_keys
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.methods import method
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.storage.expected import check_settings
from dfeat.storage.origin import read_origin
from dfeat.storage.records import refusal
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.settings import TrainingSettings


@dataclass(frozen=True)
class Inputs:
    """The files a training reads."""

    index: Path
    pixels: Path
    parts: Path
    inpainted: Path | None = None
    features: tuple[Path, ...] = ()
    twin_features: tuple[Path, ...] = ()
    verdicts: Path | None = None


@dataclass
class Sources:
    """What batches are made of."""

    pixels: PixelCache
    keys: list[str]
    labels: dict[str, int]
    wnids: list[str]
    parts: Parts
    inpainted: PixelCache | None = None
    features: Rows | None = None
    twin_features: Rows | None = None
    rejected: frozenset[str] = frozenset()
    """Inpainted images (row keys of `inpainted`) that are not used; an image without any other is its own twin."""
    views: int = 1
    """Cached crops of each image that features were taken of; 1: of its evaluation crop."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.wnids)

    @property
    def feature_width(self) -> int:
        """D, the width of the diffusion features; 0 without them."""
        return int(self.features.payload.shape[1]) if self.features else 0

    @property
    def copies(self) -> int:
        """Inpainted copies of each image, of which a twin is one."""
        return self.inpainted.copies if self.inpainted else 1


def read_sources(name: str, inputs: Inputs, settings: TrainingSettings) -> Sources:
    """Open what the method of that name needs; UserError names what is missing or does not cover the training images."""
    needs = method(name).needs
    index = read_index(inputs.index)
    digest = index.digest
    sources = Sources(
        pixels=PixelCache(inputs.pixels, index=digest, parts=""),
        keys=[record.key for record in index.records],
        labels={record.key: record.label for record in index.records},
        wnids=[info.wnid for info in index.classes],
        parts=read_parts(inputs.parts, index=digest),
    )
    _require_keys(set(sources.keys), sources.pixels.row_of, inputs.pixels)
    if "inpainted" in needs:
        if inputs.inpainted is None:
            raise UserError(f"the method {name} needs --inpainted, the cache of inpainted images")
        sources.inpainted = PixelCache(inputs.inpainted, index=digest, parts=sources.parts.digest)
        wanted = _row_keys(sources.parts.rows, sources.copies)
        _require_keys(wanted, sources.inpainted.row_of, inputs.inpainted)
        if settings.inpainted == "accepted":
            sources.rejected = _read_rejected(inputs.verdicts, wanted, digest)
    if "features" in needs:
        clean = settings.twin_features == "clean"
        if not inputs.features or not (inputs.twin_features or clean):
            needed = "--features and --twin-features, of the clean and the occluded images"
            raise UserError(f"the method {name} needs {needed}")
        _read_features(sources, inputs, digest, clean)
    return sources


def _read_rejected(verdicts: Path | None, judged: set[str], index: str) -> frozenset[str]:
    """The inpainted images that lost their label. Raises UserError unless each of `judged` has a verdict on `index`."""
    if verdicts is None:
        raise UserError("training.inpainted 'accepted' needs --verdicts, the verdicts.csv that `dfeat judge` writes")
    origin = read_origin(verdicts.with_suffix(".json"), "judge", {"index": str})
    text = origin.read_text(verdicts)
    if origin.said["index"] != index:
        raise origin.refusal("it tells of verdicts on the images of another index")
    check_settings(origin.path, origin.said.get("settings"), "judge")
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        accepted = {row["key"]: row["accepted"] == "1" for row in rows}
    except KeyError as error:
        raise refusal(verdicts, f"it has no column {error}", "judge") from None
    if missing := sorted(judged - accepted.keys()):
        raise refusal(verdicts, f"it has no verdict on {len(missing)} inpainted images ({missing[0]}, ...)", "judge")
    return frozenset(key for key, kept in accepted.items() if not kept)


def _read_features(sources: Sources, inputs: Inputs, index: str, clean: bool) -> None:
    own = read_rows(inputs.features, "features", index=index, parts="")
    _require_view(own, "clean", inputs.features[0])
    sources.views = int(json.loads(own.settings)["latents"].get("views", 1))
    _require_keys(_row_keys(sources.keys, sources.views), own.row_of, inputs.features[0])
    sources.features = own
    if clean:
        return
    twins = read_rows(inputs.twin_features, "features", index=index, parts=sources.parts.digest)
    _require_view(twins, "parts", inputs.twin_features[0])
    if features_identity(own) != features_identity(twins):
        reason = f"it was made with another model or other feature settings than {inputs.features[0]}"
        raise refusal(inputs.twin_features[0], reason, "features")
    _require_keys(_row_keys(sources.parts.rows, sources.views), twins.row_of, inputs.twin_features[0])
    sources.twin_features = twins


def exchanged_features(rows: Rows | None, name: str, keys: Iterable[str], seed: int, views: int = 1) -> Rows | None:
    """The features that a model by the method `name` is given for some images: those of each image itself, or those of
    another one of them where the method exchanges them (`Method.exchange`), crop for crop. None without features."""
    exchange = method(name).exchange
    if rows is None or exchange is None:
        return rows
    donors = exchange(list(keys), seed)
    return rows.exchanged(
        {
            row_key: taken
            for key, donor in donors.items()
            for row_key, taken in zip(view_keys(key, views), view_keys(donor, views), strict=True)
        }
    )


def _row_keys(keys: Iterable[str], views: int) -> set[str]:
    """The keys of the rows of images: their own, or one for each of several views or copies."""
    return {row_key for key in keys for row_key in view_keys(key, views)}


def _require_view(rows: Rows, view: str, path: Path) -> None:
    found = json.loads(rows.settings)["latents"]["view"]
    if found != view:
        raise UserError(f"{path} holds features of the view {found!r}; those of {view!r} are needed here")


def _require_keys(wanted: set[str], present: dict[str, int], path: Path) -> None:
    missing = sorted(wanted - present.keys())
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {len(wanted)} images ({', '.join(missing[:3])} ...); it was made from another index, make it again"
        )


def features_identity(rows: Rows | None) -> dict[str, Any] | None:
    """What features must agree in that one classifier sees: the diffusion model, feature settings, size and crop.

    Not the view: which images are occluded, and how, is what differs between them.
    """
    if rows is None:
        return None
    settings = json.loads(rows.settings)
    seen = {name: settings["latents"][name] for name in ("resolution", "crop_pct")}
    return {"model": rows.model, "features": settings["features"], "latents": seen}

"""The data card and the model card of a run: what was made from what, how much of it, under which licences.

What enters: `results/<run>` and its settings. What leaves: the text of `data_card.md` and `model_card.md`, Markdown
with the YAML head that model hubs read. Counts and digests are read from the artifacts, never assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.diffusion.settings import ModelSource
from dfeat.occlusion.parts import read_parts
from dfeat.report.numbers.paper import backbone_name, method_name
from dfeat.report.tables.layout import Row, intervals, markdown_escaped
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import read_json
from dfeat.storage.shards import open_shard

_KNOWN_MODELS: Final = (
    ("stable-diffusion-2", "CreativeML Open RAIL++-M"),
    ("stable-diffusion-v1", "CreativeML OpenRAIL-M"),
    ("stable-diffusion-inpainting", "CreativeML OpenRAIL-M"),
)
"""Licences that the model cards of these families state."""
_IMAGENET: Final = "ImageNet's terms of access: non-commercial research and education; no redistribution of images"


@dataclass(frozen=True)
class SourceSet:
    """A set that was read."""

    name: str
    root: str
    images: int
    classes: int
    problems: int
    digest: str
    licence: str


@dataclass(frozen=True)
class Generated:
    """Artifacts of one kind and view: rows over all files, and the digest of the diffusion model."""

    kind: str
    view: str
    files: int
    rows: int
    model: str


@dataclass(frozen=True)
class Hidden:
    """The chosen parts: images that have some, their mean number, and the mean share of the image they cover."""

    images: int
    parts: float
    share: float
    digest: str


@dataclass(frozen=True)
class Model:
    """A trained model and where it comes from."""

    method: str
    backbone: str
    seed: str
    run: dict[str, Any]


def data_card(environment: Any, results: Path, settings: Settings) -> str:
    """The text of `data_card.md`."""
    return str(
        environment.get_template("data_card.md.jinja").render(
            settings=settings,
            sets=[_source_set(results, name, settings) for name in ("train", *settings.data.evaluation)],
            hidden=_hidden(results / "occlusion" / "parts.json"),
            generated=list(_generated(results / "diffusion")),
            diffusion_models=_diffusion_models(settings),
        )
    )


def model_card(environment: Any, results: Path, settings: Settings, rows: list[Row]) -> str:
    """The text of `model_card.md`; `rows` are those of Tables 1 and 2."""
    return str(
        environment.get_template("model_card.md.jinja").render(
            settings=settings,
            backbones={backbone_name(name): entry for name, entry in settings.training.backbones.items()},
            models=list(_models(results / "training")),
            accuracies=[_accuracy(row) for row in rows if row.metric == "top1"],
            drawn=settings.data.drawn is not None,
            diffusion_models=_diffusion_models(settings),
        )
    )


def _diffusion_models(settings: Settings) -> list[tuple[ModelSource, str]]:
    """The run's diffusion models, one or two, with their licences."""
    sources = [settings.diffusion.model]
    if settings.diffusion.inpainting_model not in sources:
        sources.append(settings.diffusion.inpainting_model)
    return [(source, model_licence(source)) for source in sources]


def model_licence(source: ModelSource) -> str:
    """The licence of a diffusion model: what its own card states, or what its family's states, or that none is known."""
    if source.path == "demo":
        return "Apache-2.0; trained on drawn images alone"
    card = Path(source.path) / "README.md"
    if card.is_file():
        stated = re.search(
            r"^license(?:_name)?:[ \t]*(\S.*)$", card.read_text(encoding="utf-8", errors="replace"), re.M
        )
        if stated:
            return f"{stated[1].strip()}, as {card} states"
    for family, licence in _KNOWN_MODELS:
        if family in source.path:
            return f"{licence}, as the model cards of {family} state"
    return "not known to this program; the model's own card states it"


def markdown_filters() -> dict[str, Any]:
    """What the templates of the cards call."""
    return {"md": lambda value: markdown_escaped(str(value))}


def _source_set(results: Path, name: str, settings: Settings) -> SourceSet:
    folder = results / "data" / name
    source = read_json(folder / "source.json", f"index {name}") if (folder / "source.json").is_file() else {}
    chosen = settings.data.train if name == "train" else settings.data.evaluation[name]
    index = folder / "index.csv"
    return SourceSet(
        name, chosen.root, int(source.get("images", 0)),
        int(source.get("classes_with_images", source.get("classes", 0))), int(source.get("problems", 0)),
        file_digest(index) if index.is_file() else "", _set_licence(chosen.kind, drawn=settings.data.drawn is not None),
    )  # fmt: skip


def _set_licence(kind: str, *, drawn: bool) -> str:
    if drawn:
        return "drawn by this program; Apache-2.0"
    if kind == "partimagenet":
        return f"images: {_IMAGENET}; part annotations: as PartImageNet's repository states"
    if kind == "imagenet":
        return _IMAGENET
    return "as their sources state; manifest.csv beside the images may name them"


def _hidden(path: Path) -> Hidden | None:
    if not path.is_file():
        return None
    rows = read_parts(path).rows.values()
    count = max(1, len(rows))
    parts, share = (sum(float(row[key]) for row in rows) / count for key in ("k", "share"))
    return Hidden(len(rows), parts, share, file_digest(path))


def _generated(folder: Path) -> Iterator[Generated]:
    for kind in ("inpaint", "latents", "features"):
        for view in sorted(path for path in (folder / kind).glob("*") if path.is_dir()):
            files = sorted(view.glob("*-of-*.h5"))
            attributes = [_attributes(file) for file in files]
            if attributes:
                rows = sum(int(entry["rows"]) for entry in attributes)
                yield Generated(kind, view.name, len(files), rows, str(attributes[0]["model"]))


def _attributes(path: Path) -> dict[str, Any]:
    with open_shard(path, path.parts[-3]) as file:
        return {name: file.attrs[name] for name in ("rows", "model")}


def _models(folder: Path) -> Iterator[Model]:
    for path in sorted(folder.glob("*/*/seed*/run.json")):
        method, backbone, seed = path.parts[-4:-1]
        run = read_json(path, "train")
        yield Model(method_name(method), backbone_name(backbone), seed.removeprefix("seed"), run)


def _accuracy(row: Row) -> tuple[str, ...]:
    level = "" if row.table == "table2" else f"{row.level} %"
    value = f"{float(row.value):.2f} ({intervals((row,))})"
    return method_name(row.method), backbone_name(row.backbone), row.set, level, value, row.n, row.seeds

"""The data card and the model card of a run: what was made from what, how much of it, under which licences.

What enters: a run's artifacts and settings. What leaves: the text of `data_card.md` and `model_card.md`, Markdown with
the YAML head that model hubs read. Counts and digests are read from the artifacts, never assumed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.diffusion.settings import ModelSource
from dfeat.methods import method
from dfeat.places import HOLDOUT, TRAIN
from dfeat.report.numbers.text import unique
from dfeat.report.page.artifacts import Artifacts
from dfeat.report.tables.layout import CellRow, intervals
from dfeat.storage.records import read_json

_KNOWN_MODELS: Final = (
    ("stable-diffusion-2", "CreativeML Open RAIL++-M"),
    ("stable-diffusion-v1", "CreativeML OpenRAIL-M"),
    ("stable-diffusion-inpainting", "CreativeML OpenRAIL-M"),
)
"""Licences that the model cards of these families state."""
_IMAGENET: Final = "ImageNet's terms of access: non-commercial research and education; no redistribution of images"


def data_card(environment: Any, artifacts: Artifacts, settings: Settings) -> str:
    """The text of `data_card.md`."""
    template = environment.get_template("data_card.md.jinja")
    sets = [_source_set(artifacts, name, settings) for name in (TRAIN, *settings.data.evaluation)]
    models = _diffusion_models(settings)
    return str(template.render(
        artifacts._asdict(), settings=settings, sets=sets, diffusion_models=models, licence=licence_of(settings),
    ))  # fmt: skip


def model_card(environment: Any, artifacts: Artifacts, settings: Settings, rows: list[CellRow]) -> str:
    """The text of `model_card.md`; `rows` are those of Tables 1 and 2."""
    template = environment.get_template("model_card.md.jinja")
    return str(template.render(
        settings=settings, models=artifacts.models, drawn=settings.data.drawn is not None,
        backbones={settings.labels.backbone(name): entry for name, entry in settings.training.backbones.items()},
        accuracies=[_accuracy(row, settings.labels) for row in rows if row.metric == "top1"],
        diffusion_models=_diffusion_models(settings), licence=licence_of(settings), example=_example(artifacts, settings),
        fused=unique(model.method for model in artifacts.models if _fuses_own_features(model.run)),
    ))  # fmt: skip


def _fuses_own_features(run: dict[str, Any]) -> bool:
    """Whether a classifier needs the diffusion features of the image itself; those of a control are others'."""
    return bool(run.get("features")) and method(run["method"]).exchange is None


def licence_of(settings: Settings) -> str:
    """The licence in a card's head: this program's where all that a run is made of comes with it."""
    weights = (str(backbone.weights) for backbone in settings.training.backbones.values())
    shipped = settings.data.drawn is not None and all(path.startswith("demo:") for path in weights)
    return "apache-2.0" if shipped and all(one.path == "demo" for one, _ in _diffusion_models(settings)) else "other"


def _example(artifacts: Artifacts, settings: Settings) -> str | None:
    """The folder of a run's first model, from the working folder; None where it has none."""
    results = artifacts.place.run
    first = next(iter(sorted(results.glob("training/*/*/seed*/run.json"))), None)
    return None if first is None else f"results/{settings.run}/{first.parent.relative_to(results).as_posix()}"


def _diffusion_models(settings: Settings) -> list[tuple[ModelSource, str]]:
    """The run's diffusion models, one or two, with their licences."""
    sources = [settings.diffusion.model]
    if settings.diffusion.inpainting_model not in sources:
        sources.append(settings.diffusion.inpainting_model)
    return [(source, model_licence(source)) for source in sources]


def model_licence(source: ModelSource) -> str:
    """The licence of a diffusion model, from its own card, else from its family's; else that none is known."""
    if source.path == "demo":
        return "Apache-2.0; trained on drawn images alone"
    card = Path(source.path) / "README.md" if source.path.exists() else None
    if card and card.is_file():
        stated = re.search(
            r"^license(?:_name)?:[ \t]*(\S.*)$", card.read_text(encoding="utf-8", errors="replace"), re.M
        )
        if stated:
            return f"{stated[1].strip()}, as {card} states"
    for family, licence in _KNOWN_MODELS:
        if family in str(source.path):
            return f"{licence}, as the model cards of {family} state"
    return "not known to this program; the model's own card states it"


def _source_set(artifacts: Artifacts, name: str, settings: Settings) -> dict[str, Any]:
    """What the data card shows of a set that was read."""
    index = artifacts.place.index(name)
    path = index.with_name("source.json")
    source = read_json(path, f"index {name}") if path.is_file() else {}
    chosen = settings.data.train if name == TRAIN else settings.data.evaluation[name]
    return {
        "name": name, "label": "training images" if name == TRAIN else settings.labels.set(name), "root": str(chosen.root), "images": int(source.get("images", 0)),
        "classes": int(source.get("classes_with_images", source.get("classes", 0))),
        "problems": int(source.get("problems", 0)), "digest": artifacts.indexes.get(index, ""),
        "held_out": int(source.get("held_out", 0)),
        "held_out_digest": artifacts.indexes.get(artifacts.place.index(HOLDOUT), ""),
        "licence": _set_licence(chosen.kind, drawn=settings.data.drawn is not None),
    }  # fmt: skip


def _set_licence(kind: str, *, drawn: bool) -> str:
    if drawn:
        return "drawn by this program; Apache-2.0"
    if kind == "partimagenet":
        return f"images: {_IMAGENET}; part annotations: as PartImageNet's repository states"
    if kind == "imagenet":
        return _IMAGENET
    return "as their sources state; manifest.csv beside the images may name them"


def _accuracy(row: CellRow, labels: Labels) -> tuple[str, ...]:
    level = "" if row.table == "table2" else f"{row.level} %"
    value = f"{float(row.value):.2f} ({intervals((row,))})"
    names = labels.method(row.method), labels.backbone(row.backbone), labels.set(row.set)
    return *names, level, value, row.n, row.seeds

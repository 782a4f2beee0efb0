"""Synthetic predictions: correlated between models through the difficulty of each image, as real ones are."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np

from dfeat.config import Settings
from dfeat.places import predicted_set, predictions_origin
from dfeat.randomness import rng_for
from dfeat.section import parse
from dfeat.storage.origin import origin_bytes
from dfeat.training.settings import Backbone

GAIN = {"none": 0.0, "black_out": 0.2, "replace": 0.1, "cutmix": 0.4, "sd_inpaint": 0.7, "sd_features": 0.8}


def small_settings(note: str = "synthetic predictions, not the paper's data", **report: object) -> Settings:
    """Two backbones, two seeds, three methods, a set of three levels and a really occluded one."""
    return parse(
        Settings,
        {
            "run": "synthetic",
            "data": {
                "evaluation": {
                    "simulated": {"kind": "folder", "root": "x", "levels": [0, 40, 80]},
                    "real": {"kind": "folder", "root": "y"},
                }
            },
            "training": {"methods": ["none", "cutmix", "sd_features"], "seeds": [0, 1]},
            "report": {"note": note, **report},
        },
    )


def labelled(
    settings: Settings, models: dict[str, str] | None = None, sets: dict[str, str] | None = None, **report: object
) -> Settings:
    """The settings with labels of methods and backbones, and of sets; `report` are settings of that section."""
    plain = settings.model_dump(mode="json")
    plain["training"]["labels"] = models or {}
    for name, label in (sets or {}).items():
        plain["data"]["evaluation"][name]["label"] = label
    plain["report"] |= report
    return parse(Settings, plain)


def write_predictions(
    evaluation: Path, settings: Settings, classes: int = 10, images: int = 20, gain: dict[str, float] | None = None
) -> None:
    """Write a file for every model, seed, set and level: `images` a class, ability falling with the level.

    Beside those of a model, the record of each set.
    """
    gain = GAIN if gain is None else gain
    for set_name, entry in settings.data.evaluation.items():
        labels = np.repeat(np.arange(classes), images)
        keys = [f"{set_name}_{i:05d}" for i in range(len(labels))]
        difficulty = rng_for(1, set_name, "difficulty").normal(0, 1.2, len(labels))
        for level in entry.levels:
            for method in settings.training.methods:
                for backbone in settings.training.backbones:
                    for seed in settings.training.seeds:
                        rng = rng_for(seed, f"{set_name}{level}{method}{backbone}", "guess")
                        ability = 1.6 - (level / 45) ** 1.6 + gain[method] * (0.4 + level / 60) + rng.normal(0, 0.05)
                        margin = ability - difficulty + rng.normal(0, 0.7, len(labels))
                        folder = evaluation / method / backbone / f"seed{seed}"
                        folder.mkdir(parents=True, exist_ok=True)
                        write_file(folder / f"{set_name}@{level}.csv", keys, labels, margin, classes)
    write_origins(evaluation, settings)


def write_origins(evaluation: Path, settings: Settings) -> None:
    """Tell of the predictions that lie in every folder of the settings' models."""
    for method in settings.training.methods:
        for key, backbone in settings.training.backbones.items():
            for seed in settings.training.seeds:
                write_origin(evaluation / method / key / f"seed{seed}", method, backbone, seed)


def write_origin(folder: Path, method: str, backbone: Backbone, seed: int) -> None:
    """Tell of the predictions that lie in a folder as those of this model, as `dfeat evaluate` does."""
    model = {"method": method, "backbone": backbone.model_dump(mode="json"), "seed": seed, "model": "0" * 64}
    for set_name, paths in groupby(sorted(folder.glob("*.csv")), predicted_set):
        said = {**model, "set": set_name, "recipe": 2, "index": "1" * 64, "settings": {}}
        contents = {path: path.read_bytes() for path in paths}
        (folder / predictions_origin(set_name)).write_bytes(origin_bytes(said, contents))


def write_file(path: Path, keys: list[str], labels: np.ndarray, margin: np.ndarray, classes: int) -> None:
    """One file: right at once above a margin of 0, among the first five above -1.5."""
    lines = ["key,label,top1,top2,top3,top4,top5,p1"]
    for key, label, m in zip(keys, labels.tolist(), margin.tolist(), strict=True):
        others = [c for c in ((label + 1 + i) % classes for i in range(classes)) if c != label][:5]
        place = 0 if m > 0 else 1 + int(-m / 0.4) if m > -1.6 else 5
        guesses: list[object] = [*others[:place], label, *others[place:]][: min(5, classes)]
        if place >= 5 or place >= classes:
            guesses = list(others[:5])
        guesses = guesses + [""] * (5 - len(guesses))
        p1 = 1 / (1 + np.exp(-abs(m) * 1.5 - 0.3))
        lines.append(",".join(map(str, [key, label, *guesses, f"{p1:.6f}"])))
    path.write_text("\n".join(lines) + "\n")

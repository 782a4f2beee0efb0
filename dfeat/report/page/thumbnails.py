"""The gallery as the page shows it: a row an image, its picture under each method beside the others.

What enters: `gallery.json` and the settings. What leaves: plain mappings that a template walks through.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfeat.config import Settings
from dfeat.methods import method
from dfeat.methods.method import Method
from dfeat.report.numbers.text import unique
from dfeat.storage.records import read_json


def read_gallery(path: Path, settings: Settings) -> dict[str, Any] | None:
    """Read the thumbnails of `gallery.json`, with the classes and methods to filter by; None where there is none.

    Which methods of the run have no picture, and why, is in `absent`.
    """
    if not path.is_file():
        return None
    content = read_json(path, "figure gallery")
    pictures = content["pictures"]
    distinct = {key: unique(picture[key] for picture in pictures) for key in ("key", "class", "method")}
    return {
        "images": content["images"], "classes": distinct["class"], "methods": distinct["method"],
        "rows": [_compared(pictures, key, distinct["method"]) for key in distinct["key"]],
        "absent": _absent(settings, distinct["method"]),
    }  # fmt: skip


def _compared(pictures: list[dict[str, Any]], key: str, methods: list[str]) -> dict[str, Any]:
    """An image of the gallery: its picture under each method, and its PSNR, None where nothing was inpainted."""
    own = {picture["method"]: picture for picture in pictures if picture["key"] == key}
    psnr = max((picture["psnr"] for picture in own.values() if picture["psnr"] is not None), default=None)
    first = next(iter(own.values()))
    return {
        "key": key, "class": first["class"], "psnr": psnr,
        "pictures": [own[method]["picture"] if method in own else "" for method in methods],
    }  # fmt: skip


def _absent(settings: Settings, shown: list[str]) -> list[str]:
    """Why some methods have no picture in the gallery."""
    named = {settings.labels.method(name): method(name) for name in settings.training.methods}
    painters = {one.paint: label for label, one in named.items() if one.paint and label in shown}
    absent = {label: one for label, one in named.items() if one.augments and label not in shown}
    return [f"{label} {_why(one, painters)}" for label, one in absent.items()]


def _why(absent: Method, painters: Mapping[Any, str]) -> str:
    if absent.mix:
        return "mixes two crops of a training batch, drawn anew in each epoch"
    if absent.paint in painters:
        return f"trains on the pictures of {painters[absent.paint]}"
    return "changes no picture"

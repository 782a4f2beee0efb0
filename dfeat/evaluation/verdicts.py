"""Verdicts on inpainted images, as `judge` wrote them: read and checked, without the models' libraries."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

from dfeat.evaluation.origins import check_backbone, read_verdicts_origin
from dfeat.storage.records import refusal
from dfeat.training.settings import Backbone

VIEWS: Final = ("original", "black_out", "inpainted")
COLUMNS: Final = ("key", "label", "models", *VIEWS, "accepted")


def read_verdicts(path: Path, backbone: Backbone) -> list[dict[str, str]]:
    """The rows of verdicts.csv. Raises UserError if it is missing, damaged or empty, or another backbone judged."""
    origin = read_verdicts_origin(path)
    text = origin.read_text(path)
    for model in origin.said["models"]:
        check_backbone(origin, model["backbone"], backbone)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise refusal(path, "it has no verdicts", "judge")
    return rows

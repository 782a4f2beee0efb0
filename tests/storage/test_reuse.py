"""A base's result is linked only where recipe, settings, model and inputs are the same, all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfeat.errors import UserError
from dfeat.storage.atomic import write_json, write_text
from dfeat.storage.journal import journal_of, journals
from dfeat.storage.reuse import remove_broken_links, reused
from dfeat.storage.shards import Shard

SETTINGS = {"share": 0.5, "unit": "category"}


def made(tmp_path: Path, recipe: int = 1, settings: dict[str, Any] = SETTINGS, source: str = "a") -> tuple[Path, Path]:
    """A base with an input and an output, and a run beside it with the same input."""
    base, run = tmp_path / "results/base", tmp_path / "results/run"
    write_json(base / "occlusion/parts.json", {"recipe": recipe, "settings": settings, "rows": [1, 2]})
    write_text(base / "data/train/index.csv", "a")
    write_text(run / "data/train/index.csv", source)
    return base, run


def link(base: Path, run: Path, same_model: bool = True) -> bool:
    output, source = run / "occlusion/parts.json", run / "data/train/index.csv"
    return reused(base, "parts", [output], [source], 1, SETTINGS, lambda recorded: same_model)


def test_the_same_is_linked(tmp_path: Path) -> None:
    base, run = made(tmp_path)
    assert link(base, run)
    output = run / "occlusion/parts.json"
    assert output.is_symlink() and output.resolve() == (base / "occlusion/parts.json").resolve()
    assert not Path(output.readlink()).is_absolute()
    assert json.loads(output.read_text())["rows"] == [1, 2]


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": 2},
        {"settings": {**SETTINGS, "share": 0.25}},
        {"settings": {"share": 0.5}},
        {"settings": {**SETTINGS, "min_visible": 0.2}},  # a setting that is omitted while it has its default
        {"source": "b"},
    ],
)
def test_what_differs_is_not(tmp_path: Path, changed: dict[str, Any]) -> None:
    base, run = made(tmp_path, **changed)
    assert not link(base, run)
    assert not (run / "occlusion").exists()


def test_what_a_killed_job_had_finished_goes_when_its_output_is_linked(tmp_path: Path) -> None:
    base, run = made(tmp_path)
    output = run / "occlusion/parts.json"
    with pytest.raises(ZeroDivisionError), journal_of(output, Shard("latents", 1, {}, "model", ["a"], [])) as journal:
        journal.add({"a": np.zeros(3, np.float16)}, 1)
        raise ZeroDivisionError
    assert len(journals(output)) == 1
    assert link(base, run)
    assert not journals(output)


def test_another_model_or_an_unrecorded_input_is_not(tmp_path: Path) -> None:
    base, run = made(tmp_path)
    assert not link(base, run, same_model=False)
    (run / "data/train/.sha256/index.csv").unlink()
    assert not link(base, run)


def test_what_follows_from_path_and_inputs_may_stand_in_the_record(tmp_path: Path) -> None:
    base, run = made(tmp_path, settings={**SETTINGS, "view": "clean", "latents": {}, "copies": 2})
    assert link(base, run)


def test_a_base_is_a_run_beside_the_job(tmp_path: Path) -> None:
    _, run = made(tmp_path)
    for wrong in (run, tmp_path / "elsewhere/base"):
        with pytest.raises(UserError, match="is no run beside the one"):
            link(wrong, run)


def test_links_without_a_file_are_removed_with_their_records_and_others_stay(tmp_path: Path) -> None:
    base, run = made(tmp_path)
    assert link(base, run)
    remove_broken_links(run)
    assert (run / "occlusion/parts.json").is_file()
    (base / "occlusion/parts.json").unlink()
    remove_broken_links(run)
    assert not list((run / "occlusion").rglob("parts.json"))
    assert (run / "data/train/index.csv").is_file()

"""SIGKILL and SIGTERM of the jobs of the frozen model, at random moments: each goes on from what the one before had finished."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dfeat.config.files import lay_over
from dfeat.occlusion.parts import choose_all
from dfeat.storage.journal import journals
from tests.conftest import World

from .conftest import Tried
from .jobs import FORKS, Job, _run, artifacts

KILLS = 12
LONGER = {
    "inpaint": {"batch_size": 2, "inpaint": {"steps": 12, "crop": True, "copies": 2, "mask_cells": "any"}},
    "latents": {"batch_size": 1, "views": 8},
    "features": {"batch_size": 1, "features": {"timestep": [50, 100], "ensemble": 6}},
}
"""Settings with which a job has some hundred batches, of several shapes where the stage has them."""


def _counted(words: Sequence[str], log: str, count: str) -> None:
    """Run a verb that adds a byte to `count` for each batch that it has computed, when it has been computed."""
    from dfeat.diffusion.fitting import Fitting

    real, computed = Fitting.__call__, os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self: Fitting[Any], batch: Sequence[Any]) -> Any:
        done = real(self, batch)
        os.write(computed, b".")
        return done

    Fitting.__call__ = call  # type: ignore[method-assign]
    _run(list(words), log, None)


def longer(job: Job, parts: Path, *further: str) -> Job:
    """A job with the settings of LONGER, which hides the parts of another file."""
    words = [*job.arguments, *further]
    settings = json.loads(words[words.index("--settings") + 1])
    lay_over(settings, LONGER[job.name])
    words[words.index("--settings") + 1] = json.dumps(settings)
    if "--parts" in words:
        words[words.index("--parts") + 1] = str(parts)
    return replace(job, arguments=tuple(words))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "workers"), [("inpaint", 0), ("inpaint", 2), ("latents", 0), ("latents", 2), ("features", 0)]
)
def test_a_killed_shard_is_taken_up(
    name: str, workers: int, jobs: dict[str, Job], world: World, tmp_path: Path, tried: Tried
) -> None:
    one_part = tmp_path / "parts.json"  # so that squares are of two sides
    choose_all(world.train, world.stage("parts").model_copy(update={"share": 0.01}), one_part)
    job = longer(jobs[name], one_part, *(("--workers", str(workers)) if workers else ()))
    shard, rng = f"{name}.h5", random.Random(f"{name} {workers}")

    def start(out: Path) -> Any:
        words = [word.replace("{out}", str(out)) for word in job.arguments]
        process = FORKS.Process(target=_counted, args=(words, str(out / "log"), str(out / "count")))
        out.mkdir(exist_ok=True)
        process.start()
        return process

    def computed(out: Path) -> int:
        return (out / "count").stat().st_size if (out / "count").exists() else 0

    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    whole = start(undisturbed)
    while whole.is_alive() and not computed(undisturbed):
        time.sleep(0.0005)
    begun = time.monotonic()
    whole.join()
    assert whole.exitcode == 0, (undisturbed / "log").read_text()
    batches = computed(undisturbed)
    assert batches > 2 * KILLS
    a_batch = (time.monotonic() - begun) / batches
    kills = 0
    while not (out / shard).exists():
        process, before = start(out), computed(out)
        if kills < KILLS:
            more = rng.randint(0, max(1, (batches - before) // (KILLS - kills + 1)))
            while process.is_alive() and computed(out) < before + more:
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, 2 * a_batch))
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(process.pid, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        process.join()
        kills += process.exitcode != 0
        assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM), (out / "log").read_text()
    twice = computed(out) - batches
    tried(f"kills of {name}, each time the same command", kills, f"results as undisturbed, {twice} batches twice")
    assert kills >= KILLS // 4
    assert 0 <= twice <= kills
    ends = {path: digest for path, digest in artifacts(out).items() if path == shard}
    assert ends == {path: digest for path, digest in artifacts(undisturbed).items() if path == shard}
    assert process.exitcode or not journals(out / shard)

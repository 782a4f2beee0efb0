"""The jobs that faults are done to, what each makes undisturbed, and the table of what was tried."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dfeat.config import Settings
from dfeat.section import parse
from dfeat.storage.provenance import settings_text
from dfeat.training.settings import TrainStage
from tests.conftest import TINY_BACKBONE, World
from tests.report.predictions import small_settings, write_predictions

from .jobs import Job, artifacts
from .small_run import SmallRun

Tried = Callable[..., None]


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Tried:
    """Note what a test did: the fault, how often, what came of it, and how many artifacts were lost, torn or wrongly used."""

    def note(fault: str, times: int, outcome: str, lost: int = 0, torn: int = 0, used: int = 0) -> None:
        record_property("fault", json.dumps([fault, times, outcome, lost, torn, used]))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of `make test-faults`, from what the tests counted themselves."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "fault":
                    fault, times, became, *harm = json.loads(value)
                    key = fault, became if outcome == "passed" else "TEST FAILED"
                    rows[key] = [a + b for a, b in zip(rows[key], (times, *harm), strict=True)]
    if not rows:
        return
    lines = [("fault", "tried", "outcome", "lost", "torn", "wrongly used")]
    lines += [(fault, str(n), became, *map(str, harm)) for (fault, became), (n, *harm) in rows.items()]
    total, *harms = (str(sum(row[column] for row in rows.values())) for column in range(4))
    lines.append(("all", total, "", *harms))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    terminalreporter.write_line("")
    for line in lines:
        terminalreporter.write_line("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The small run, finished; two minutes, so for slow tests alone."""
    run = SmallRun.make(tmp_path_factory.mktemp("finished"))
    run.finish()
    return run


@pytest.fixture(scope="session")
def stages(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each stage's settings as its verb takes them."""
    from timm import create_model

    weights = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict(), weights)
    train: TrainStage = world.stage("train", "convnext")
    train = train.model_copy(update={"backbone": train.backbone.model_copy(update={"weights": str(weights)})})
    names = ("parts", "pixels", "inpaint", "latents", "features", "evaluate", "judge")
    found = {name: settings_text(world.stage(name)) for name in names}
    return found | {"train": settings_text(train), "index": settings_text(world.settings.data.train)}


@pytest.fixture(scope="session")
def jobs(world: World, stages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """A job for every verb of the pipeline, each able to run alone: what it reads has been made before."""
    made = tmp_path_factory.mktemp("made")
    data, train, parts = str(world.root / "data"), str(world.train), str(world.parts)
    grid = {"alpha": {"methods": ["sd_features"], "grid": {"training.alpha": [0.5, 1.0]}}}
    synthetic = small_settings().model_copy(update={"ablation": parse(Settings, {"ablation": grid}).ablation})
    for folder in ("evaluation", "ablation/alpha/0/evaluation", "ablation/alpha/1/evaluation"):
        write_predictions(made / "synthetic" / folder, synthetic)
    published = ("--results", str(made / "synthetic"), "--settings", settings_text(synthetic))
    whole = ("--results", str(made / "run"), "--settings", settings_text(world.settings))
    write_predictions(made / "run" / "evaluation", world.settings)
    for name in ("data", "occlusion"):
        (made / "run" / name).symlink_to(world.root / name)
    filled = str(made / "run/diffusion/inpaint/train/pixels.h5")
    shutil.copytree(world.settings.diffusion.model.path, made / "pipeline")
    (made / "pipeline" / "training.jsonl").write_text("{}\n")

    def job(name: str, *arguments: str) -> Job:
        stage = ["--settings", stages[name]] if name in stages else []
        return Job(name, (name, *arguments, *stage))

    latents = str(made / "latents.h5")
    training = ("--method", "none", "--seed", "0", "--index", train, "--pixels", f"{train}/pixels.h5", "--parts", parts)
    chosen = {
        "index": job("index", "train", "--out", "{out}"),
        "parts": job("parts", "--index", train, "--out", "{out}/parts.json"),
        "pixels": job("pixels", "--index", train, "--out", "{out}/pixels.h5"),
        "latents": job("latents", "--index", train, "--view", "clean", "--threads", "1", "--out", "{out}/latents.h5"),
        "features": job("features", "--latents", latents, "--threads", "1", "--out", "{out}/features.h5"),
        "inpaint": job("inpaint", "--index", train, "--parts", parts, "--threads", "1", "--out", "{out}/inpaint.h5"),
        "train": job("train", *training, "--threads", "1", "--checkpoint-minutes", "0", "--out", "{out}"),
        "evaluate": job("evaluate", "--model", str(made), "--data", data, "--threads", "1", "--out", "{out}"),
        "judge": job("judge", "--model", str(made), "--index", train, "--pixels", f"{train}/pixels.h5", "--parts", parts,
                     "--inpainted", filled, "--threads", "1", "--out", "{out}/verdicts.csv"),
        "table": Job("table", ("table", "table1", *published, "--out", "{out}")),
        "efficiency": Job("efficiency", ("table", "efficiency", *whole, "--out", "{out}")),
        "figure": Job("figure", ("figure", "gain", *published, "--out", "{out}")),
        "gallery": Job("gallery", ("figure", "gallery", *whole, "--out", "{out}")),
        "ablation": Job("ablation", ("ablation", "alpha", *published, "--out", "{out}")),
        "report": Job("report", ("report", *published, "--out", "{out}/index.html")),
        "demo-model": Job("demo-model", ("demo-model", "decoder", "--index", train, "--start", str(made / "pipeline"),
                                         "--steps", "1", "--threads", "1", "--out", "{out}")),
        "demo-data": Job("demo-data", ("demo-data", "--out", "{out}", "--train", "1", "--val", "1", "--real", "1")),
        "schema": Job("schema", ("schema", "--out", "{out}/schema.json")),
    }  # fmt: skip
    inpainted = ("pixels", "--inpainted", str(made / "inpaint.h5"), "--settings", stages["pixels"], "--out", filled)
    read = (chosen["latents"], chosen["train"], chosen["inpaint"], Job("pixels", inpainted))
    tables = Job("table", ("table", "table1", *published, "--out", str(made / "synthetic" / "report")))
    for needed in (*read, tables):  # what features, evaluate, judge, the gallery and the report read
        assert needed.run(made, made / "log") == 0, (made / "log").read_text()
    return chosen


@pytest.fixture(scope="session")
def undisturbed(jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The folder that a job leaves when nothing disturbs it; made when it is first asked for."""
    folders: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in folders:
            out = tmp_path_factory.mktemp(f"undisturbed-{name}")
            log = out.with_suffix(".log")
            assert jobs[name].run(out, log) == 0, log.read_text()
            assert artifacts(out), name
            folders[name] = out
        return folders[name]

    yield find

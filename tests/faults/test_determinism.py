"""The same bytes in every file, whatever the shards, workers, order and surroundings that made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dfeat.config import Settings
from dfeat.methods import NAMES
from dfeat.section import parse
from dfeat.verify import verify_run
from tests.conftest import World
from tests.workflow.test_snakemake import ROOT

from .conftest import Tried
from .jobs import Job, artifacts
from .measured import MEASURED, files

TESTED = ("none", "sd_inpaint", "sd_features")


class Run:
    """A run's artifacts, made by its verbs one after another."""

    def __init__(self, out: Path, world: World, stages: dict[str, str], shards: int, workers: int) -> None:
        self.out, self.world, self.stages, self.shards, self.workers = out, world, stages, shards, workers

    def do(self, verb: str, *arguments: object) -> None:
        words = [verb, *map(str, arguments), *(("--settings", self.stages[verb]) if verb in self.stages else ())]
        status = Job(verb, tuple(words)).run(self.out, self.out.with_suffix(".log"))
        assert status == 0, self.out.with_suffix(".log").read_text()

    def make(self, backwards: bool) -> dict[str, str]:
        """Everything from latents to tables; `backwards` takes shards, views and methods from the other end."""
        world, out, train = self.world, self.out, self.world.train
        data, parts = world.root / "data", world.parts
        order = (lambda items: list(reversed(items))) if backwards else list
        numbers = order(range(self.shards))
        one = ("--threads", 1)
        for i in numbers:
            part = ("--shard", f"{i}/{self.shards}", *one)
            self.do("inpaint", "--index", train, "--parts", parts, *part, "--out", out / f"inpaint/{i}.h5")
        views = {"train": ("train", "clean"), "train-occluded": ("train", "parts"), "imagenet_val@0": ("imagenet_val", "drop:0"),
                 "imagenet_val@40": ("imagenet_val", "drop:40"), "dfeat_real@0": ("dfeat_real", "drop:0")}  # fmt: skip
        for view, (set_name, kind) in order(list(views.items())):
            for i in numbers:
                latents, part = out / f"latents/{view}/{i}.h5", ("--shard", f"{i}/{self.shards}", *one)
                self.do(
                    "latents", "--index", data / set_name, "--view", kind, "--parts", parts, *part, "--out", latents
                )
                self.do("features", "--latents", latents, *one, "--out", out / f"features/{view}/{i}.h5")
        shards = [word for i in numbers for word in ("--inpainted", out / f"inpaint/{i}.h5")]
        self.do("pixels", *shards, "--out", out / "inpaint/pixels.h5")
        for method in order(list(TESTED)):
            self._train_and_evaluate(method, views, numbers)
        backbones = {"convnext": json.loads(self.stages["train"])["backbone"]}
        training = world.settings.training.model_dump(mode="json") | {"methods": TESTED, "backbones": backbones}
        settings = parse(Settings, world.settings.model_dump(mode="json") | {"training": training})
        for name in ("table1", "table2"):
            self.do("table", name, "--results", out, "--settings", settings.model_dump_json(), "--out", out / "report")
        return artifacts(out / "evaluation") | artifacts(out / "report")

    def _train_and_evaluate(self, method: str, views: dict[str, tuple[str, str]], numbers: list[int]) -> None:
        world, out = self.world, self.out
        model = out / "training" / method / "convnext" / "seed0"
        given: list[object] = ["--inpainted", out / "inpaint/pixels.h5"] if method == "sd_inpaint" else []
        features: list[object] = []
        if method == "sd_features":
            for option, view in (("--features", "train"), ("--twin-features", "train-occluded")):
                given += [word for i in numbers for word in (option, out / f"features/{view}/{i}.h5")]
            features = [word for view in views if "@" in view for i in numbers
                        for word in ("--features", f"{view}={out}/features/{view}/{i}.h5")]  # fmt: skip
        self.do("train", "--method", method, "--seed", 0, "--index", world.train, "--pixels", world.train / "pixels.h5",
                "--parts", world.parts, "--threads", 1, "--workers", self.workers, *given, "--out", model)  # fmt: skip
        predictions = out / "evaluation" / method / "convnext" / "seed0"
        self.do(
            "evaluate", "--model", model, "--data", world.root / "data", "--threads", 1, *features, "--out", predictions
        )


def test_shards_workers_and_order_change_no_byte_of_a_table(
    world: World, stages: dict[str, str], tmp_path: Path, tried: Tried
) -> None:
    assert set(TESTED) <= set(NAMES)
    forwards = Run(tmp_path / "forwards", world, stages, shards=1, workers=0).make(backwards=False)
    backwards = Run(tmp_path / "backwards", world, stages, shards=2, workers=2).make(backwards=True)
    assert "table1.csv" in forwards
    different = sum(forwards[name] != backwards.get(name) for name in forwards)
    tried("other shard sizes, workers and order", 1, "the same bytes in every table", torn=different)
    assert forwards == backwards


SMALLER = {"methods": ["none", "sd_inpaint", "sd_features"], "backbones": {"swin": None}, "seeds": [0]}
OTHERWISE = {"PYTHONHASHSEED": "4242", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}


def small_run(
    folder: Path, targets: list[list[str]], workers: int, cores: int, umask: int, variables: dict[str, str]
) -> Path:
    """results/smoke of the demo in miniature, made by a real Snakemake in `folder`, one call for each of the targets."""
    folder.mkdir()
    for part in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / part).symlink_to(ROOT / part)
    (folder / "change.json").write_text(json.dumps({"training": SMALLER, "resources": {"workers": workers}}))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for wanted in targets:
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--resources", f"gpu={cores}", "--configfile",
                   "config.yaml", "config/demo.yaml", "config/smoke.yaml", "change.json", "--", *wanted]  # fmt: skip
        environment = os.environ | {"PATH": path} | variables
        result = subprocess.run(command, cwd=folder, env=environment, umask=umask, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return folder / "results/smoke"


@pytest.mark.slow
def test_every_file_of_a_second_run_has_the_same_bytes(tmp_path: Path, tried: Tried) -> None:
    """All of a run but what was measured: from another folder, in another order, with other workers, jobs and surroundings."""
    early = ["results/smoke/diffusion/features/dfeat_real@0/0-of-1.h5", "table2"]
    first = small_run(tmp_path / "first", [["all"], ["sheet"]], 0, 2, 0o022, {"PYTHONHASHSEED": "0"})
    second = small_run(tmp_path / "another, ü", [early, ["all"], ["sheet"]], 2, 1, 0o077, OTHERWISE)
    one, other = files(first), files(second)
    assert one.keys() == other.keys()
    for pattern in MEASURED:
        assert any(fnmatch(name, pattern) for name in one), f"no file {pattern}"
    assert len([name for name in one if one[name]]) > 300
    different = sorted(name for name in one if one[name] != other[name])
    tried("the demo again", 1, "the same bytes in every file but for what was measured", torn=len(different))
    assert different == []
    assert {finding.state for finding in verify_run(second)} == {"whole"}

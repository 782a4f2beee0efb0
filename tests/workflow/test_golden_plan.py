"""The golden plan: every file that the workflow would make, and the command that makes it, in six configurations.

A plan is what a real `snakemake -n -p` prints, brought to one form: a block for each command, with its options one a line in
the order of the alphabet, its log, and its outputs, by which the blocks are ordered. Settings stand as a digest, and below all blocks once in full. Rules
have no names here and jobs no numbers; the logs of an ablation's points are left out as well. So rules may be written anew,
as long as the same commands make the same files.

Where a change of the plan is meant, `python -m tests.workflow.test_golden_plan` records it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .test_snakemake import ROOT, text

RECORDED = ROOT / "tests/golden/plan"
SHOWN = 40
"""Lines of a difference that are shown."""
SHARDS = {"inpaint": {"shards": 2}, "features": {"shards": 2}}
ONE_BACKBONE = {"swin": None}
TWO_LEVELS = {"evaluation": {"imagenet_val": {"levels": [0, 40]}}}
KNOWN = {"name": "convnext_base.fb_in1k", "revision": "0" * 40}
"""A backbone with a head for ImageNet, which is read out before fine-tuning."""


@dataclass(frozen=True)
class Plan:
    """A configuration laid over the demo's, and what is asked of it."""

    overlay: dict[str, Any]
    targets: tuple[str, ...] = ("all",)
    files: tuple[str, ...] = ()
    """Configuration files of the project between the demo's and the overlay."""
    below: dict[str, Any] = field(default_factory=lambda: BEFORE_HOLDOUT)
    """What is laid below the overlay."""


def grid(key: str, values: list[Any], *methods: str) -> dict[str, Any]:
    return {"methods": methods, "grid": {key: values}}


BEFORE_HOLDOUT = {"data": {"drawn": {"train": 60}, "train": {"expected_images": 1200, "holdout": 0}}}
"""Laid over the demo's configuration for the plans that hold nothing out: what they recorded before there was a holdout stays."""

GRIDS = {
    "share": grid("occlusion.share", [0.5, 0.25], "none", "black_out", "sd_inpaint", "sd_features"),
    "guidance": grid("diffusion.inpaint.guidance_scale", [3, 7.5], "sd_inpaint"),
    "copies": grid("diffusion.inpaint.copies", [1, 2], "sd_inpaint"),
    "timestep": {
        "methods": ["sd_features"],
        "grid": {"diffusion.features.timestep": [100, 261], "diffusion.features.blocks": [["mid"], ["up.1"]]},
    },
    "fusion": grid("training.fusion", ["concat", "gated"], "sd_features"),
    "weights": grid("training.beta", [0.5, 0.0], "none", "replace"),
    "rate": grid("training.learning_rate", [0.01, 0.001], "none", "cutmix", "sd_inpaint"),
    "originals": grid("training.twins", [0.5, 1.0], "none", "black_out"),
    "twins": grid("training.twin_features", ["occluded", "clean"], "sd_features"),
}
PLANS = {
    "all": Plan(
        {"diffusion": SHARDS, "training": {"seeds": [0, 1], "backbones": {"swin": None, "known": KNOWN}}},
        ("all", "sheet"),
    ),
    "ablations": Plan(
        {"data": TWO_LEVELS, "diffusion": SHARDS, "training": {"backbones": ONE_BACKBONE}, "ablation": GRIDS},
        tuple(f"ablation_{name}" for name in GRIDS),
    ),
    "beyond": Plan(
        {"diffusion": SHARDS, "training": {"backbones": ONE_BACKBONE}},
        ("sweep", "object_occlusion", "part_cost", "calibration", "per_class", "label_preservation"),
        ("config/demo-beyond.yaml",),
    ),
    "clean": Plan(
        {
            "data": TWO_LEVELS,
            "diffusion": {"views": 2, **SHARDS},
            "training": {"twin_features": "clean", "methods": ["none", "sd_features"], "backbones": ONE_BACKBONE},
            "ablation": {"timestep": GRIDS["timestep"], "share": grid("occlusion.share", [0.5, 0.25], "sd_features")},
        },
        ("all", "ablation_timestep", "ablation_share"),
    ),
    "accepted": Plan(
        {
            "data": TWO_LEVELS,
            "diffusion": SHARDS,
            "training": {"inpainted": "accepted", "methods": ["none", "sd_inpaint"], "seeds": [0, 1]},
            "ablation": {
                "copies": GRIDS["copies"],
                "rate": grid("training.learning_rate", [0.01, 0.001], "none", "sd_inpaint"),
                "share": grid("occlusion.share", [0.5, 0.25], "none", "sd_inpaint"),
                "inpainted": grid("training.inpainted", ["accepted", "all"], "sd_inpaint"),
            },
        },
        ("all", "label_preservation", "ablation_copies", "ablation_rate", "ablation_share", "ablation_inpainted"),
    ),
    "holdout": Plan(
        {
            "data": TWO_LEVELS,
            "diffusion": SHARDS,
            "training": {"methods": ["none", "sd_features"], "backbones": ONE_BACKBONE},
            "ablation": {
                "timestep": GRIDS["timestep"],
                "tested": {**GRIDS["fusion"], "on": "test"},
                "learning_rate": grid("training.learning_rate", [0.01, 0.001], "none", "sd_features"),
            },
        },
        ("all", "ablation_timestep", "ablation_tested", "choose_learning_rate"),
        below={},
    ),
}


@dataclass
class Job:
    """A command of the plan: its words and options, its log, and what it makes."""

    words: list[str]
    options: list[tuple[str, str]]
    log: str
    outputs: list[str] = field(default_factory=list)

    def block(self) -> str:
        """The job as lines."""
        options = [f"  {option} {value}".rstrip() for option, value in sorted(self.options)]
        log = [f"  > {self.log}"] if self.log else []
        names: dict[str, list[str]] = {}
        for folder, _, name in sorted(path.rpartition("/") for path in self.outputs):
            names.setdefault(folder, []).append(name)
        made = [f"  makes {folder}: {' '.join(own)}" for folder, own in names.items()]
        return "\n".join([" ".join(self.words), *options, *log, *made])


def tree_in(folder: Path) -> Path:
    """A working folder with the project's workflow; the demo draws its data and has its models, so that nothing is missing."""
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def planned(tree: Path, plan: Plan) -> str:
    """The plan, by a real dry run, in its one form."""
    (tree / "below.json").write_text(json.dumps(plan.below))
    (tree / "overlay.json").write_text(json.dumps(plan.overlay))
    files = ("config.yaml", "config/demo.yaml", *plan.files, "below.json", "overlay.json")
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "--cores", "2", "--resources", "gpu=2"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"XDG_CACHE_HOME": str(tree / "cache"), "PATH": path}
    done = subprocess.run(
        [*command, "--configfile", *files, "--", *plan.targets],
        cwd=tree, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, text(done)
    return canonical(done.stdout + done.stderr)


def canonical(printed: str) -> str:
    """What a dry run printed, as blocks in the order of what they make; every job that makes something has one."""
    settings: dict[str, str] = {}
    jobs = [job_of(outputs, command, settings) for outputs, command in printed_jobs(printed)]
    blocks = [job.block() for job in sorted(jobs, key=lambda job: min(job.outputs))]
    named = [f"settings {name}\n{sections(content)}" for name, content in sorted(settings.items())]
    return "\n\n".join([*blocks, *named]) + "\n"


def printed_jobs(printed: str) -> Iterator[tuple[list[str], str]]:
    """(outputs, command) of each job that makes something."""
    for job in re.split(r"^\[[^\n]*\]\n(?=(?:local)?rule )", printed, flags=re.MULTILINE)[1:]:
        outputs = re.search(r"^    output: (.+)$", job, re.MULTILINE)
        if outputs:
            command = re.search(r"^Shell command: (.+?)(?:\n\n|\n\[|\Z)", job, re.MULTILINE | re.DOTALL)
            assert command, f"no command makes {outputs[1]}"
            yield outputs[1].replace(" (update)", "").split(", "), command[1]


def job_of(outputs: list[str], command: str, settings: dict[str, str]) -> Job:
    """A job of the plan; the settings that it is given are added to those known, by digest."""
    words, log = shlex.split(command), ""
    if ">" in words:
        place = words.index(">")
        words, rest = words[:place], words[place + 1 :]
        assert rest[1:] == ["2>&1"], f"{rest}: a log is written otherwise than by '> LOG 2>&1'"
        log = "" if "/ablation/" in "".join(outputs) else rest[0]
    start = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    options: list[tuple[str, str]] = []
    for word in words[start:]:
        if word.startswith("--"):
            options.append((word, ""))
        elif options[-1][0] == "--settings":
            name = hashlib.sha256(word.encode()).hexdigest()[:8]
            settings[name], options[-1] = word, ("--settings", name)
        else:
            options[-1] = (options[-1][0], " ".join(filter(None, (options[-1][1], word))))
    return Job(words[:start], options, log, outputs)


def sections(content: str) -> str:
    """Settings, a line for each section."""
    return "\n".join(
        f"  {name}: {json.dumps(value, separators=(',', ':'))}" for name, value in json.loads(content).items()
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree_in(tmp_path_factory.mktemp("plans"))


@pytest.mark.parametrize("name", PLANS)
def test_the_same_commands_make_the_same_files(name: str, tree: Path) -> None:
    recorded, now = (RECORDED / f"{name}.txt").read_text(), planned(tree, PLANS[name])
    if now != recorded:
        changes = list(difflib.unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", "", "", 2, ""))
        more = f"\n... {len(changes) - SHOWN} lines more" if len(changes) > SHOWN else ""
        pytest.fail("\n".join(line[:240] for line in changes[:SHOWN]) + more, pytrace=False)


def test_no_file_is_made_by_two_commands() -> None:
    for name in PLANS:
        lines = re.findall(r"^  makes (.+): (.+)$", (RECORDED / f"{name}.txt").read_text(), re.MULTILINE)
        files = [f"{folder}/{name}" for folder, names in lines for name in names.split()]
        assert len(files) == len(set(files)) > 100


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        working = tree_in(Path(folder))
        for name, plan in PLANS.items():
            content = planned(working, plan)
            (RECORDED / f"{name}.txt").write_text(content)
            print(f"{name}: {content.count('makes ')} jobs, {len(content) // 1000} kB")

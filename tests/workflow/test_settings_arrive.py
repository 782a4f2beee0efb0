"""Every setting arrives as it was written: from the configuration, through a real Snakemake and a shell, at the verb.

One run of every rule carries values that some layer on the way could take for its own: Snakemake's wildcards and formats,
the shell, JSON, YAML. A command that writes down its arguments stands in the place of `dfeat`.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snakemake.io import apply_wildcards
from snakemake.utils import format as snakemake_format

from dfeat.config import Settings
from dfeat.config.files import lay_over
from dfeat.config.points import Run
from dfeat.config.reading import read_mapping
from dfeat.diffusion.variants import STEMS
from dfeat.doctor.backbones import _mark
from dfeat.report.catalogue import catalogue, whole_settings
from dfeat.section import parse
from dfeat.storage.provenance import as_argument, settings_text

from .test_golden_plan import KNOWN, grid, printed_jobs
from .test_plan import MODEL
from .test_snakemake import ROOT, text

EVIL = (
    "{shard} {{set}} {at!r} {params.settings:q} {0} { } }{ <object_class> <at> $(touch hacked) `touch hacked` ${HOME} $HOME "
    "\\ \\n \\u007b \\\" \" ' '\\'' \n \r\n \t ; & | > < * ? [a] ~ ! # % -- é 漢 🙂 \x7f \x85 \u2028 \x01 1:30 010 ?str(1)"
)
PATH = EVIL.replace("/", "").replace("HOME", "UNSET")[:200]
"""What may be the name of a file, which is all that is left of it where a doctor looks for one. No variable in it is set."""
LONG = EVIL * (10_000 // len(EVIL) + 1)
PIECES = [*EVIL.split(" "), " ", "x", "--out", "-rf", "{", "}", '"', "\\", "'"]
WORDS = ["".join(random.Random(seed).choices(PIECES, k=seed % 40)) for seed in range(200)]
"""Texts that carry further values through the same run, as arguments of a timm model."""

MARKED = {
    "prompt": f"prompt {LONG}", "negative": f"negative {EVIL}", "note": f"note {LONG}", "train": f"train {PATH}",
    "set": f"set {PATH}", "labels": f"labels {PATH}", "config": f"config {PATH}", "model": f"model {PATH}",
    "painter": f"painter {PATH}", "weights": f"weights {PATH}.safetensors", "timm": f"timm {EVIL}",
}  # fmt: skip
RUN, SET, BACKBONE, GRID, TESTED = "r.u-n_1", "s.e-t_1", "b.x-1", "g.r-1", "te.sted-1"


def overlay() -> dict[str, Any]:
    """Laid over the demo's configuration: hostile values for every setting that is text, and a job for every rule."""
    sets = {
        SET: {"kind": "imagenet", "root": MARKED["set"], "labels": MARKED["labels"], "levels": [0]},
        "imagenet_val": {"levels": [0, 40]}, "dfeat_real": None, "sweep": {"levels": [0, 40]}, "objects": {"levels": [40, 80]},
    }  # fmt: skip
    backbones = {
        BACKBONE: {"name": MARKED["timm"], "weights": MARKED["weights"], "kwargs": {"texts": WORDS, "{a}": True}},
        "known": KNOWN, "swin": None, "convnext": None,
    }  # fmt: skip
    return {
        "run": RUN,
        "data": {"train": {"root": MARKED["train"]}, "evaluation": sets},
        "diffusion": {
            "resolution": 512,
            "model": {"path": MARKED["model"], "config": MARKED["config"]},
            "inpaint_model": {"path": MARKED["painter"]},
            "inpaint": {"shards": 1, "prompt": MARKED["prompt"], "negative_prompt": MARKED["negative"]},
        },
        "training": {"methods": ["none", "sd_inpaint", "sd_features", "sd_features_placebo"], "backbones": backbones},
        "ablation": {
            GRID: grid("training.beta", [0.5], "none"),
            TESTED: {**grid("occlusion.share", [0.25], "none"), "on": "test"},
            "learning_rate": grid("training.learning_rate", [0.01], "none"),
        },
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the project's workflow and the overlay, and models of hostile names."""
    folder = tmp_path_factory.mktemp("a {set} 'q' <b>")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    for model in ("model", "painter"):
        for name, content in MODEL.items():
            path = folder / MARKED[model] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        for name, stem in STEMS.items():
            (folder / MARKED[model] / name / f"{stem}.safetensors").touch()
    (folder / MARKED["weights"]).touch()
    (folder / "overlay.json").write_text(json.dumps(overlay()))
    take_backbones_for_right(folder)
    return folder


def take_backbones_for_right(folder: Path) -> None:
    """timm has no model of a hostile name: the verdict that the check before a run keeps of each backbone says it is right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        chosen = settings_in(folder)
        for backbone in chosen.training.backbones.values():
            mark = _mark(backbone, chosen.training.image_size, chosen.training.drop_path)
            assert mark is not None
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


FILES = ("config.yaml", "config/demo.yaml", "config/demo-beyond.yaml", "overlay.json")
NOTE = json.dumps({"note": MARKED["note"]}).replace(r"\ud83d\ude42", r"\U0001f642")
"""Given by `--config`, which Snakemake reads as YAML."""
TARGETS = (
    "all", "sheet", "label_preservation", "sweep", "object_occlusion", "part_cost", "choose_learning_rate",
    "ablation_learning_rate", f"ablation_{GRID}", f"ablation_{TESTED}",
)  # fmt: skip


def snakemake(tree: Path, *mode: str, first: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [first, str(Path(sys.executable).parent), os.environ["PATH"]]))
    environment = os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tree.parent / "cache")}
    command = [sys.executable, "-m", "snakemake", *mode, "--cores", "2", "--resources", "gpu=2", "--retries", "0"]
    command += ["--configfile", *FILES, "--config", f"report={NOTE}", "--", *TARGETS]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def settings(tree: Path) -> Settings:
    """The settings that were written, read without Snakemake."""
    return settings_in(tree)


def settings_in(tree: Path) -> Settings:
    merged: dict[str, Any] = {}
    for name in FILES:
        lay_over(merged, read_mapping(tree / name))
    lay_over(merged, {"report": {"note": MARKED["note"]}})
    return parse(Settings, merged)


def by_log(printed: str) -> dict[str, tuple[list[str], str]]:
    """What each job of a dry run makes, and its command, by its log."""
    jobs = {}
    for outputs, command in printed_jobs(printed):
        end = " 2>&1"
        command = command[: command.rindex(end)] + end  # what is printed after the last job is no part of it
        jobs[command.removesuffix(end).rpartition(" > ")[2]] = outputs, command
    return jobs


@dataclass
class Planned:
    """A dry run: the rules that have jobs, and of each job its log, what it makes and its command."""

    rules: set[str]
    jobs: dict[str, tuple[list[str], str]]


@pytest.fixture(scope="module")
def plan(tree: Path) -> Planned:
    done = snakemake(tree, "-n", "-p")
    assert done.returncode == 0, text(done)[-3000:]
    jobs = by_log(text(done))
    return Planned(set(re.findall(r"^(?:local)?rule (\S+):$", text(done), re.MULTILINE)), jobs)


@pytest.fixture(scope="module")
def arrived(plan: Planned, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a shell gives each job's verb, by the job's log."""
    folder = tmp_path_factory.mktemp("shell")
    for log in plan.jobs:
        (folder / log).parent.mkdir(parents=True, exist_ok=True)
    record = 'dfeat() { printf \'%s\\0\' "$#" "$@" >&3; }; exec 3>record\n'
    script = record + "".join(f"{command}\n" for _, command in plan.jobs.values())
    subprocess.run(["bash", "-euo", "pipefail"], input=script, text=True, check=True, cwd=folder)
    words = iter((folder / "record").read_text().split("\0"))
    return {log: [next(words) for _ in range(int(next(words)))] for log in plan.jobs}


def given_settings(words: list[str]) -> Any:
    """The settings among a verb's arguments, or None."""
    return json.loads(words[words.index("--settings") + 1]) if "--settings" in words else None


def texts(plain: Any) -> Iterator[str]:
    """All text in plain values, keys included."""
    if isinstance(plain, dict):
        yield from plain
        plain = list(plain.values())
    if isinstance(plain, list):
        for one in plain:
            yield from texts(one)
    elif isinstance(plain, str):
        yield plain


def rules_of_the_workflow(settings: Settings) -> set[str]:
    """Every rule with a command, as the files name them; those of tables, figures and sets come from the settings."""
    named: set[str] = {made.rule for made in catalogue(settings)}
    run = Run(settings)
    named |= {f"evaluate_on_{name}" for name in run.all_levels} | {
        f"evaluate_pretrained_on_{name}" for name in run.published
    }
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^(?=rule \w+:|use rule)", file.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"rule (\w+):|use rule \w+ as (\w+)", rule)
            if name and ("shell:" in rule or name[2]):
                named.add(name[1] or name[2])
    return named


def test_every_rule_is_in_the_plan(plan: Planned, settings: Settings) -> None:
    named = rules_of_the_workflow(settings)
    assert len(named) > 40 and not named - plan.rules, (
        "give these rules a job here, so that their settings are compared"
    )


def test_every_text_arrives_as_it_was_written(arrived: dict[str, list[str]]) -> None:
    found: set[str] = set()
    for log, words in arrived.items():
        for one in texts(given_settings(words)):
            mark = one.partition(" ")[0]
            if mark in MARKED and " " in one:
                assert one == MARKED[mark], f"{log}: {mark}"
                found.add(mark)
    assert found == set(MARKED)
    trained = [given_settings(words)["backbone"] for words in arrived.values() if words[0] == "train"]
    own = [one for one in trained if one["name"] == MARKED["timm"]]
    assert own and all(one["kwargs"] == {"texts": WORDS, "{a}": True} for one in own)


def test_the_report_is_given_all_settings(settings: Settings, arrived: dict[str, list[str]]) -> None:
    (page,) = [words for words in arrived.values() if words[0] == "report"]
    assert given_settings(page) == json.loads(settings_text(whole_settings(settings)))


@pytest.mark.slow
def test_a_real_run_gives_its_verbs_what_the_plan_shows(
    tree: Path, plan: Planned, arrived: dict[str, list[str]], tmp_path: Path
) -> None:
    """And no text in them is run: 50 seconds of jobs that write down what they are given, and make empty files."""
    (tmp_path / "outputs.json").write_text(json.dumps({log: outputs for log, (outputs, _) in plan.jobs.items()}))
    (tmp_path / "dfeat").write_text(RECORDER.format(python=sys.executable, folder=str(tmp_path)))
    (tmp_path / "dfeat").chmod(0o755)
    run = snakemake(tree, first=str(tmp_path))
    assert run.returncode == 0, text(run)[-3000:]
    assert dict(json.loads(path.read_text()) for path in tmp_path.glob("*.job")) == arrived
    assert not list(tree.rglob("hacked"))
    names = {"Snakefile", "workflow", "config.yaml", "config", "profiles", "overlay.json", "results", ".snakemake"}
    assert {path.name for path in tree.iterdir()} == names | {MARKED[name] for name in ("model", "painter", "weights")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "configuration", "sentence"),
    [
        ("a $(touch hacked)", {"report": {"note": LONG * 3}}, "has one of $ ` \" \\ in its name, which a shell would read in the long"),
        ("a $(touch hacked)", {}, ""),
        ("a {set}", {}, "and Snakemake takes braces and angle brackets in a path for wildcards"),
        ("a <b>", {}, "and Snakemake takes braces and angle brackets in a path for wildcards"),
    ],
)  # fmt: skip
def test_a_folder_that_a_layer_would_read_is_a_sentence(
    name: str, configuration: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    """Of commands from 64 KiB on Snakemake makes a script, whose path it gives a shell between double quotes."""
    checkout = tmp_path / name
    for part in ("Snakefile", "workflow", "config.yaml", "config"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        checkout.mkdir(exist_ok=True)
        copy(ROOT / part, checkout / part)
    (tmp_path / "own.json").write_text(json.dumps(configuration))
    files = [str(checkout / "config.yaml"), str(checkout / "config/demo.yaml"), str(tmp_path / "own.json")]
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "-s", str(checkout / "Snakefile")]
    folder = tmp_path if "{" in name or "<" in name else checkout
    done = subprocess.run([*command, "--configfile", *files], cwd=folder, capture_output=True, text=True)
    assert done.returncode == (2 if sentence else 0), text(done)
    assert sentence in done.stderr and "Traceback" not in done.stderr


RECORDER = """\
#!{python} -SE
import json, os, sys
folder, log = "{folder}", os.path.relpath(os.readlink("/proc/self/fd/1"))
with open(f"{{folder}}/{{os.getpid()}}.job", "w") as file:
    json.dump([log, sys.argv[1:]], file)
for path in json.load(open(f"{{folder}}/outputs.json"))[log]:
    open(path, "a").close()
"""


@given(st.dictionaries(st.text(), st.recursive(st.text(), st.lists, max_leaves=5), max_size=4))
@hypothesis_settings(deadline=None)
def test_no_layer_changes_an_argument(values: dict[str, Any]) -> None:
    """Whether or not a rule hands it over by a function: wildcards, format and shell leave it as it is."""
    argument = as_argument(values)
    assert json.loads(argument) == values
    assert apply_wildcards(argument, {}) == argument
    assert shlex.split(snakemake_format("{value:q}", value=argument)) == [argument]


def test_an_argument_without_braces_in_its_text_is_what_it_was() -> None:
    settings = Settings()
    assert as_argument(settings) == settings_text(settings)
    assert as_argument({"a": "\\{", "b": ["}"]}) == r'{"a":"\\\u007b","b":["\u007d"]}'

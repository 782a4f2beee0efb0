"""The configuration edited while a run is at work, two runs at work at once, and the report read while it is remade."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dfeat.config.expected import expected
from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.verify import verify_run

from .conftest import Tried
from .jobs import Job, artifacts
from .small_run import CONFIGS, SmallRun

TABLE = "report/table1.csv"
METHODS = {"methods": ["none", "black_out"]}
LEVELS = {"evaluation": {"imagenet_val": {"levels": [0, 20, 40]}}}


def wait_for(run: subprocess.Popen[bytes], log: Path, said: str) -> None:
    """Until Snakemake has printed this."""
    while said not in log.read_text():
        assert run.poll() is None, log.read_text()
        time.sleep(0.05)


def made_with(run: SmallRun) -> tuple[set[float], set[tuple[int, ...]]]:
    """The learning rates that the models of a run were trained with, and the levels of its predictions."""
    rates = {
        json.loads(path.read_text())["settings"]["training"]["learning_rate"]
        for path in run.run.glob("training/*/*/*/run.json")
    }
    said = [json.loads(path.read_text()) for path in run.run.glob("evaluation/*/*/*/imagenet_val.json")]
    return rates, {tuple(one["settings"]["levels"]["imagenet_val"]) for one in said}


@pytest.mark.slow
def test_an_edit_in_mid_run_reaches_no_job_before_the_next_snakemake(tmp_path: Path, tried: Tried) -> None:
    run = SmallRun.make(tmp_path / "run", training=METHODS)
    table = f"results/tiny/{TABLE}"
    at_work = run.start("--", table)
    edits: list[tuple[str, dict[str, Any]]] = [
        ("train", {"training": {**METHODS, "learning_rate": 0.5}}),
        ("evaluate_on_imagenet_val", {"training": {**METHODS, "learning_rate": 0.5}, "data": LEVELS}),
    ]
    for rule, edit in edits:
        wait_for(at_work, run.folder / "log", f"rule {rule}:")
        run.configure(**edit)
    assert at_work.wait(300) == 0, (run.folder / "log").read_text()
    rates, levels = made_with(run)
    assert 0.5 not in rates and len(rates) == 1
    assert levels == {(0, 40)}
    run.finish("--", table)
    assert made_with(run) == ({0.5}, {(0, 20, 40)})
    check_all_as_configured(run)
    assert run.plan("--", table) == {}
    tried("configuration edited in mid-run", len(edits), "jobs keep the settings of their Snakemake")


@pytest.mark.slow
def test_a_look_at_a_run_that_is_made_or_made_again_finds_nothing_bad(tmp_path: Path, tried: Tried) -> None:
    run = SmallRun.make(tmp_path / "run", training=METHODS)
    table, seen, looks = f"results/tiny/{TABLE}", [], 0
    for edit in ({}, {"learning_rate": 0.5}):
        run.configure(training={**METHODS, **edit})
        at_work = run.start("--", table)
        states: set[str] = set()
        while at_work.poll() is None:
            if (run.run / "data").is_dir():
                found = list(verify_run(run.run))
                assert not [finding for finding in found if finding.state == "bad"]
                states |= {finding.state for finding in found}
                looks += 1
        assert at_work.wait() == 0, (run.folder / "log").read_text()
        seen.append(states)
        assert {finding.state for finding in verify_run(run.run)} == {"whole"}
    tried("verify beside a running Snakemake", looks, "nothing called bad")
    assert "being made" in seen[1], "predictions of the models before"


def check_all_as_configured(run: SmallRun) -> None:
    configured = expected(Run(read_settings([run.folder / name for name in CONFIGS])))
    assert json.loads((run.run / "expected.json").read_text()) == json.loads(json.dumps(configured))
    assert {finding.state for finding in verify_run(run.run)} <= {"whole", "left over"}


@pytest.mark.slow
def test_two_runs_of_different_names_on_the_same_data_at_once(tmp_path: Path, tried: Tried) -> None:
    from dfeat.demo.worlds import write_demo_data

    one = SmallRun.make(tmp_path / "tree", run="one")
    write_demo_data(one.folder / "results/tiny/raw", train=1, val=1, real=1)  # where the small run looks
    other = SmallRun(one.folder, "other")
    started = []
    for run in (one, other):
        run.configure(run=run.run.name, data={"drawn": None}, training=METHODS)
        target = f"results/{run.run.name}/{TABLE}"
        log = f"log-{run.run.name}"
        started.append(run.start("--nolock", "--", target, log=log))
        wait_for(started[-1], run.folder / log, "Job stats")  # it has read its configuration
    for run, process in zip((one, other), started, strict=True):
        assert process.wait(600) == 0, (run.folder / f"log-{run.run.name}").read_text()
        assert {finding.state for finding in verify_run(run.run)} == {"whole"}
        assert not list(run.run.rglob("*.tmp.*"))
    steps = ("data", "occlusion", "training", "evaluation", "report")
    for step in steps:
        assert artifacts(one.run / step) == artifacts(other.run / step), step
    tried("two runs on the same data at once", 2, "results as of one alone")


class _Page(HTMLParser):
    """The files that a page links beside itself, and its last tag."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.last = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        href = dict(attributes).get("href") if tag == "a" else None
        if href and not href.startswith(("#", "http", "data:")):
            self.links.add(href)

    def handle_endtag(self, tag: str) -> None:
        self.last = tag


def _read_over_and_over(page: Path, said: Any) -> None:
    """Open the page and what it links, as a browser does, until told to stop; send what was seen."""
    looks, notes, odd = 0, set(), []
    while not said.poll():
        looks += 1
        text = page.read_text()
        seen = _Page()
        seen.feed(text)
        if seen.last != "html":
            odd.append(f"a page of {len(text)} characters that ends in {text[-20:]!r}")
        notes |= {note for note in ("the first note", "the other note") if note in text}
        for name in seen.links:
            if not (page.parent / name).read_bytes():
                odd.append(f"{name} is empty")
    said.send((looks, sorted(notes), odd))


@pytest.mark.slow
def test_the_report_is_never_half_a_page_to_a_reader(jobs: dict[str, Job], tmp_path: Path, tried: Tried) -> None:
    job, out = jobs["report"], tmp_path / "report"
    out.mkdir()

    def remake(note: str) -> None:
        words = list(job.arguments)
        place = words.index("--settings") + 1
        settings = json.loads(words[place])
        settings["report"]["note"] = note
        words[place] = json.dumps(settings)
        assert Job("report", tuple(words)).run(out, tmp_path / "log") == 0, (tmp_path / "log").read_text()

    remake("the first note")
    here, there = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(
        target=_read_over_and_over, args=(out / "index.html", there), daemon=True
    )
    reader.start()
    times = 4
    for turn in range(times):
        remake("the other note" if turn % 2 == 0 else "the first note")
    here.send("stop")
    looks, notes, odd = here.recv()
    reader.join()
    tried("report read while it is remade", times, "old page or new page, never half", 0, len(odd))
    assert odd == []
    assert notes == ["the first note", "the other note"]
    assert looks > times

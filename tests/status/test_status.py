"""The status of a run: while it goes on, after a kill, finished without data or weights, of an older version, of no run."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dfeat.config import Settings
from dfeat.config.expected import write_expected
from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.devices.attempts import attempt, record
from dfeat.errors import UserError
from dfeat.section import parse
from dfeat.status import Status, as_plain, status_of
from dfeat.status.jobs import Job, jobs_of
from dfeat.status.standing import Standing
from dfeat.status.text import as_text
from dfeat.storage.atomic import json_bytes
from dfeat.storage.journal import Journal

FOLDER = Path("results/paper")
SHARD = FOLDER / "diffusion/inpaint/train/0-of-44.h5"
MODEL = FOLDER / "training/none/swin/seed0/model.safetensors"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The paper's run in a folder that has nothing else: neither data nor weights."""
    monkeypatch.chdir(tmp_path)
    configured = Run(read_settings([Path(__file__).parents[2] / "config.yaml"]))
    write_expected(configured)
    (FOLDER / "data").mkdir()
    return configured


def make(job: Job, seconds: float = 60.0) -> None:
    """What a job that ended leaves: its files, its log and Snakemake's benchmark."""
    benchmark = job.place.benchmark(job.step, job.name)
    for path in (*job.makes, job.log, benchmark):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    job.log.write_text("done\n")
    benchmark.write_text(f"s\th:m:s\n{seconds}\t0:01:00\n")


def named(status: Status, name: str) -> Standing:
    (found,) = [job for job in status.jobs if f"{job.step} {job.name}" == name]
    return found


def mark(path: Path, job_id: str | None = None) -> None:
    """Mark a file as Snakemake does when it starts the job that makes it; names longer than a file's are split."""
    encoded = base64.urlsafe_b64encode(str(path).encode()).decode()
    parts = [encoded[i : i + 254] for i in range(0, len(encoded), 254)]
    marked = Path(".snakemake/incomplete", *("@" + part for part in parts[:-1]), parts[-1])
    marked.parent.mkdir(parents=True, exist_ok=True)
    marked.write_text(json.dumps({"external_jobid": job_id}))


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start Python code in a process of its own; it is waited for until it prints a line."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout and started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


AT_WORK = f"""\
import time
from pathlib import Path
from dfeat.devices.attempts import attempt, record
with attempt(Path({str(SHARD)!r})):
    record("device", device="H100")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_run_that_has_not_begun_is_planned_and_a_finished_one_is_made(run: Run) -> None:
    status = status_of(FOLDER)
    assert (status.count("left"), status.count("made")) == (len(status.jobs), 0)
    assert status.expected["inpaint"][1] == f"planned on one {run.settings.resources.device}"
    assert status.seconds_left and status.seconds_left > 24 * 3600
    assert "one job after another, and what no job has been measured of: index, pixels, parts" in as_text(status)
    for job in jobs_of(run):
        make(job)
    status = status_of(FOLDER)
    assert status.count("made") == len(status.jobs) == len(jobs_of(run))
    assert "195 of 195 jobs made. No Snakemake is at work." in as_text(status) and "Left" not in as_text(status)
    assert as_plain(status)["jobs"] == {"made": 195, "running": 0, "failed": 0, "left": 0}


def test_time_left_is_of_what_was_measured(run: Run) -> None:
    for job in jobs_of(run):
        make(job, 3600)
    for path in (FOLDER / "training").glob("*/swin/seed?/model.safetensors"):
        path.unlink()
    status = status_of(FOLDER)
    assert status.seconds_left == 18 * 3600 and status.expected["training of convnext"] == (3600, "measured, 18 jobs")


def test_a_job_at_work_is_told_with_its_device_and_its_rows_and_a_killed_one_fails(
    run: Run, elsewhere: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = elsewhere(AT_WORK)
    journal = Journal(SHARD, "0" * 64)
    journal.add({key: np.zeros(3, np.float16) for key in "abc"}, 2)
    found = named(status_of(FOLDER), "diffusion inpaint_0-of-44")
    assert found.state == "running" and found.where.endswith(", H100") and found.told == "3 rows so far"
    assert found.seconds is not None and found.seconds < 60 and found.since
    process.kill()
    process.wait()
    found = named(status_of(FOLDER), "diffusion inpaint_0-of-44")
    assert (found.state, found.failures) == ("failed", ["its process ended without a word"])


def test_what_went_wrong_is_kept_over_attempts_until_the_artifact_is_made(run: Run) -> None:
    with pytest.raises(UserError), attempt(SHARD):
        record("halved", batch=8)
        raise UserError("the disk is full")
    job = next(job for job in jobs_of(run) if job.name == "inpaint_0-of-44")
    job.log.parent.mkdir(parents=True)
    job.log.write_text("dfeat: computes\ndfeat: the disk is full\n\n")
    status = status_of(FOLDER)
    found = named(status, "diffusion inpaint_0-of-44")
    assert (found.state, found.told, found.halved) == ("failed", "dfeat: the disk is full", [8])
    assert f"diffusion inpaint_0-of-44: dfeat: the disk is full  [{job.log}]" in as_text(status)
    with attempt(SHARD):
        record("computed", rows=512, seconds=9.0, waited=0.5, memory=1)
    make(job)
    status = status_of(FOLDER)
    found = named(status, "diffusion inpaint_0-of-44")
    assert (found.state, found.attempts, found.computed["rows"]) == ("made", 2, 512)
    assert "inpaint_0-of-44: attempt 2, batches halved to 8, before: the disk is full" in as_text(status)
    with attempt(SHARD):  # another making
        pass
    assert named(status_of(FOLDER), "diffusion inpaint_0-of-44").attempts == 1


def test_a_training_tells_its_epoch_and_a_stopped_one_its_checkpoint(run: Run) -> None:
    with attempt(MODEL):
        record("epoch", epoch=4, epochs=30, step=400, steps=3000, images_per_second=812.3, seconds_left=1500.0)
        found = named(status_of(FOLDER), "training none_swin_seed0")
        assert found.state == "running" and found.told == "epoch 4 of 30 done, 812 images a second"
        assert found.seconds_left and 1400 < found.seconds_left <= 1500
    MODEL.parent.mkdir(parents=True)
    state = json.dumps({"step": 412, "metrics": [{}] * 4})
    save_file({}, MODEL.with_name("checkpoint.safetensors"), {"state": state})
    found = named(status_of(FOLDER), "training none_swin_seed0")
    assert found.told == "a checkpoint stands at step 412, after epoch 4"


def test_jobs_that_only_snakemake_knows_of_run_while_it_is_at_work(
    run: Run, elsewhere: Callable[[str], subprocess.Popen[str]]
) -> None:
    mark(FOLDER / "data/train/index.csv", "4711")
    assert named(status_of(FOLDER), "data index_train").state == "left"
    process = elsewhere(
        f"import time; from pathlib import Path; from dfeat.storage.atomic import mark_under_way\n"
        f"mark_under_way(Path({str(FOLDER)!r})); print('begun', flush=True); time.sleep(60)"
    )
    status = status_of(FOLDER)
    found = named(status, "data index_train")
    assert status.at_work and (found.state, found.where) == ("running", "job 4711")
    assert "Snakemake is at work." in as_text(status)
    process.kill()
    process.wait()
    Path(".snakemake/locks").mkdir()
    Path(".snakemake/locks/0.output.lock").touch()
    status = status_of(FOLDER)
    assert (status.at_work, status.locked, named(status, "data index_train").state) == (False, True, "left")
    assert "`snakemake --unlock`" in as_text(status)


def test_a_job_of_another_host_counts_as_running_as_long_as_snakemake_waits_for_it(run: Run) -> None:
    with attempt(MODEL):
        pass
    path = FOLDER / "benchmarks/training/none_swin_seed0.jsonl"
    begun = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(begun | {"host": "node7", "job": "SLURM 12"}) + '\n{"event": "cut o')
    mark(MODEL, "12")
    assert named(status_of(FOLDER), "training none_swin_seed0").state == "failed"
    Path(".snakemake/locks").mkdir()
    Path(".snakemake/locks/0.output.lock").touch()
    found = named(status_of(FOLDER), "training none_swin_seed0")
    assert (found.state, found.where) == ("running", "node7, SLURM 12")


def test_points_of_a_grid_that_was_asked_for_are_jobs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = {"methods": ["none"], "grid": {"training.learning_rate": [0.01, 0.02]}, "on": "test"}
    run = Run(parse(Settings, {"ablation": {"rates": grid}}))
    before = len(jobs_of(run))
    (FOLDER / "ablation" / "rates").mkdir(parents=True)
    titles = [job.title for job in jobs_of(run)[before - 15 :] if "rates/1" in job.title]
    assert "none_swin_seed0 (rates/1)" in titles and len(titles) == 3 * 2 * 3


def test_an_older_run_is_told_by_its_reports_configuration_or_the_users(run: Run) -> None:
    recorded = json.loads((FOLDER / "expected.json").read_text())
    del recorded["configuration"]
    (FOLDER / "expected.json").write_bytes(json_bytes(recorded))
    (FOLDER / ".sha256" / "expected.json").unlink()
    with pytest.raises(UserError, match="does not record its configuration"):
        status_of(FOLDER)
    assert len(status_of(FOLDER, run.settings).jobs) == 195
    (FOLDER / "report").mkdir()
    (FOLDER / "report/config.yaml").write_text("training: {methods: [none]}\n")
    assert len(status_of(FOLDER).jobs) < 195


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_a_sentence(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        status_of(Path(folder))

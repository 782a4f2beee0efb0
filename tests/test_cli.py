"""The command line: exit statuses, one-line errors, and a quick start."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import dfeat as dfeat_package
from dfeat.cli import app, main
from dfeat.cli.common import GROUPS, one_config_each
from dfeat.data.settings import TrainSet
from dfeat.diffusion.settings import FeaturesStage, InpaintStage, LatentsStage
from dfeat.evaluation.settings import EvaluateStage
from dfeat.progress import ended_for_good
from dfeat.section import Section, parse
from dfeat.training.settings import TrainStage
from tests.conftest import CPU, TINY_BACKBONE, World
from tests.report.predictions import small_settings, write_predictions

ROOT = Path(__file__).parents[1]
VERBS = sorted(command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands)


def dfeat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dfeat.cli", *arguments], capture_output=True, text=True)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["dfeat", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(monkeypatch, verb, "--help") == 0
    text = capsys.readouterr().out
    assert "Example: dfeat" in text
    assert f"dfeat {verb}" in " ".join(text.split())


READ_BY: dict[str, type[Section]] = {
    "index": TrainSet,
    "inpaint": InpaintStage,
    "latents": LatentsStage,
    "features": FeaturesStage,
    "train": TrainStage,
    "evaluate": EvaluateStage,
}
"""The verbs whose example gives settings as JSON, and what reads them."""


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_in_the_help_can_be_pasted(verb: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As a shell reads the lines that the help prints: its options exist, nothing needed is missing, its JSON is taken."""
    assert run(monkeypatch, verb, "--help") == 0
    lines = capsys.readouterr().out.partition("Example: ")[2]
    words = shlex.split(lines.replace("\\\n", " "))
    assert words[:2] == ["dfeat", verb]
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    given = command.make_context(verb, words[2:]).params
    assert "..." not in lines and "$" not in lines
    for file in given.get("config") or ():
        assert (ROOT / file).is_file()
    if verb in READ_BY:
        parse(READ_BY[verb], given["settings"])
    else:
        assert given.get("settings") in (None, "{}")


def test_help_has_every_verb_in_a_group_with_its_first_sentence_whole(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert run(monkeypatch, "-h") == 0
    text = " ".join(capsys.readouterr().out.partition("Start here")[2].split())
    assert (
        all(verb in VERBS for verbs in GROUPS.values() for verb in verbs) and "Others" not in text and "..." not in text
    )
    assert "Encode views of each image with the VAE." in text
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert len(command.get_short_help_str(1000)) <= 55, name
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"dfeat {dfeat_package.__version__}\n"


def test_configuration_files_are_given_as_to_snakemake(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    answers = []
    for words in ("--config config.yaml config/fast.yaml", "--configfile config.yaml config/fast.yaml",
                  "--config config.yaml --config config/fast.yaml"):  # fmt: skip
        assert run(monkeypatch, "plan", *words.split(), "--device", "H100") == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2]
    words = ["adopt", "--config", "a.yaml", "results/demo", "--settings", "b.yaml", "c.yaml"]
    assert one_config_each(words) == words


def test_make_alone_lists_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    said = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert targets is not None
    assert {line.split()[1] for line in said.splitlines()} == set(targets[1].split())


def test_all_settings_are_given_as_files_or_as_json(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    write_predictions(tmp_path / "evaluation", small_settings())
    text = json.dumps(small_settings().model_dump(mode="json"))
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "overlay.yaml").write_text("report: {note: another note}")
    monkeypatch.chdir(tmp_path)
    table = ("table", "table2", "--results", ".", "--out")
    assert run(monkeypatch, *table, "json", "--settings", text) == 0
    assert run(monkeypatch, *table, "default") == 0
    assert run(monkeypatch, *table, "files", "--config", "config.yaml", "--config", "overlay.yaml") == 0
    made = [(tmp_path / folder / "table2.md").read_text() for folder in ("json", "default", "files")]
    assert made[0] == made[1] and "another note" in made[2]
    assert run(monkeypatch, *table, "both", "--settings", text, "--config", "config.yaml") == 2
    assert "either --config or --settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("parts", "--index", "nowhere", "--out", "x.json"), "nowhere"),
        (("index", "train", "--settings", '{"rot": "x"}', "--out", "x"), "did you mean 'root'?"),
        (
            ("table", "table3", "--results", "r", "--settings", "{}", "--out", "x"),
            "did you mean 'table2'?; use table1, table2, controls, efficiency, claims, calibration",
        ),
        (("figure", "figure9", "--results", "r", "--settings", "{}", "--out", "x"), "no figure 'figure9'"),
        (("pixels", "--out", "x.h5"), "either --index or --inpainted"),
        (
            ("latents", "--index", "x", "--view", "clean", "--settings", "{}", "--out", "x", "--shard", "1"),
            "is not i/n",
        ),
        (("table", "table1", "--results", "r", "--settings", "{x", "--out", "x"), "dfeat: --settings is not JSON"),
        (
            ("inpaint", "--index", "i", "--parts", "p", "--settings", "{x", "--out", "x"),
            "dfeat: --settings is not JSON",
        ),
        (
            ("evaluate", "--data", "d", "--settings", "{}", "--out", "x"),
            "--model, a folder that `dfeat train` wrote, is missing",
        ),
        (
            ("doctor", "--config", str(ROOT / "README.md")),
            "could not find expected ':'); give a YAML file",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "final", "last"),
    [
        ("KeyError('noise')", True, "dfeat: KeyError: 'noise'"),
        ("UserError('a wrong file')", True, "dfeat: a wrong file"),
        ("MachineError('the disk is full')", False, "dfeat: the disk is full"),
        ("RuntimeError('CUDA error: unspecified launch failure')", False, "RuntimeError: CUDA error: unspecified"),
    ],
)
def test_a_fault_of_the_user_or_the_program_is_final_and_one_of_the_machine_is_not(
    fault: str, final: bool, last: str, tmp_path: Path
) -> None:
    code = f"""
from dfeat.errors import MachineError, UserError
from dfeat.progress import exit_on_user_error
def fail():
    raise {fault}
exit_on_user_error(fail)
"""
    log = tmp_path / "job.log"
    with log.open("w") as written:
        done = subprocess.run([sys.executable, "-c", code], stderr=written)
    assert done.returncode == (2 if "UserError" in fault else 1)
    assert ended_for_good(log) == final
    assert log.read_text().splitlines()[-1].startswith(last)
    assert ("in fail" in log.read_text()) == ("Key" in fault or "Runtime" in fault)  # a traceback


HEAVY = ("torch", "timm", "diffusers", "transformers", "matplotlib", "scipy", "numpy", "pydantic")


def modules_after(*arguments: str) -> set[str]:
    """What a process has imported when the verb has done its work."""
    code = """
import json, sys
from dfeat.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


GPU_VERBS = {
    "inpaint": ("--index", "nowhere", "--parts", "p.json", "--out", "x.h5"),
    "latents": ("--index", "there", "--view", "parts", "--parts", "nowhere/parts.json", "--out", "x.h5"),
    "features": ("--latents", "nowhere.h5", "--out", "x.h5"),
    "train": (
        "--method", "sd_inpaint", "--seed", "0", "--index", "there", "--pixels", "there/index.csv", "--parts",
        "there/index.csv", "--inpainted", "nowhere.h5", "--out", "x",
    ),
    "evaluate": ("--model", "there", "--data", "nowhere", "--out", "x"),
    "judge": (
        "--model", "nowhere", "--index", "there", "--pixels", "there/index.csv", "--parts", "there/index.csv",
        "--inpainted", "there/index.csv", "--out", "x",
    ),
}  # fmt: skip
"""Each verb that computes on a device, with a path that leads nowhere; `there` is a folder with an index and a model."""


@pytest.mark.parametrize("verb", GPU_VERBS)
@pytest.mark.parametrize("fault", ["path", "settings"])
def test_inputs_and_settings_are_looked_at_before_a_device_is_taken(
    verb: str, fault: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    from dfeat.devices import leases

    (tmp_path / "there").mkdir()
    for name in ("index.csv", "run.json"):
        (tmp_path / "there" / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFEAT_DEVICES", "GPU-a")
    monkeypatch.setenv("DFEAT_LEASES", str(tmp_path / "leases"))
    needed = {"train": '{"backbone": {"name": "resnet18"}}', "evaluate": '{"levels": {"dfeat_real": [0]}}'}
    settings = needed.get(verb, "{}") if fault == "path" else '{"modl": 1}'
    assert run(monkeypatch, verb, *GPU_VERBS[verb], "--settings", settings) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("nowhere" in error and "make it with `dfeat" in error) if fault == "path" else "modl" in error
    assert not leases._taken and not (tmp_path / "leases").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"there"}


def test_an_input_that_is_not_there_imports_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from dfeat.cli import main
try:
    main()
except SystemExit as stop:
    assert stop.code == 2 and "torch" not in sys.modules
"""
    arguments = ("inpaint", "--index", "nowhere", "--parts", "p.json", "--settings", "{}", "--out", str(tmp_path / "x"))
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("--help")
    assert not loaded & set(HEAVY)
    assert len(loaded) < 400
    assert sum(name.startswith("dfeat.") for name in loaded) < 20


def test_what_computes_nothing_imports_no_torch(world: World, tmp_path: Path) -> None:
    settings = json.dumps(world.stage("parts").model_dump(mode="json"))
    parts = ("parts", "--index", str(world.train), "--settings", settings, "--out", str(tmp_path / "parts.json"))
    for verb in (parts, ("plan", "--settings", "{}"), ("schema", "--out", str(tmp_path / "schema.json"))):
        assert not modules_after(*verb) & {"torch", "timm", "diffusers", "transformers"}, verb[0]


def test_features_import_no_timm(world: World, tmp_path: Path) -> None:
    from dfeat.diffusion.latents import encode_view

    encode_view(world.train, "clean", world.stage("latents"), tmp_path / "latents.h5", CPU, shard=(0, 5))
    settings = json.dumps(world.stage("features").model_dump(mode="json"))
    files = ("--latents", str(tmp_path / "latents.h5"), "--out", str(tmp_path / "features.h5"))
    loaded = modules_after("features", *files, "--settings", settings, "--threads", "1")
    assert "torch" in loaded
    assert not loaded & {"timm", "matplotlib"}


def test_evaluation_imports_no_diffusers(world: World, tmp_path: Path) -> None:
    from bench.evaluation import write_untrained
    from dfeat.training.settings import Backbone

    model = write_untrained(tmp_path / "model", Backbone(**TINY_BACKBONE), 20, image_size=64)
    settings = json.dumps({"levels": {"dfeat_real": [0]}, "evaluation": {"crop_pct": 1.0, "batch_size": 32}})
    folders = ("--model", str(model), "--data", str(world.root / "data"), "--out", str(tmp_path / "predictions"))
    loaded = modules_after("evaluate", *folders, "--settings", settings, "--threads", "1")
    assert (tmp_path / "predictions" / "dfeat_real@0.csv").is_file()
    assert not loaded & {"diffusers", "matplotlib"}


def test_an_unknown_verb_is_status_2() -> None:
    started = time.monotonic()
    result = dfeat("indx")
    assert result.returncode == 2
    assert "No such command" in result.stderr
    assert time.monotonic() - started < 30

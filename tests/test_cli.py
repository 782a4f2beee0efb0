"""The command line: exit statuses, one-line errors, and a quick start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfeat.cli import app, main

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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("parts", "--index", "nowhere", "--out", "x.json"), "nowhere"),
        (("index", "train", "--settings", '{"rot": "x"}', "--out", "x"), "did you mean 'root'?"),
        (
            ("table", "table3", "--results", "r", "--settings", "{}", "--out", "x"),
            "use table1, table2, efficiency, claims, sweep",
        ),
        (("figure", "figure9", "--results", "r", "--settings", "{}", "--out", "x"), "no figure 'figure9'"),
        (("pixels", "--out", "x.h5"), "either --index or --inpainted"),
        (
            ("latents", "--index", "x", "--view", "clean", "--settings", "{}", "--out", "x", "--shard", "1"),
            "is not i/n",
        ),
        (("demo-model", "diffusion", "--out", "x"), "needs --index"),
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


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, dfeat.cli; print([m for m in ('torch', 'timm', 'diffusers', 'numpy', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_parts_imports_no_torch_and_features_no_timm() -> None:
    code = "import sys, {}; print([m for m in ('torch', 'timm') if m in sys.modules])"
    for module, loaded in (("dfeat.occlusion.parts", "[]"), ("dfeat.diffusion.features", "['torch']")):
        out = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True).stdout
        assert out.strip() == loaded


def test_an_unknown_verb_is_status_2() -> None:
    started = time.monotonic()
    result = dfeat("indx")
    assert result.returncode == 2
    assert "No such command" in result.stderr
    assert time.monotonic() - started < 30

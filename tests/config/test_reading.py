"""A configuration of any content is read within bounds, as Snakemake reads it, or refused in one sentence at once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snakemake.common.configfile import _load_configfile

from dfeat.config import Settings
from dfeat.config.files import check_command_line, lay_over, read_settings
from dfeat.config.reading import MOST_BYTES, check_bounds, parsed, read_mapping
from dfeat.errors import UserError
from dfeat.section import parse

ROOT = Path(__file__).parents[2]


def bomb(item: str, first: str) -> str:
    """Ten names, each of them nine times the one before: 9 ** 9 values in 400 bytes."""
    names = [f"a0: &a0 {first}"]
    return "\n".join([*names, *(f"a{n}: &a{n} " + item.replace("*", f"*a{n - 1}") for n in range(1, 10))])


LISTS = bomb("[*, *, *, *, *, *, *, *, *]", "[x, x, x]")
MAPPINGS = bomb("{a: *, b: *, c: *, d: *, e: *, f: *, g: *, h: *, i: *}", "{x: 1}")
MERGES = bomb("{<<: [*, *, *, *, *, *, *, *, *], y: 1}", "{x: 1}")
CHAIN = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 500))])
"""Nested 500 deep by aliases, two deep as it is written."""

REFUSED = [
    ("report: " + "[" * 500 + "]" * 500, "nested more than 50 deep"),
    ("[" * 200_000, "nested more than 50 deep"),
    ('{"report":' * 5000 + "1" + "}" * 5000, "nested more than 50 deep"),
    ("- " * 300 + "x", "nested more than 50 deep"),
    (CHAIN, "nested more than 50 deep"),
    (LISTS, "line 6: aliases repeat more than 100,000 values"),
    (MAPPINGS, "line 6: aliases repeat more than 100,000 values"),
    (MERGES, "line 6: aliases repeat more than 100,000 values"),
    ("report: &a [*a]", "the alias *a stands in what it names"),
    ("report: &a {note: *a}", "the alias *a stands in what it names"),
    ("training: {epochs: 1, epochs: 2}", "line 1: duplicate key 'epochs', which stands on line 1"),
    ("run: a\nreport: {}\n'run': b", "line 3: duplicate key 'run', which stands on line 1 of the same mapping"),
    ("data:\n  evaluation:\n    a: {root: x}\n    b: {root: y}\n    a: {root: z}", "line 5: duplicate key 'a', which stands on line 3"),
    ('{"training":\n {"epochs": 1,\n "epochs": 2}}', "line 3: duplicate key 'epochs', which stands on line 2"),
    ('{"run": "a",\t"run": "b"}', "duplicate key 'run'"),
    ("training: {learning_rate: 1:30}", "1:30 is a number to YAML, but not the one that it looks like"),
    ("training: {learning_rate: 1:30.5}", "1:30.5 is a number to YAML"),
    ("training: {batch_size: 010}", "line 1: 010 is a number to YAML"),
    ("training: {batch_size: 0x10}", "0x10 is a number to YAML"),
    ("training: {batch_size: 0b11}", "0b11 is a number to YAML"),
    ("training: {batch_size: 1_0}", "1_0 is a number to YAML"),
    ("training: {learning_rate: .nan}", "write a finite number"),
    ("training: {learning_rate: -.inf}", "write a finite number"),
    ('{"training": {"learning_rate": NaN}}', "'training.learning_rate' is nan: input should be a finite number"),
    ('{"training": {"learning_rate": 1e999}}', "'training.learning_rate' is inf: input should be a finite number"),
    ("training: {seeds: [99999999999999999999]}", "is a number to YAML"),
    ('{"training": {"seeds": [99999999999999999999]}}', "more than 64 bits"),
    ("training: {seeds: [" + "9" * 5000 + "]}", "is a number to YAML"),
    ("report: {note: 2024-01-01}", "2024-01-01 is a date to YAML"),
    ("report: !!python/object/apply:os.system ['touch hacked']", "the tag tag:yaml.org,2002:python/object/apply:os.s"),
    ("report: {note: !!binary aGk=}", "the tag tag:yaml.org,2002:binary is no part"),
    ("report: {note: ! x}", "the tag ! is no part"),
    ("data: {evaluation: {no: {root: x}}}", "the key no is no text to YAML"),
    ("? [a, b]\n: 1", "a key is a list or a mapping"),
    ('report: {note: "a\\0b"}', "'report.note' has a NUL character in it"),
    ('{"report": {"note": "\\ud800"}}', "half a character"),
    ("__use_yte__: true\nreport: {note: \"?open('hacked', 'w')\"}", "Snakemake would run the Python in it"),
    ("pathvars: 3", "Snakemake would put its values into paths"),
    ("run: a\n---\nrun: b", "but found another document"),
    ("- a\n- b", "is no configuration"),
    ("", "is no configuration"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_a_hostile_file_is_refused_in_one_sentence_at_once(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    start = time.process_time()
    with pytest.raises(UserError) as error:
        read_mapping(path)
    assert sentence in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert str(path) in str(error.value)
    assert time.process_time() - start < 5  # 0.1 s where nothing else runs


BYTES = [
    ("run: é\n".encode("utf-16"), "is UTF-16 or binary"),
    ("run: a\n".encode("utf-16-be"), "is UTF-16 or binary"),
    ("run: a\n".encode("utf-32"), "is UTF-16 or binary"),
    (b"run: a\nreport: {note: a\0b}\n", "is UTF-16 or binary"),
    ("run: a\nreport: {note: é}\n".encode("latin-1"), "line 2: is not UTF-8 text"),
    (b"\x1b", "c.yaml"),
    (b"#" * (MOST_BYTES + 1), "is larger than 256 KiB"),
]


@pytest.mark.parametrize(("content", "sentence"), BYTES, ids=range(len(BYTES)))
def test_a_file_that_is_no_text_is_refused_in_one_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_mapping(path)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["run: a\r\nreport:\r\n  note: é\r\n", '{"run": "a", "report": {"note": "é"}}'])
def test_a_byte_order_mark_as_editors_of_windows_write_it_is_no_part_of_the_text(content: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    with path.open(encoding="utf-8") as file:
        assert plain(_load_configfile(file)) == read_mapping(path) == {"run": "a", "report": {"note": "é"}}


def test_a_file_without_end_is_refused_at_once(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100 << 20)
    for path in (huge, Path("/dev/zero")):
        with pytest.raises(UserError, match="is larger than 256 KiB"):
            read_mapping(path)


VALUES = st.one_of(
    st.sampled_from(["~", "null", "true", "no", "Off", "1", "0", "-5", "+7", "010", "0o10", "1_0", "0x1", "1:30", "1.5", "1.", ".5", "-.5", "1e-4", "1.e+2", ".inf", ".NaN", "2024-01-01", "2024-1-1", "*a", "*b", "&a", "&b", "x", "'x'", '"x"', '"\\x41"', "<<:", "=", "!", "!!str", "''", "[]", "{}", "?", "?x", "|", ">", "@", "`", "%"]),
    st.text(max_size=5), st.integers().map(str), st.floats().map(str),
)  # fmt: skip
TEXTS = st.recursive(
    VALUES,
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda them: f"[{', '.join(them)}]"),
        st.lists(st.tuples(VALUES, below), max_size=3).map(
            lambda them: "{" + ", ".join(f"{k}: {v}" for k, v in them) + "}"
        ),
        st.lists(st.tuples(VALUES, below), max_size=3).map(lambda them: "\n".join(f"{k}: {v}" for k, v in them)),
    ),
    max_leaves=8,
)


@given(st.tuples(st.sampled_from(["", "a: &a {x: 1}\n", "{"]), TEXTS).map("".join))
@hypothesis_settings(deadline=None, max_examples=300)
def test_what_is_read_is_what_snakemake_reads(content: str) -> None:
    try:
        value = parsed(content, "c.yaml")
    except UserError as error:
        assert "c.yaml" in str(error) and "\n" not in str(error)
        return
    assert repr(plain(_load_configfile(io.StringIO(content)))) == repr(plain(value))


def plain(value: Any) -> Any:
    """Mappings of any kind as dict."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def test_aliases_and_merged_keys_within_bounds_are_read(tmp_path: Path) -> None:
    path, above = tmp_path / "c.yaml", tmp_path / "above.yaml"
    path.write_text(
        "data:\n  evaluation:\n    one: &set {root: x, levels: &all [0, 40]}\n    two: *set\n"
        "    three: {<<: *set, root: y}\n    four: {root: z, levels: *all}\n"
    )
    above.write_text("data: {evaluation: {one: {levels: [0]}}}")
    sets = read_settings([path, above]).data.evaluation
    assert {name: one.root for name, one in sets.items()} == {"one": "x", "two": "x", "three": "y", "four": "z"}
    assert [one.levels for one in sets.values()] == [
        (0,),
        (0, 40),
        (0, 40),
        (0, 40),
    ]  # an overlay of one changes no other


def test_a_mapping_over_a_value_and_a_value_over_a_mapping_replace_it() -> None:
    below: dict[str, Any] = {"a": 1, "b": {"c": 1}, "d": {"e": 1}}
    lay_over(below, {"a": {"x": 1}, "b": 2, "d": {"f": 2}})
    assert below == {"a": {"x": 1}, "b": 2, "d": {"e": 1, "f": 2}}


def test_a_list_that_holds_itself_is_a_sentence() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UserError, match="nested more than 50 deep"):
        parse(Settings, {"report": {"note": endless}})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--configfile", "good.yaml", "bomb.yaml"], "bomb.yaml, line 6"),
        (["--configfiles", "bomb.yaml", "-n"], "bomb.yaml, line 6"),
        (["-n", "--configfile=bomb.yaml"], "bomb.yaml, line 6"),
        (["--config", "run=x", f"report={'[' * 500}"], "--config is nested more than 50 deep"),
        (
            ["-C", f"report={{{', '.join(MAPPINGS.splitlines())}}}"],
            "aliases repeat",
        ),
        (["--configfile", "good.yaml", "-n", "bomb.yaml", "--config", "run=010", "report=*a", "x", "--cores", "2"], ""),
        (["--configfile", "godo.yaml"], "no configuration file 'godo.yaml'; did you mean 'good.yaml'?"),
        (["--configfile", "missing.yaml"], "no configuration file 'missing.yaml'\n"),
        (
            ["--configfile", "good.yaml", "table1"],
            "no configuration file 'table1'; if it is a target, put -- before it",
        ),
        (["--config", "training.epochs=7"], "write --config 'training={epochs: 7}'"),
        (["--config", "run=x", "data:train:root=/a.b=c"], "write --config 'data={train: {root: /a.b=c}}'"),
    ],
)
def test_the_command_is_looked_at_before_snakemake_reads_it(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bomb.yaml").write_text(MAPPINGS)
    Path("good.yaml").write_text("run: a\n")
    if not sentence:
        check_command_line(["snakemake", *words])
        return
    with pytest.raises(SystemExit) as end:
        check_command_line(["snakemake", *words])
    assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_text_for_config_may_be_anything_that_ends() -> None:
    for value in ("*a", "a: b: c", "@", "010", "2024-01-01", "{a: &a [1], b: *a}", "x" * 10_000):
        check_bounds(value, "--config")


@pytest.mark.parametrize("place", ["config.yaml", "--configfile"])
def test_snakemake_itself_answers(place: str, tmp_path: Path) -> None:
    """A real Snakemake: a bomb in its own configuration, or in a file that is named."""
    for name in ("Snakefile", "workflow", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config.yaml").write_text(MERGES if place == "config.yaml" else "run: a\n")
    (tmp_path / "bomb.yaml").write_text(MERGES)
    named = [place, "bomb.yaml"] if place == "--configfile" else []
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", *named]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 2 and "dfeat: " in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3

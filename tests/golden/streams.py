"""The random streams: what the source asks random numbers for, what a piece of work asked for, and one of them disturbed.

A purpose is the third argument of `seed_for` and `rng_for`; those that differ in a number or name alone (`drop 20`, `drop
40`) are one family, named by the words before it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dfeat
from dfeat import randomness
from dfeat.methods import METHODS

PACKAGE = Path(dfeat.__file__).parent
NO_STAGE = ("bench",)
"""Parts of the package whose random numbers are in no result."""


@cache
def families() -> frozenset[str]:
    """The families of purposes in the source."""
    found: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in NO_STAGE or path == Path(randomness.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in ("seed_for", "rng_for"):
                given = node.args[2] if len(node.args) > 2 else {k.arg: k.value for k in node.keywords}["purpose"]
                found |= _families_of(given, path)
    return frozenset(found)


def family_of(purpose: str, known: frozenset[str]) -> str:
    """The family of a purpose: the longest whose words it begins with."""
    fitting = [family for family in known if purpose == family or purpose.startswith(f"{family} ")]
    assert fitting, f"the source has no purpose {purpose!r}"
    return max(fitting, key=len)


@contextmanager
def watched(disturbed: str | None = None) -> Iterator[set[str]]:
    """Gather the families that are asked for, and let one of them draw other numbers.

    It is the text below the digest that is changed, so that names imported before this are reached.
    """
    known, seen, real = families(), set(), randomness.hashlib

    def blake2b(text: bytes, **options: Any) -> Any:
        seed, key, purpose = text.decode().split("\x1f")
        family = family_of(purpose, known)
        seen.add(family)
        other = " disturbed" if family == disturbed else ""
        return real.blake2b(f"{seed}\x1f{key}\x1f{purpose}{other}".encode(), **options)

    with mock.patch.object(randomness, "hashlib", SimpleNamespace(blake2b=blake2b)):
        yield seen


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _families_of(given: ast.expr, path: Path) -> set[str]:
    """What a call draws for; where it is a method's own name, those of the methods that mix or hide by chance."""
    if isinstance(given, ast.Attribute) and given.attr == "name":
        return {one.name for one in METHODS if one.mix or not one.parts}
    return {_words(purpose, path) for purpose in _either(given)}


def _either(purpose: ast.expr) -> list[ast.expr]:
    return [purpose.body, purpose.orelse] if isinstance(purpose, ast.IfExp) else [purpose]


def _words(purpose: ast.expr, path: Path) -> str:
    parts = purpose.values if isinstance(purpose, ast.JoinedStr) else [purpose]
    first = parts[0]
    assert isinstance(first, ast.Constant), f"{path}:{purpose.lineno}: a purpose begins with the words that name it"
    return str(first.value).strip()

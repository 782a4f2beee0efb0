"""A configuration file as a mapping: JSON or YAML, as Snakemake reads it, within bounds.

What enters: a path. What leaves: plain values, or one sentence that names the file, the line and the remedy. Size, depth
and what aliases repeat are bounded before a value is built. What YAML 1.1 takes for another value than it looks like
(`1:30` is 90, `010` is 8, of two equal keys the first is lost) is refused, so all readers read the same.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from dfeat.errors import UserError
from dfeat.section import DEEPEST, MOST_VALUES, check_values, once_each

MOST_BYTES: Final = 256 * 1024
"""Larger than any settings that a verb can be handed, with comments."""
_SNAKEMAKES: Final = {
    "__use_yte__": "Snakemake would run the Python in it; write the values out",
    "pathvars": "Snakemake would put its values into paths; take it out",
}
"""Keys that Snakemake takes for its own."""
_TAG: Final = "tag:yaml.org,2002:"
_DECIMAL: Final = {
    f"{_TAG}int": re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})"),
    f"{_TAG}float": re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"),
}
_NOT_TEXT: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_mapping(path: Path) -> dict[str, Any]:
    """What a configuration file holds. Raises UserError where it is too large, too deep, ambiguous, or no mapping."""
    content = parsed(_text(path), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration: it must have keys at top level, as config.yaml has")
    for key, why in _SNAKEMAKES.items():
        if key in content:
            raise UserError(f"{path} has the key {key!r}: {why}")
    check_values(content, str(path))
    return content


def parsed(text: str, where: str) -> Any:
    """The value of a JSON or YAML text, JSON first as in Snakemake. Raises UserError."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: once_each(pairs, where))
    except RecursionError:
        raise _too_deep(where) from None
    except UserError:
        check_bounds(text, where)  # JSON is YAML as well, whose reader knows the lines of both keys
        raise
    except ValueError:
        pass
    try:
        return _Strict(text, where).get_single_data()
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the configuration {where} ({_why(error)}); give a YAML file") from None


def check_bounds(text: str, where: str) -> None:
    """Refuse a YAML text whose reading would not end; its values may be anything, text included. Raises UserError."""
    with contextlib.suppress(yaml.YAMLError):
        YamlBounds(text, where).get_single_node()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot read the configuration {path} ({why}); give a YAML file") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES // 1024} KiB, as no configuration is; name another file")
    if content.startswith(_NOT_TEXT) or b"\0" in content:
        raise UserError(f"{path} is UTF-16 or binary; save the configuration as UTF-8 text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; save the configuration as UTF-8") from None


def _too_deep(where: str) -> UserError:
    return UserError(f"{where} is nested more than {DEEPEST} deep, as no configuration is; take the brackets out")


def _why(error: Exception) -> str:
    """The error in one line; PyYAML's own text takes several."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or " ".join(str(error).split()))


class YamlBounds(yaml.SafeLoader):
    """YAML of bounded depth and size, aliases and merged keys counted wherever they stand; no tags, no key twice.

    Both are known when a node is composed, before any value is built: an alias is of a node that is whole already.
    """

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self._where = where
        self._level = 0
        self._extents: dict[int, tuple[int, int]] = {}
        """Values and levels in each whole node, by its id."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, counted; an alias gives the node that it names."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._extents:
                self._refuse(event, f"the alias *{event.anchor} stands in what it names; write the values out")
            return node
        if event.tag is not None:
            self._refuse(event, f"the tag {event.tag} is no part of a configuration; take it out")
        self._level += 1
        if self._level > DEEPEST:
            raise _too_deep(self._where)
        node = super().compose_node(parent, index)
        self._level -= 1
        self._count(node, event)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping whose keys are text, each there once."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "a key is a list or a mapping; give it a name")
            name = (key.tag, key.value)
            if name in first:
                before = f"which stands on line {first[name]} of the same mapping"
                self._refuse(key, f"duplicate key {key.value!r}, {before}; keep one of the two")
            first[name] = key.start_mark.line + 1
        return node

    def _count(self, node: Any, event: Any) -> None:
        below: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            below = [one for pair in below for one in pair]
        extents = [self._extents[id(one)] for one in below]
        size, levels = 1 + sum(size for size, _ in extents), 1 + max((levels for _, levels in extents), default=0)
        if size > MOST_VALUES:
            self._refuse(event, f"aliases repeat more than {MOST_VALUES:,} values; write out those that are meant")
        if levels > DEEPEST:
            raise _too_deep(self._where)
        self._extents[id(node)] = size, levels

    def _refuse(self, at: Any, problem: str) -> NoReturn:
        raise UserError(f"{self._where}, line {at.start_mark.line + 1}: {problem}")


class _Strict(YamlBounds):
    """YAML whose plain numbers are decimal and finite, without dates."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping whose keys are text as they stand."""
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                self._refuse(key, f"the key {_short(key.value)} is no text to YAML; put it in quotes")
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        """A scalar that is what it looks like."""
        node = super().compose_scalar_node(anchor)
        if node.tag == f"{_TAG}timestamp":
            self._refuse(node, f"{node.value} is a date to YAML, as no setting is; if text is meant, put it in quotes")
        decimal = _DECIMAL.get(node.tag)
        if decimal and not decimal.fullmatch(node.value):
            self._refuse(
                node,
                f"{_short(node.value)} is a number to YAML, but not the one that it looks like; write a finite number in "
                "decimal digits, or put text in quotes",
            )
        return node


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."

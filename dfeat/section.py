"""The base of every section of config.yaml, the types their keys share, and how a mapping is read as a section.

What enters: a mapping, or its JSON text. What leaves: a frozen `Section`, or one sentence for each fault. The sections
themselves stand beside the components they set (`<step>/settings.py`); `dfeat.config` composes them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import core_schema

from dfeat.errors import UserError, nearest

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""tf32: numbers of 32 bits whose products have factors of 10 bits of mantissa (NVIDIA Ampere or later)."""
Share = Annotated[float, Field(ge=0, le=1)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
ImageSize = Annotated[int, Field(ge=16, le=4096)]
"""Side of a network's input in pixels."""
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_DEVICES: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")


def _name_of_a_file(name: str) -> str:
    if name.endswith(".") or ".tmp." in name or _DEVICES.fullmatch(name) or name.lower() == "null":
        raise ValueError(
            "names no file everywhere: it ends with a dot, has '.tmp.' in it, as files that are being written do, is null, "
            "or is a device of Windows; give another name"
        )
    return name


Name = Annotated[str, Field(pattern=_NAME, max_length=64), AfterValidator(_name_of_a_file)]
"""A name that becomes part of a path: letters, digits, '_', '-', '.', not starting with a dot."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _one_line(label: str) -> str:
    label = label.strip()
    if not label or len(label) > LONGEST_LABEL or not label.isprintable():
        raise ValueError(f"is no label; give one line of 1 to {LONGEST_LABEL} characters")
    return label


LONGEST_LABEL: Final = 60
Label = Annotated[str, AfterValidator(_one_line), WithJsonSchema({"type": "string", "minLength": 1})]
"""What tables and figures print in place of a key."""


def _forty_digits(revision: str) -> str:
    if len(revision) != 40 or set(revision) - set("0123456789abcdef"):
        raise ValueError(
            "is no commit; branches and tags move, so give the 40 hexadecimal digits that stand on the model's page on "
            "the Hub (Files, History) and in the path that `hf download MODEL` prints, or null and run `dfeat fetch`"
        )
    return revision


Commit = Annotated[str, AfterValidator(_forty_digits)]
"""A commit of a repository on the Hub."""
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})", re.ASCII)


class LocalPath(os.PathLike[str]):
    """A path of the configuration. As text it is what was written, so that settings and what records them are the same on
    every machine; as a path (`Path(x)`, `open(x)`) it has `~` and $VARIABLES filled in.

    Every setting that may be a path has this type, so none is opened without. Making a path of it raises UserError where a
    variable is not set.
    """

    __slots__ = ("_written",)

    def __init__(self, written: str) -> None:
        self._written = written

    def __str__(self) -> str:
        return self._written

    def __repr__(self) -> str:
        return repr(self._written)

    def __eq__(self, other: object) -> bool:
        return str(other) == self._written if isinstance(other, LocalPath | str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._written)

    def __bool__(self) -> bool:
        return bool(self._written)

    def __fspath__(self) -> str:
        unset = ""

        def value(variable: re.Match[str]) -> str:
            nonlocal unset
            found = os.environ.get(variable[1] or variable[2], "")
            unset = unset or ("" if found else variable[0])
            return found

        path = os.path.expanduser(_VARIABLE.sub(value, self._written))  # noqa: PTH111  # Path("~none") raises
        if unset == "" and not path.startswith("~"):
            return path
        if os.path.lexists(self._written):
            return self._written
        what = f"{unset} is not set" if unset else "no such user has a home folder"
        raise UserError(
            f"the path {self._written!r} cannot be found: {what}; export the variable, or write the path out"
        )

    def exists(self) -> bool:
        """Whether something is there; False where a variable is not set."""
        try:
            return os.path.exists(self)  # noqa: PTH110
        except UserError:
            return False

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, _TEXT_OF_A_PATH, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


_TEXT_OF_A_PATH: Final = core_schema.no_info_before_validator_function(
    lambda value: str(value) if isinstance(value, LocalPath) else value, core_schema.str_schema()
)

WNID: Final = r"^n\d{8}$"

_BRANCH: Final = re.compile(r"(constrained-|function-|(tuple|list|dict|literal|nullable)\[)")
"""What pydantic calls the alternatives of a type, as parts of a fault's place."""

IN_WORDS: Final = {
    _NAME: "is part of a path, so give letters, digits, '_', '-' and '.', the first a letter or a digit",
    WNID: "is no wnid; give one such as n02487347",
}
"""What each pattern allows, in words for error messages."""


DEEPEST: Final = 50
MOST_VALUES: Final = 100_000
"""Bounds of a configuration: levels of mappings and lists in each other, and values in all."""
_NUMBER: Final = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""A number as text, which `snakemake --config` gives, and YAML 1.1 for 1e-4."""
_LONGEST_NUMBER: Final = 40
"""Characters; longer text is no setting's number."""
_NULLS: Final = frozenset(("null", "Null", "NULL", "~"))
_TRUTHS: Final = {
    form(word): truth
    for words, truth in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for form in (str.lower, str.title, str.upper)
}
"""What YAML 1.1 takes for null, true and false; `snakemake --config` gives text where it stands inside a mapping or a list."""


class Section(BaseModel):
    """A section of config.yaml: immutable, finite numbers only, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, field: ValidationInfo) -> Any:
        """Take text for the null or the numbers it is; refuse true, and other text, where only numbers stand."""
        if is_null(value) and field.field_name in _nullable_fields(cls):
            return None
        if field.field_name in _numeric_fields(cls):
            for one in _leaves(value):
                if isinstance(one, bool) or (isinstance(one, str) and not _NUMBER.fullmatch(one)):
                    has = "is" if one is value else f"has {_shown(one)}, which is"
                    raise ValueError(f"{has} no number; write one in decimal digits, such as 0.01 or 25")
            return typed(value)
        return value


@cache
def _numeric_fields(section: type[BaseModel]) -> frozenset[str]:
    """The fields of a section that hold numbers and nothing else, alone or in lists and mappings."""
    return frozenset(
        name
        for name, field in section.model_fields.items()
        if (types := set(_types(field.annotation)) - {type(None)}) and types <= {int, float}
    )


@cache
def _nullable_fields(section: type[BaseModel]) -> frozenset[str]:
    """The fields of a section that may be null."""
    return frozenset(name for name, field in section.model_fields.items() if type(None) in get_args(field.annotation))


def is_null(value: Any) -> bool:
    """Whether a value is null, or a text that is null in YAML."""
    return value is None or (isinstance(value, str) and value in _NULLS)


def typed(value: Any) -> Any:
    """A value with texts in it taken for the numbers, booleans and nulls that they are in YAML, at any depth.

    `1e-3` is a number here, as in YAML 1.2; in YAML 1.1, which Snakemake reads, it is text.
    """
    if isinstance(value, dict):
        return {key: typed(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(typed, value))
    if not isinstance(value, str):
        return value
    if is_null(value):
        return None
    if len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value):
        return _TRUTHS.get(value, value)
    number = float(value) if set(value) & set(".eE") else int(value)
    return number if math.isfinite(number) else value


def _types(annotation: Any) -> Iterator[Any]:
    """The types of the values that an annotation stands for, without those of keys."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    elif get_origin(annotation) is dict:
        arguments = arguments[1:]
    if not arguments or get_origin(annotation) is Literal:
        yield annotation
    for one in arguments:
        if one is not Ellipsis:
            yield from _types(one)


def _leaves(value: Any) -> Iterator[Any]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if below is None:
        yield value
    else:
        for one in below:
            yield from _leaves(one)


def check_values(value: Any, where: str) -> None:
    """Refuse what is no setting whatever its key: too deep, too much, or no finite number or text. Raises UserError."""
    waiting, count = [("", value, 1)], 0
    while waiting:
        key, one, level = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise UserError(f"{where} holds more than {MOST_VALUES:,} values, as no configuration does; shorten it")
        if level > DEEPEST:
            raise UserError(f"{where}: {key[:80]!r} is nested more than {DEEPEST} deep; take the brackets out")
        fault = _unfit(one)
        if fault:
            raise UserError(f"{where}: {key!r} {fault}")
        below: Any = ()
        if isinstance(one, dict):
            below = one.items()
            broken = next((name for name in one if isinstance(name, str) and _unfit(name)), None)
            if broken is not None:
                raise UserError(f"{where}: the key {_shown(broken)} {_unfit(broken)}")
        elif isinstance(one, list | tuple):
            below = enumerate(one)
        waiting += [(f"{key}.{name}".lstrip("."), under, level + 1) for name, under in below]


def once_each(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """The pairs of a JSON object as a mapping. Raises UserError for a duplicate key."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        twice = next(key for key in mapping if sum(key == other for other, _ in pairs) > 1)
        raise UserError(f"{where}: duplicate key {twice!r} in one mapping; keep one of the two")
    return mapping


def _unfit(one: Any) -> str:
    """What is wrong with a value that no setting can have, or nothing."""
    if isinstance(one, float) and not math.isfinite(one):
        return f"is {one!r}: input should be a finite number"
    if isinstance(one, int) and not -(2**63) <= one < 2**63:
        return "is a whole number of more than 64 bits; give a smaller one"
    if isinstance(one, str) and not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
        return "has half a character (a lone surrogate) in it; write the text anew"
    if isinstance(one, str) and "\0" in one:
        return "has a NUL character in it; take it out"
    return ""


def _shown(value: Any) -> str:
    """A value as an error shows it: its start, where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"


def _without_nulls(named: Any) -> Any:
    return {name: value for name, value in named.items() if not is_null(value)} if isinstance(named, dict) else named


T = TypeVar("T")
WithoutNulls = Annotated[T, BeforeValidator(_without_nulls)]
"""A mapping from which null entries are dropped: overlays can add keys, but not take them away."""

S = TypeVar("S", bound=Section)


def parse(model: type[S], value: Any, where: str = "config.yaml") -> S:
    """Read `value` (a mapping, or its JSON text) as the section `model`.

    Raises UserError: one sentence a fault, naming the key, the value found and what is allowed.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=lambda pairs: once_each(pairs, where))
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON ({error.msg} at character {error.pos}): {value[:80]!r}") from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
            raise UserError(f"{where} cannot be read as JSON ({error}): {value[:80]!r}") from None
    check_values(value, where)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError("; ".join(f"{where}: {_sentence(model, fault)}" for fault in _told(error))) from None


def _told(error: ValidationError) -> list[Any]:
    """The faults with their keys alone; of a key that may have several types, the fault of the type that was meant."""
    told: dict[tuple[Any, ...], Any] = {}
    for fault in error.errors():
        key = tuple(part for part in fault["loc"] if not (isinstance(part, str) and _BRANCH.match(part)))
        several = len(key) < len(fault["loc"])
        group = tuple(part for part in key if isinstance(part, str)) if several else (*key, len(told))
        # The other types' faults are of the type alone: "input should be a valid tuple".
        if group not in told or told[group]["type"].endswith(("_type", "_parsing")):
            told[group] = {**fault, "loc": key}
    return list(told.values())


def safe_inside(root: str, path: str) -> bool:
    """Whether the relative `path` stays inside `root` when joined to it (no absolute path, no '..')."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return bool(root or path) and not parts.is_absolute() and ".." not in parts.parts


def _sentence(model: type[BaseModel], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        siblings = _keys_beside(model, fault["loc"])
        return f"unknown key {key!r}{nearest(str(fault['loc'][-1]), siblings)} (keys there: {', '.join(siblings)})"
    if fault["type"] == "missing":
        return f"{key!r} is missing; give it a value"
    message = IN_WORDS.get(fault.get("ctx", {}).get("pattern"), fault["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    return f"{key!r} is {_shown(fault['input'])}: {message[0].lower()}{message[1:]}"


def _keys_beside(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys allowed in the section that holds the last key of `location`."""
    current: Any = model
    for part in location[:-1]:
        fields = getattr(current, "model_fields", None)
        if fields is None or part not in fields:
            continue  # a name in a mapping: the section below is the mapping's value type
        annotation = fields[part].annotation
        if not hasattr(annotation, "model_fields"):
            arguments = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
            annotation = arguments[0] if arguments else annotation
        current = annotation
    return sorted(getattr(current, "model_fields", {}))

"""The base of every section of config.yaml, the types their keys share, and how a mapping is read as a section.

What enters: a mapping, or its JSON text. What leaves: a frozen `Section`, or one sentence for each fault. The sections
themselves stand beside the components they set (`<step>/settings.py`); `dfeat.config` composes them.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dfeat.errors import UserError, nearest

Precision = Literal["float32", "bfloat16", "float16"]
Share = Annotated[float, Field(ge=0, le=1)]
BatchSize = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int, Field(ge=16)]
"""Side of a network's input in pixels."""
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]
"""A name that becomes part of a path: letters, digits, '_', '-', '.', not starting with a dot."""


def _forty_digits(revision: str) -> str:
    if len(revision) != 40 or set(revision) - set("0123456789abcdef"):
        raise ValueError(
            "is no commit; branches and tags move, so give the 40 hexadecimal digits that stand on the model's page on "
            "the Hub (Files, History) and in the path that `hf download MODEL` prints"
        )
    return revision


Commit = Annotated[str, AfterValidator(_forty_digits)]
"""A commit of a repository on the Hub."""

WNID: Final = r"^n\d{8}$"

IN_WORDS: Final = {
    _NAME: "is part of a path, so give letters, digits, '_', '-' and '.', the first a letter or a digit",
    WNID: "is no wnid; give one such as n02487347",
}
"""What each pattern allows, in words for error messages."""


class Section(BaseModel):
    """A section of config.yaml: immutable, finite numbers only, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _without_nulls(named: Any) -> Any:
    return {name: value for name, value in named.items() if value is not None} if isinstance(named, dict) else named


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
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON ({error.msg} at character {error.pos}): {value[:80]!r}") from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
            raise UserError(f"{where} cannot be read as JSON ({error}): {value[:80]!r}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError("; ".join(f"{where}: {_sentence(model, fault)}" for fault in error.errors())) from None


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
    return f"{key!r} is {fault['input']!r}: {message[0].lower()}{message[1:]}"


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

"""Which files of a component hold its weights: one file or several with an index, plain or of a variant.

What enters: the names in a component's folder, as diffusers and transformers write them. What leaves: the names of the
files that are read. Names and indexes only, no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from dfeat.errors import UserError

STEMS: Final = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
"""How the weights of each component are called before variant and suffix."""
PLAIN: Final = ""
"""The variant of files that name none."""
_ROUNDED: Final = ("fp16", "bf16")
"""Variants that are the plain weights, rounded: where a component has one of them alone, it is read unasked."""


def variants(names: Collection[str], component: str) -> dict[str, str]:
    """The variants of a component's weights among the names in its folder: the single file of each, else its index."""
    stem = re.escape(STEMS[component])
    kinds = (
        rf"{stem}\.safetensors\.index(?:\.([\w-]+))?\.json",
        rf"{stem}\.safetensors\.([\w-]+)\.index\.json",  # before diffusers 0.29
        rf"{stem}(?:\.([\w-]+))?\.safetensors",
    )
    found: dict[str, str] = {}
    for kind in kinds:
        for name in sorted(names):
            match = re.fullmatch(kind, name)
            if match and not re.search(r"-\d{5}-of-\d{5}$", match[1] or ""):
                found[match[1] or PLAIN] = name
    return found


def chosen(names: Collection[str], component: str, variant: str | None, where: str) -> str:
    """The single file or the index that is read: of `variant`, else the plain one, else the only one, if it is rounded.

    Raises UserError, which names `where` the names are from, if there are no weights or it is not clear which are meant.
    """
    found = variants(names, component)
    for wanted in ([variant] if variant else []) + [PLAIN]:
        if wanted in found:
            return found[wanted]
    if not found:
        raise UserError(
            f"{where} has no .safetensors weights ({STEMS[component]}.safetensors); pickled weights in a folder are not "
            "loaded, get the model's .safetensors files"
        )
    if len(found) == 1 and not variant and next(iter(found)) in _ROUNDED:
        return next(iter(found.values()))
    raise UserError(
        f"{where} has weights of the variant{'s' if len(found) > 1 else ''} {' and '.join(sorted(found))} alone; set "
        f"diffusion.model.variant to the one that is meant, or get {STEMS[component]}.safetensors"
    )


def shards_in(names: Collection[str], index: str) -> list[str]:
    """The files that an index is of, among the names in its folder, by their own names: before the index is read."""
    variant = re.sub(r"^.*?\.safetensors|\.?index|\.json$", "", index)
    stem = re.escape(index.partition(".")[0])
    number, kind = r"-\d{5}-of-\d{5}", re.escape(variant)
    return sorted(
        name for name in names if re.fullmatch(rf"{stem}(?:{kind}{number}|{number}{kind})\.safetensors", name)
    )


def files_of(chosen_file: Path) -> list[Path]:
    """The files to read for a single file or an index: the index first, then those that it lists. Raises UserError."""
    if chosen_file.suffix == ".safetensors":
        return [chosen_file]
    try:
        listed = json.loads(chosen_file.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in listed})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {chosen_file} ({error!r}); get the model again") from None
    for name in names or [""]:
        if not re.fullmatch(r"[\w.-]+\.safetensors", name) or not (chosen_file.parent / name).is_file():
            raise UserError(
                f"{chosen_file} lists {name!r}, which is no .safetensors file beside it; get the model again"
            )
    return [chosen_file, *(chosen_file.parent / name for name in names)]

"""Find the weights of a backbone and the head that they have.

This module does not import torch, so that `dfeat doctor` and Snakemake can use it.
"""

from __future__ import annotations

import json
from pathlib import Path

from dfeat.errors import UserError
from dfeat.section import LocalPath
from dfeat.shortage import pass_on
from dfeat.training.settings import Backbone

HEADS = ("head.fc.weight", "head.weight", "classifier.weight", "fc.weight")
"""Names of the last linear layer's weight in timm's models."""


def weights_path(path: LocalPath) -> Path:
    """The file of a path in `backbone.weights`; "demo:<name>" is a file that ships with the package."""
    if str(path).startswith("demo:"):
        return Path(__file__).parents[1] / "demo" / "models" / f"{str(path)[5:]}.safetensors"
    return Path(path)


def weights_file(backbone: Backbone) -> Path:
    """The file of a backbone's weights; huggingface_hub fetches those of timm from the Hub, once.

    `backbone.revision` pins them, and run.json records their digest. Raises UserError if they cannot be fetched.
    """
    if backbone.weights is not None:
        return weights_path(backbone.weights)
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    source = timm.get_pretrained_cfg(backbone.name)
    if source is None or not source.hf_hub_id:
        raise UserError(f"timm has no weights of {backbone.name!r} on the Hub; give a local .safetensors as `weights`")
    try:
        name = source.hf_hub_filename or "model.safetensors"
        return Path(hf_hub_download(source.hf_hub_id, name, revision=backbone.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"cannot fetch the weights of {backbone.name} from {source.hf_hub_id} ({cause}); give a local .safetensors "
            "as its `weights`"
        ) from None


def has_imagenet_head(backbone: Backbone) -> bool:
    """Whether the weights have a head of 1,000 classes, so that the backbone can be evaluated before fine-tuning.

    Read from the header of a local file. For timm's own weights it follows from the tag in the name (`.fb_in1k`); a name
    without tag counts as no.
    """
    if backbone.weights is None:
        return backbone.name.partition(".")[2].endswith("in1k")
    shapes = _tensor_shapes(backbone.weights)
    return any(shapes.get(name, [0])[0] == 1000 for name in HEADS)


def _tensor_shapes(weights: LocalPath) -> dict[str, list[int]]:
    """Names and shapes in the header of a .safetensors file; empty if it is not one."""
    try:
        path = weights_path(weights)
        with path.open("rb") as file:
            # A .safetensors file begins with the header's length (8 bytes, little endian) and the header, JSON.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        pass_on(error, str(weights))
        return {}

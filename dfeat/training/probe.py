"""What a backbone cannot take, found without its weights: timm builds it on the meta device, where nothing is computed.

What enters: a `Backbone`, the size of its input and the rate of stochastic depth. What leaves: nothing, or one sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dfeat.errors import UserError, nearest
from dfeat.shortage import pass_on, shortage
from dfeat.training.network import build_backbone, pooled_width, untrained_backbone
from dfeat.training.settings import Backbone


def check_backbone(backbone: Backbone, image_size: int, drop_path: float = 0.0) -> None:
    """Raise UserError for a name, tag, kwargs, size of images or rate of stochastic depth that a training would refuse."""
    _check_tag(backbone)
    try:
        with torch.device("meta"):
            model = untrained_backbone(backbone, drop_path).eval()
    except UserError:
        raise
    except Exception as error:  # timm's models raise whatever they like for arguments that they do not expect
        pass_on(error)
        raise UserError(
            f"timm model {backbone.name!r} cannot be built with kwargs {backbone.kwargs}: {_in_a_line(error)}; correct them"
        ) from None
    _check_size(model, backbone, image_size)


def check_weights(backbone: Backbone, drop_path: float = 0.0) -> None:
    """Raise UserError where a local file of weights is none, or is of another architecture."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")  # which is what is meant here
        build_backbone(backbone, drop_path)


@contextmanager
def explained(backbone: Backbone, image_size: int, drop_path: float = 0.0) -> Iterator[None]:
    """An error inside that comes of what the backbone cannot take is a UserError instead."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError) and shortage(error) is None:
            check_backbone(backbone, image_size, drop_path)
        raise


def _check_tag(backbone: Backbone) -> None:
    import timm

    name, _, tag = backbone.name.partition(".")
    if not tag or name not in timm.list_models():
        return
    known = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag not in known:
        raise UserError(
            f"timm model {name!r} has no weights {tag!r}{nearest(tag, known)} (there: {', '.join(known) or 'none'})"
        )


def _check_size(model: nn.Module, backbone: Backbone, image_size: int) -> None:
    """Raise UserError where the network does not take images of this size, or returns no feature a row."""
    weights_for = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-1]
    try:
        feature = model(torch.empty(2, 3, image_size, image_size, device="meta"))
    except NotImplementedError:  # an operation without a form for the meta device tells nothing
        return
    except Exception as error:
        pass_on(error)
        raise UserError(
            f"timm model {backbone.name!r} does not take images of training.image_size {image_size} ({_in_a_line(error)}); "
            f"set it to {backbone.kwargs.get('img_size', weights_for)}, or, where the model takes that, kwargs img_size to "
            f"{image_size}"
        ) from None
    width = pooled_width(model) if hasattr(model, "num_features") else 0
    if getattr(feature, "shape", ()) != (2, width):
        raise UserError(
            f"timm model {backbone.name!r} with kwargs {backbone.kwargs} returns no feature of {width} values for each image, "
            "as a backbone must; take another model, or correct kwargs"
        )


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__

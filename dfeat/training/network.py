"""Backbone, fusion and head: l_f from any timm model, fused with l_d of the diffusion model into l_a (Fig. 1b).

What enters: a `Backbone` and the width of the diffusion features (0: none). What leaves: a `FusionNetwork`, which maps
images (B, 3, S, S) and features (B, D) to logits (B, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfeat.data.classes import imagenet_wnids
from dfeat.diffusion.stream import to_device
from dfeat.errors import UserError, nearest
from dfeat.randomness import rng_for
from dfeat.training.fusion import FEATURE_NORMS, FUSIONS
from dfeat.training.loading import weights_checked
from dfeat.training.settings import Backbone
from dfeat.training.weights import weights_file

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Final[Statistics] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's channel mean and standard deviation, with which both of the paper's backbones were trained."""


class FusionNetwork(nn.Module):
    """A timm backbone without its head, a fusion if `feature_width` (D) is not 0, and a linear head.

    `fusion` and `feature_norm` are names of FUSIONS and FEATURE_NORMS.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        feature_width: int = 0,
        fusion: str = "concat",
        feature_norm: str = "layer",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.paths = tuple(module for module in backbone.modules() if isinstance(module, RowDropPath))
        self.statistics = channel_statistics(backbone)
        width = pooled_width(backbone)
        self.fusion = FUSIONS[fusion](width, FEATURE_NORMS[feature_norm](feature_width)) if feature_width else None
        self.head = nn.Linear(self.fusion.width if self.fusion else width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, features: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Logits (B, C) of images (B, 3, S, S) and, for a classifier with fusion, features (B, D).

        In training, a backbone with stochastic depth needs these rows' columns of `draw_kept`, as `kept` (L, B).
        """
        for number, path in enumerate(self.paths):
            path.kept = None if kept is None else kept[number]
        l_f = self.backbone(images)
        if self.fusion is None:
            return self.head(l_f)
        assert features is not None, "a classifier with fusion needs diffusion features"
        return self.head(self.fusion(l_f, features))

    def draw_kept(self, seed: int, step: int, rows: int) -> Tensor | None:
        """Which rows of a step's whole batch keep each residual branch: float32 (L, rows) of 0 and 1 / keep.

        None for a backbone without stochastic depth. L counts the residual branches that may be dropped.
        """
        if not self.paths:
            return None
        keep = np.array([[path.keep] for path in self.paths])
        drawn = rng_for(seed, f"step {step}", "drop path").random((len(keep), rows)) < keep
        # b_l / p_l with b_l ~ Bernoulli(p_l): expectation 1, so that the branch needs no scale p_l (Eq. 5) in evaluation.
        return torch.from_numpy((drawn / keep).astype(np.float32))


class RowDropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, drop a residual branch for some rows of the batch.

    Which rows is drawn for the whole batch of a step (`FusionNetwork.draw_kept`), so that a row's loss is the same in
    whatever part of the batch, on whatever device, it is computed.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.keep = 1 - drop
        self.kept: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Scale the rows of a branch (B, ...) by `kept` (B,). Raises UserError if its rows are not the batch's."""
        if not self.training:
            return branch
        assert self.kept is not None, "training with stochastic depth needs draw_kept"
        if len(branch) != len(self.kept):
            raise UserError(
                "a layer of the backbone drops paths of other rows than images; set training.drop_path to 0"
            )
        # H_l = ReLU(b_l f_l(H_{l-1}) + H_{l-1}), Eq. 2, here for the branch f_l of any residual block
        return branch * self.kept.to(branch.dtype).view(-1, *[1] * (branch.ndim - 1))


def pooled_width(backbone: nn.Module) -> int:
    """The width of a pooled feature of a timm model, which a head may widen before its last layer."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)


def channel_statistics(backbone: nn.Module) -> Statistics:
    """The channel mean and standard deviation with which the backbone was trained, from timm's configuration of it."""
    stated = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(stated.get("mean", IMAGENET[0])), tuple(stated.get("std", IMAGENET[1]))


def normalised(images: Tensor | NDArray[np.uint8], device: torch.device, statistics: Statistics = IMAGENET) -> Tensor:
    """Convert images (B, S, S, 3) uint8 to the backbone's input (B, 3, S, S) float32 on `device`, channels last.

    `statistics` are the mean and standard deviation of the channels in [0, 1], with which the backbone was trained.
    """
    given = to_device(images, device) if isinstance(images, np.ndarray) else images
    if device.type == "cpu":
        return torch.from_numpy(_normalised_rows(given.numpy(), statistics)).permute(0, 3, 1, 2)
    mean, std = _on_device(statistics, device)
    return given.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)


@cache
def _on_device(statistics: Statistics, device: torch.device) -> tuple[Tensor, ...]:
    """The statistics as tensors (3,) that stay on the device, so that no batch sends them again."""
    return tuple(torch.tensor(values, device=device) for values in statistics)


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Inside, a network with float32 weights computes in bfloat16 what that suffices for, if `precision` is "bfloat16"."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _normalised_rows(images: NDArray[np.uint8], statistics: Statistics) -> NDArray[np.float32]:
    """Normalise (B, S, S, 3) uint8 to float32, one image at a time, so that each stays in the processor's cache."""
    mean, std = (np.tile(np.array(values, np.float32), images.shape[2]) for values in statistics)
    pixels = np.empty(images.shape, np.float32)
    for image, into in zip(images, pixels, strict=True):
        row = into.reshape(len(into), -1)
        np.divide(image.reshape(row.shape), np.float32(255), out=row, dtype=np.float32)
        row -= mean
        row /= std
    return pixels


def start_from_pretrained_head(model: FusionNetwork, settings: Backbone, wnids: Sequence[str]) -> None:
    """Initialise the head with the rows of the run's classes in the pretrained head for ImageNet-1k.

    A head that also reads diffusion features (fusion "concat") keeps its new weights for those. Raises UserError if the
    weights have no such head, or a class is not in ImageNet-1k.
    """
    pretrained = build_pretrained(settings).get_classifier()
    if not isinstance(pretrained, nn.Linear):
        raise UserError(f"the head of {settings.name} is not a linear layer; set training.head to new")
    width = pretrained.in_features
    with torch.no_grad():
        # Fusion "concat" puts l_f first: its columns of the head are the first `width`.
        model.head.weight[:, :width] = restricted_logits(pretrained.weight.T, wnids).T
        model.head.bias.copy_(restricted_logits(pretrained.bias[None], wnids)[0])


def restricted_logits(logits: Tensor, wnids: Sequence[str]) -> Tensor:
    """The columns of the run's classes among logits (B, 1000) of a head for ImageNet-1k: (B, len(wnids)).

    `wnids` are the run's classes in the order of their labels. Raises UserError for a head of another size, or a class
    that is not in ImageNet-1k.
    """
    places = {wnid: place for place, wnid in enumerate(imagenet_wnids())}
    unknown = [wnid for wnid in wnids if wnid not in places]
    if logits.shape[1] != len(places) or unknown:
        raise UserError(
            f"a head of {logits.shape[1]} classes cannot be restricted to this run's {len(wnids)}; it must have the "
            f"{len(places)} of ImageNet-1k" + (f", which lack {', '.join(unknown[:3])}" if unknown else "")
        )
    return logits[:, [places[wnid] for wnid in wnids]]


def build_backbone(settings: Backbone, drop_path: float = 0.0) -> nn.Module:
    """Build a timm model without head, whose output is the pooled feature, and load its weights.

    `drop_path` is the share of rows for which the last residual branch is dropped, see `_create`. Raises UserError for
    an unknown name, invalid kwargs, missing weights, weights of another model, or a model without stochastic depth.
    """
    return _load(settings, classes=0, drop_path=drop_path)


def untrained_backbone(settings: Backbone, drop_path: float = 0.0) -> nn.Module:
    """Build the same model with random weights, without reading or fetching any."""
    return _create(settings, drop_path, pretrained=False, num_classes=0)


def build_pretrained(settings: Backbone) -> nn.Module:
    """Build the same model with its pretrained head of 1,000 classes, to evaluate it before fine-tuning."""
    return _load(settings, classes=len(imagenet_wnids()))


def _load(settings: Backbone, classes: int, drop_path: float = 0.0) -> nn.Module:
    path = weights_file(settings)
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}, "num_classes": classes}
    with weights_checked(path):
        return _create(settings, drop_path, **options)


def _create(settings: Backbone, drop_path: float, **options: Any) -> nn.Module:
    """Build a timm model whose only randomness in training is `RowDropPath`.

    timm raises the rate of residual branch l linearly, from 0 at the first to `drop_path` at the last (Huang et al.,
    Eq. 4). Rates that a model has by default are replaced. Raises UserError for an unknown name, arguments that the
    model does not accept, or a `drop_path` above 0 for a model without stochastic depth.
    """
    import timm

    name, _, _tag = settings.name.partition(".")
    if name not in timm.list_models():
        raise UserError(f"no timm model {name!r}{nearest(name, timm.list_models())}; see timm.list_models()")
    rate = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        model = timm.create_model(settings.name, **options, **rate, **settings.kwargs)
    except (TypeError, AssertionError, ValueError) as error:
        if "drop_path_rate" not in str(error):
            raise UserError(f"timm model {settings.name!r} does not take kwargs {settings.kwargs}: {error}") from None
        model = nn.Identity()
    for module in list(model.modules()):
        for place, child in module.named_children():
            if isinstance(child, timm.layers.DropPath):
                # The default rate of timm's Swin is 0.1, that of its ConvNeXt 0.
                setattr(module, place, RowDropPath(child.drop_prob) if drop_path and child.drop_prob else nn.Identity())
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    if drop_path and not any(isinstance(module, RowDropPath) for module in model.modules()):
        raise UserError(
            f"training.drop_path is {drop_path}, but timm model {settings.name!r} has no stochastic depth; set it to 0, or "
            "take the backbone out of training.backbones"
        )
    return model

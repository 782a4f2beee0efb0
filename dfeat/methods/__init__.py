"""The methods that train a classifier to be robust to occlusion [Sec. 3]."""

from __future__ import annotations

from typing import Final, Literal

Method = Literal["none", "blackout", "replace", "cutmix", "sd_inpaint", "sd_features"]

METHODS: tuple[Method, ...] = ("none", "blackout", "replace", "cutmix", "sd_inpaint", "sd_features")

PRETRAINED: Final = "pretrained"
"""A backbone as it was before fine-tuning, read out for the run's classes; a row of the tables, no method of training."""


class _Stub:
    def __init__(self, needs: tuple[str, ...]) -> None:
        self.needs = needs


def method(name: str) -> _Stub:
    """The method of that name."""
    return _Stub({"sd_inpaint": ("inpainted",), "sd_features": ("features",)}.get(name, ()))

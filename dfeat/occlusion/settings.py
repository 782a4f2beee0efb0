"""The section `occlusion`: which parts are hidden [Sec. 3], and how test images are occluded [Sec. 4.1]."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dfeat.section import Section, Share

Protocol = Literal["grid", "image", "random", "object"]
Unit = Literal["category", "annotation"]
HiddenShare = Annotated[Share, Field(gt=0)]


class OcclusionSettings(Section):
    """Which parts are hidden [Sec. 3] and how test images are occluded [Sec. 4.1]."""

    unit: Unit = Field("category", description="what counts as one part")
    share: HiddenShare = Field(0.5, description="share of an object's parts that is hidden; k = ceil(share * n)")
    protocol: Protocol = Field("grid", description="where patches are dropped")
    patch: int = Field(16, ge=1, description="side of a dropped patch in pixels of the network's input")
    seed: int = Field(0, description="draws the dropped patches and the partners of replaced parts")


_DEFAULT: Final = OcclusionSettings()


class PartsStage(Section):
    """The settings `dfeat parts` depends on. Changing any other setting does not rerun it."""

    unit: Unit = _DEFAULT.unit
    share: HiddenShare = _DEFAULT.share

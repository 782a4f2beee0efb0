"""The section `occlusion`: which parts are hidden [Sec. 3], and how test images are occluded [Sec. 4.1]."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dfeat.section import Section, Seed, Share

Protocol = Literal["grid", "image", "random", "object"]
Unit = Literal["category", "annotation"]
HiddenShare = Annotated[Share, Field(gt=0)]


class PartsStage(Section):
    """The settings `dfeat parts` depends on. Changing any other setting does not rerun it."""

    unit: Unit = Field("category", description="what counts as one part")
    share: HiddenShare = Field(0.5, description="share of an object's parts that is hidden; k = ceil(share * n)")
    min_visible: Share = Field(
        0,
        description="least share of the object's area that an occluded twin shows; an image that would show less is its own twin",
    )

    @model_serializer(mode="wrap")
    def _omit_no_minimum(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `min_visible` while it is 0, so that artifacts made before the setting existed still match."""
        plain: dict[str, Any] = serialize(self)
        return {key: value for key, value in plain.items() if key != "min_visible" or value > 0}


class OcclusionSettings(PartsStage):
    """Which parts are hidden [Sec. 3] and how test images are occluded [Sec. 4.1]."""

    protocol: Protocol = Field("grid", description="where patches are dropped")
    patch: int = Field(16, ge=1, le=4096, description="side of a dropped patch in pixels of the network's input")
    seed: Seed = Field(0, description="draws the dropped patches and the partners of replaced parts")

"""A frozen Stable Diffusion model and its two uses, `Inpainter` and `FeatureExtractor`; both also serve as a library.

from dfeat.diffusion import FeatureExtractor, Inpainter, paste_known
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfeat.diffusion.canvas import paste_known
    from dfeat.diffusion.features import FeatureExtractor
    from dfeat.diffusion.inpaint import Inpainter

__all__ = ["FeatureExtractor", "Inpainter", "paste_known"]


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when one of these names is accessed."""
    if name == "FeatureExtractor":
        from dfeat.diffusion.features import FeatureExtractor

        return FeatureExtractor
    if name == "Inpainter":
        from dfeat.diffusion.inpaint import Inpainter

        return Inpainter
    if name == "paste_known":
        from dfeat.diffusion.canvas import paste_known

        return paste_known
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A frozen Stable Diffusion model and its two uses, `Inpainter` and `FeatureExtractor`; both also serve as a library.

from dfeat.diffusion import FeatureExtractor, Inpainter, paste_known
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dfeat.diffusion.canvas import paste_known
    from dfeat.diffusion.features import FeatureExtractor
    from dfeat.diffusion.inpaint import Inpainter

__all__ = ["FeatureExtractor", "Inpainter", "paste_known"]
_ROOMS: Final = {"FeatureExtractor": "features", "Inpainter": "inpaint", "paste_known": "canvas"}


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when one of these names is accessed."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)

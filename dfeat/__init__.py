"""D-Feat Occlusions: classifiers made robust to occlusion with a frozen diffusion model.

    from dfeat import Classifier, FeatureExtractor, Inpainter, load_images

    extract = FeatureExtractor.from_pretrained("demo", blocks="mid", timestep=100)  # or a diffusers folder, or a Hub id
    features = extract("photographs/")                                              # (B, D) float32

    inpaint = Inpainter.from_pretrained("demo", steps=15)
    filled = inpaint("photo.jpg", "mask.png", "A class of tiger", paste=True)       # (1, S, S, 3) uint8

    classify = Classifier.from_pretrained("results/demo/training/none/swin/seed0")
    probabilities, names = classify("photographs/")                                 # (B, C), the best name of each

The workflow that trains such classifiers is Snakemake's (README.md); `dfeat --help` lists its steps.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dfeat.data.given import load_images
    from dfeat.diffusion.canvas import paste_known
    from dfeat.diffusion.features import FeatureExtractor
    from dfeat.diffusion.inpaint import Inpainter
    from dfeat.evaluation.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "FeatureExtractor", "Inpainter", "load_images", "paste_known"]
_ROOMS: Final = {
    "Classifier": "evaluation.classifier", "FeatureExtractor": "diffusion.features", "Inpainter": "diffusion.inpaint",
    "load_images": "data.given", "paste_known": "diffusion.canvas",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when one of these names is accessed."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

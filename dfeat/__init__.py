"""D-Feat Occlusions: classifiers made robust to occlusion with a frozen diffusion model."""

__version__ = "0.1.0"

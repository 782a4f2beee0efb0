"""FLOPs of the networks a run computes, and of a step of the run: a multiply-add is two, as torch's counter has it.

What enters: the name of a pass and the side of the image; or the settings of a step and the FLOPs of its passes. What
leaves: FLOPs of one image, and the parameters of the layers that a pass runs. The figures were counted on the true
architectures (`python -m bench flops`), and a test counts them again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from dfeat.diffusion.schedule import total
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings
from dfeat.methods import method

GIGA: Final = 1e9
TEXT: Final = 45.13 * GIGA
"""The text encoder on one prompt of 77 tokens."""
DIFFUSION: Final[dict[str, tuple[float, float, float]]] = {
    "encode": (0.0, 1082.30, 34.36),
    "decode": (0.0, 2480.16, 34.36),
    "unet": (3.99, 677.77, 122.50),
    "shallow": (0.11, 41.70, 21.47),
    "down.0": (0.21, 66.54, 42.95),
    "down.1": (0.62, 129.23, 48.32),
    "down.2": (1.43, 191.72, 48.99),
    "down.3": (1.44, 199.27, 48.99),
    "mid": (1.85, 211.04, 49.01),
    "up.0": (1.86, 236.83, 49.01),
    "up.1": (3.08, 386.45, 50.02),
    "up.2": (3.69, 544.76, 58.07),
    "up.3": (3.99, 677.68, 122.50),
}
"""GFLOPs of Stable Diffusion 2's passes as a + b n + c n^2: VAE, whole U-Net, its outermost layer alone (what a pass
with reused deep features runs), U-Net up to the end of a block.

n is the number of pixels over 512 x 512: the cost of convolutions is linear in n, that of attention quadratic, and that
of projecting the prompt constant.
"""
PARAMETERS: Final = {
    "encode": 34.16e6, "decode": 49.49e6, "unet": 865.91e6,
    "down.0": 12.91e6, "down.1": 50.39e6, "down.2": 191.69e6, "down.3": 253.97e6, "mid": 351.66e6,
    "up.0": 513.90e6, "up.1": 774.20e6, "up.2": 846.60e6, "up.3": 865.90e6,
}  # fmt: skip
"""Parameters of the layers that each of these passes runs."""
CHANNELS: Final = {"mid": (1280, 64)} | {
    f"{side}.{number}": size
    for side, sizes in {
        "down": ((320, 16), (640, 32), (1280, 64), (1280, 64)),
        "up": ((1280, 32), (1280, 16), (640, 8), (320, 8)),
    }.items()
    for number, size in enumerate(sizes)
}
"""Channels of a block's output, and pixels of the image to a cell of it."""
BACKBONES: Final[dict[str, tuple[float, float]]] = {
    "convnext_base": (30.71, 92.1),
    "swin_base_patch4_window7_224": (30.86, 92.5),
    "resnet18": (3.63, 10.6),
    "resnet50": (8.17, 24.3),
    "vit_base_patch16_224": (35.13, 105.1),
}
"""GFLOPs of timm models at 224 px: forward; forward and backward."""
BASE_SIZED: Final = "convnext_base"
"""Assumed for a backbone that is not in the table."""
INPAINTING: Final = ("encode", "decode", "unet", "shallow")
"""The passes that inpainting an image consists of: keys of DIFFUSION."""


def diffusion_flops(name: str, resolution: int) -> float:
    """FLOPs of one pass of Stable Diffusion 2 over an image of `resolution` px: a key of DIFFUSION."""
    pixels = (resolution / 512) ** 2
    # a + b n + c n^2
    return GIGA * math.fsum(part * pixels**power for power, part in enumerate(DIFFUSION[name]))


def whole_block(name: str) -> str:
    """The block that a layer such as "up.1.0" is of; a block itself."""
    return ".".join(name.split(".")[:2])


def until_flops(blocks: tuple[str, ...], resolution: int) -> float:
    """FLOPs of the U-Net's forward pass up to the last of `blocks`; of the whole pass for a block not in DIFFUSION."""
    names = (whole_block(block) for block in blocks)
    return max(diffusion_flops(name if name in DIFFUSION else "unet", resolution) for name in names)


def until_parameters(blocks: tuple[str, ...]) -> float:
    """Parameters of the U-Net up to the last of `blocks`; of the whole U-Net for a block not in PARAMETERS."""
    return max(PARAMETERS.get(whole_block(block), PARAMETERS["unet"]) for block in blocks)


def backbone_flops(name: str, size: int, training: bool) -> float:
    """FLOPs of a timm model (tag or none) on an image of `size` px: forward, and with `training` also backward."""
    forward, both = BACKBONES[known_backbone(name)]
    return GIGA * (both if training else forward) * (size / 224) ** 2


def known_backbone(name: str) -> str:
    """The row of BACKBONES that a timm model, with or without its tag, is taken for."""
    bare = name.partition(".")[0]
    return bare if bare in BACKBONES else BASE_SIZED


def inpaint_flops(chosen: InpaintSettings, passes: Mapping[str, float]) -> float:
    """FLOPs of inpainting one image, prompts embedded before: one encoding, the U-Net passes of all steps, one decoding.

    `passes` maps each name of INPAINTING to the FLOPs of one row. A crop around the mask counts as the whole image.
    """
    return passes["encode"] + total(chosen, passes["unet"], passes["shallow"]) + passes["decode"]


def feature_flops(chosen: FeatureSettings, until: float) -> float:
    """FLOPs of one view's features from its latents: `until`, a pass up to the last block, per timestep and noise draw."""
    return chosen.ensemble * len(chosen.timesteps) * until


def training_passes(epochs: int, name: str) -> int:
    """How often a training by the method `name` shows the network each image: original and twin every epoch, and their
    masks where Eq. 1 has them."""
    return 2 * epochs * (2 if method(name).masks else 1)

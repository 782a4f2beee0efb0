"""What a run will cost: disk and GPU-hours of each step, estimated before anything is computed.

What enters: the settings, and how many images each set has. What leaves: a `Cost` for each step. The figures are
those of Stable Diffusion 2 and of base-sized backbones; FLOPs are counted per image and scaled with the number of
pixels. Time is FLOPs over 40 % of a device's peak: an order of magnitude, not a promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dfeat.settings import Backbone, Settings
from dfeat.training.weights import weights_path

GIGA: Final = 1e9
ENCODE, DECODE, UNET = 1117 * GIGA, 2515 * GIGA, 804 * GIGA
"""FLOPs of VAE and U-Net of Stable Diffusion 2 for an image of 512 px."""
UP_TO: Final = {"mid": 262 * GIGA} | {
    f"{side}.{number}": flops * GIGA
    for side, costs in {"down": (63, 125, 188, 250), "up": (288, 440, 607, 805)}.items()
    for number, flops in enumerate(costs)
}
"""FLOPs of the U-Net's forward pass up to the end of a block, at 512 px."""
CHANNELS: Final = {"mid": (1280, 64)} | {
    f"{side}.{number}": size
    for side, sizes in {
        "down": ((320, 16), (640, 32), (1280, 64), (1280, 64)),
        "up": ((1280, 32), (1280, 16), (640, 8), (320, 8)),
    }.items()
    for number, size in enumerate(sizes)
}
"""Channels of a block's output, and pixels of the image to a cell of it."""
FORWARD, TRAIN = 31 * GIGA, 92 * GIGA
"""FLOPs of ConvNeXt-B or Swin-B at 224 px: forward; forward and backward."""
BACKBONE_BYTES: Final = 355_000_000
IMAGE_PIXELS: Final = 180_000
"""Pixels of an average image of ImageNet."""
BYTES_PER_PIXEL: Final = {"png": 1.4, "webp": 1.0}
"""Of a photograph, losslessly encoded; measured on a hundred of them at 500 px."""
EFFICIENCY: Final = 0.4
PEAK: Final[dict[str, dict[str, float]]] = {
    "T4": {"float32": 8.1e12, "float16": 65e12, "bfloat16": 8.1e12},
    "A100": {"float32": 19.5e12, "float16": 312e12, "bfloat16": 312e12},
    "H200": {"float32": 67e12, "float16": 989e12, "bfloat16": 989e12},
}
"""Peak FLOP/s from the makers' data sheets, dense; float32 without TF32. A T4 has no bfloat16 units."""


@dataclass(frozen=True)
class Cost:
    """One step: items it makes, bytes it leaves on disk, FLOPs, and how the figures were got."""

    step: str
    items: int
    bytes: int
    flops: float
    precision: str
    how: str

    def hours(self, device: str) -> float:
        """Estimated hours on one device of that name."""
        return self.flops / (EFFICIENCY * PEAK[device][self.precision]) / 3600


def estimate(settings: Settings, images: Mapping[str, int]) -> list[Cost]:
    """The cost of every step. `images` has the number of images of "train" and of each evaluation set."""
    methods = settings.training.methods
    costs = [_pixels(settings, images)]
    if "sd_inpaint" in methods:
        costs.append(_inpaint(settings, images["train"]))
    if "sd_features" in methods:
        costs += _latents_and_features(settings, _views(settings, images))
    return [*costs, _training(settings, images["train"]), _evaluation(settings, images)]


def is_small(settings: Settings) -> bool:
    """Whether the run uses models that are not of the sizes assumed here, as the built-in ones are."""
    sized = [backbone.kwargs for backbone in settings.training.backbones.values()]
    return settings.diffusion.model.path == "demo" or any(sized)


def _views(settings: Settings, images: Mapping[str, int]) -> int:
    """Images that diffusion features are taken of: the training images twice, each test set at each level."""
    return 2 * images["train"] + sum(images[name] * len(s.levels) for name, s in settings.data.evaluation.items())


def _pixels(settings: Settings, images: Mapping[str, int]) -> Cost:
    inpainted = images["train"] if "sd_inpaint" in settings.training.methods else 0
    count, side = sum(images.values()) + inpainted, settings.data.short_side
    how = f"3 bytes a pixel, short side {side}, aspect 4:3"
    return Cost("pixels", count, round(count * 4 * side * side), 0.0, "float32", how)


def _inpaint(settings: Settings, images: int) -> Cost:
    chosen, scale = settings.diffusion.inpaint, (settings.diffusion.resolution / 512) ** 2
    passes = chosen.steps * (2 if chosen.guidance_scale > 1 else 1)
    flops = images * scale * (passes * UNET + ENCODE + DECODE)
    pixels = settings.diffusion.resolution**2 if settings.data.drawn else IMAGE_PIXELS
    size = round(images * pixels * BYTES_PER_PIXEL[chosen.encoding])
    how = f"{passes} U-Net passes, one encoding and decoding; {pixels // 1000}k pixels an image as {chosen.encoding}"
    return Cost("inpaint", images, size, flops, settings.diffusion.model.precision, how)


def _latents_and_features(settings: Settings, views: int) -> list[Cost]:
    diffusion, chosen = settings.diffusion, settings.diffusion.features
    side, precision = diffusion.resolution, diffusion.model.precision
    scale = (side / 512) ** 2
    latents = Cost(
        "latents", views, views * 4 * (side // 8) ** 2 * 2, views * scale * ENCODE, precision, "one VAE encoding a view"
    )
    blocks = [CHANNELS.get(block, CHANNELS["mid"]) for block in chosen.blocks]
    width = sum(channels * (chosen.pool or side // cell) ** 2 for channels, cell in blocks)
    passes = chosen.ensemble * max(UP_TO.get(block, UNET) for block in chosen.blocks)
    how = f"U-Net up to {', '.join(chosen.blocks)}, {chosen.ensemble} draw(s) of noise; {width} numbers a view"
    return [latents, Cost("features", views, views * width * 2, views * scale * passes, precision, how)]


def _training(settings: Settings, images: int) -> Cost:
    training = settings.training
    scale = (training.image_size / 224) ** 2
    passes = sum(2 if method == "replace" else 1 for method in training.methods)
    models = len(training.methods) * len(training.backbones) * len(training.seeds)
    seen = 2 * images * training.epochs * passes * len(training.backbones) * len(training.seeds)
    size = sum(map(_weights_bytes, training.backbones.values())) * len(training.methods) * len(training.seeds)
    how = f"{training.epochs} epochs of originals and twins; replace also sees masks"
    return Cost("training", models, size, seen * scale * TRAIN, training.precision, how)


def _weights_bytes(backbone: Backbone) -> int:
    """Bytes of a trained model: those of the weights it starts from, where they are a local file."""
    path = weights_path(backbone.weights) if backbone.weights else None
    return path.stat().st_size if path and path.is_file() else BACKBONE_BYTES


def _evaluation(settings: Settings, images: Mapping[str, int]) -> Cost:
    training = settings.training
    models = len(training.methods) * len(training.backbones) * len(training.seeds)
    seen = models * sum(images[name] * len(s.levels) for name, s in settings.data.evaluation.items())
    scale = (training.image_size / 224) ** 2
    return Cost("evaluation", seen, seen * 80, seen * scale * FORWARD, "float32", "every model on every set and level")

"""The picture of the method in README.md: `python -m tools.pictures`.

What enters: a drawn object, and the model that ships with the package. What leaves: docs/images/method.png, the two ways in
which the frozen diffusion model helps the classifier (Fig. 1), each step computed and none painted by hand.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dfeat import FeatureExtractor, Inpainter
from dfeat.data.classes import prompt_name
from dfeat.demo.canvas import polygon_mask
from dfeat.demo.dresses import WNIDS
from dfeat.demo.worlds import draw_one
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import choose_parts
from dfeat.report.figures.examples import tinted

OUT: Final = Path("docs/images/method.png")
LEOPARD: Final = 1
_ARROW: Final = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
Pixels = NDArray[np.uint8]


def steps(class_index: int, number: int) -> dict[str, Pixels]:
    """The pictures of the diagram, each (64, 64, 3) uint8, but for the features' map (h, w, 3)."""
    drawing = draw_one("train", class_index, number, 0)
    size = drawing.image.shape[0]
    masks = np.stack([polygon_mask([polygon], size) for _, polygon in drawing.parts])
    chosen = list(choose_parts(masks).chosen)
    hidden: NDArray[np.bool_] = np.any(masks[chosen], axis=0)
    kept: NDArray[np.bool_] = np.any(masks, axis=0) & ~hidden
    prompt = f"A class of {prompt_name(WNIDS[class_index])}"
    inpaint = Inpainter.from_pretrained("demo", scheduler="dpmsolver++", steps=25, guidance_scale=3, device="cpu")
    features = FeatureExtractor.from_pretrained("demo", blocks="up.0", timestep=100, pool=0, ensemble=8, device="cpu")
    return {
        "parts": tinted(tinted(drawing.image, hidden, (230, 120, 20)), kept, (40, 110, 200)),
        "hidden": black_out(drawing.image, hidden),
        "inpainted": inpaint(drawing.image, hidden, prompt, seeds=[1], paste=True)[0],
        "features": principal_colours(features(drawing.image)[0].numpy()),
    }


def principal_colours(maps: NDArray[np.float32]) -> Pixels:
    """Maps (D, h, w) as a picture (h, w, 3): their three principal components."""
    rows = maps.reshape(len(maps), -1).T
    rows = rows - rows.mean(0)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    shown = rows @ directions[:3].T
    low, high = np.percentile(shown, (2, 98), axis=0)
    shares = ((shown - low) / (high - low)).clip(0, 1)
    return (255 * shares).astype(np.uint8).reshape(*maps.shape[1:], 3)


def draw(pictures: dict[str, Pixels], out: Path) -> None:
    """The diagram as a PNG."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(10.5, 4.1), dpi=160, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, 10.5), ylim=(0, 4.1))
    page.axis("off")

    def show(name: str, x: float, y: float, caption: str, side: float = 1.45) -> None:
        page.imshow(pictures[name], extent=(x, x + side, y, y + side), interpolation="nearest", zorder=2)
        page.text(x + side / 2, y - 0.1, caption, ha="center", va="top", fontsize=9, linespacing=1.25)

    def box(x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
        page.add_patch(plt.Rectangle((x, y), width, height, facecolor=colour, edgecolor="#444444", lw=1, zorder=2))
        page.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, zorder=3, linespacing=1.3)

    def arrow(*points: tuple[float, float]) -> None:
        for start, end in pairwise(points[:-1]):
            page.plot(*zip(start, end, strict=True), color="#444444", lw=1.6, solid_capstyle="butt", zorder=1)
        page.annotate("", points[-1], points[-2], arrowprops=_ARROW)

    show("parts", 0.25, 1.35, "image with its parts\n(orange: the largest half)")
    show("hidden", 2.85, 2.3, "half of its parts hidden")
    box(4.85, 2.62, 1.25, 0.8, "Stable Diffusion\n(frozen) inpaints", "#e8eef7")
    show("inpainted", 6.65, 2.3, "inpainted twin")
    box(2.95, 0.74, 1.25, 0.8, "Stable Diffusion\n(frozen) reads it", "#e8eef7")
    show("features", 4.85, 0.52, "U-Net features,\nno prompt", 1.25)
    box(8.75, 1.45, 1.55, 1.15, "classifier\n(ConvNeXt, Swin),\nfused with\nthe features", "#f7efe3")
    arrow((1.7, 2.45), (2.2, 2.45), (2.2, 3.02), (2.8, 3.02))
    arrow((1.7, 1.7), (2.2, 1.7), (2.2, 1.14), (2.9, 1.14))
    arrow((4.3, 3.02), (4.8, 3.02))
    arrow((6.1, 3.02), (6.6, 3.02))
    arrow((8.1, 3.02), (9.3, 3.02), (9.3, 2.65))
    arrow((4.2, 1.14), (4.8, 1.14))
    arrow((6.1, 1.14), (9.3, 1.14), (9.3, 1.4))
    page.text(8.35, 3.12, "(a) train on both", fontsize=9, ha="left", va="bottom")
    page.text(6.25, 1.22, "(b) fuse, in training and test alike", fontsize=9, va="bottom")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    plt.close(figure)


def main() -> None:
    """Draw the picture."""
    draw(steps(LEOPARD, 4), OUT)


if __name__ == "__main__":
    main()

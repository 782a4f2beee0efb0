"""What a method is: its names, what it needs and reads, and what it does to a batch. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Need = Literal["inpainted", "features"]
Window = tuple[slice, slice]
WHOLE: Final[Window] = (slice(None), slice(None))


@dataclass(frozen=True)
class Twin:
    """What the picture of an occluded twin can be painted from, all in the same crop, or whole (`Method.whole`).

    `partner` returns another training image, drawn by `occlusion.seed`; `rng` returns a generator seeded with the
    model's seed, the image and the epoch; `options` are the settings in `Method.reads`, by name.
    """

    picture: Pixels  # (H, W, 3)
    hidden: Mask  # (H, W), True over the chosen parts
    partner: Callable[[], Pixels]  # (H, W, 3)
    rng: Callable[[], np.random.Generator]
    options: Mapping[str, Any]
    window: Window = WHOLE
    """The rows and columns that `paint` returns of a whole picture: those of the crop."""


@dataclass(frozen=True)
class Mixture:
    """A whole batch that `Method.mix` changes; `rng` is seeded with the model's seed and the step, `options` as above."""

    images: Pixels  # (B, H, W, 3)
    targets: NDArray[np.float32]  # (B, C), class shares
    twins: Mask  # (B,), True where a row is a twin
    rng: np.random.Generator
    options: Mapping[str, Any]


class Control(NamedTuple):
    """A matched control of a method, by name, and `why`: what they share, and so what their difference is of."""

    name: str
    why: str


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables: one way to train a classifier."""

    name: str
    """The word in settings, paths and tables."""
    title: str
    """The label that tables and figures print, unless `training.labels` has another."""
    colour: str
    """Hex colour of its lines, bars and points."""
    marker: str
    """Matplotlib's marker of its points."""
    ours: bool = False
    """Whether tables compare it with the best of all methods that are not; `report.ours` lists others in their place."""
    needs: tuple[Need, ...] = ()
    """Artifacts the workflow makes for it: "inpainted", whose pictures are its occluded twins (with their verdicts where
    `training.inpainted` is accepted), and "features", which the network fuses (the twins have their own unless
    `training.twin_features` is clean)."""
    reads: tuple[str, ...] = ()
    """Training settings, and `partner_seed`, on which only methods that list them depend. Never one that all read."""
    masks: bool = False
    """Whether the network is trained on the masks of Eq. 1 too, which doubles its passes."""
    paint: Callable[[Twin], Pixels] | None = None
    """What the picture of an occluded twin becomes, (H, W, 3); None leaves it as it is."""
    parts: bool = True
    """Whether `paint` is of the chosen parts, and images without any are their own twins. If not, every twin is painted, and
    `Twin.hidden` is False everywhere."""
    whole: bool = False
    """Whether `paint` is given the whole cached picture, and returns `Twin.window` of what it becomes. `Twin.hidden` then has
    every pixel that shows something of the hidden ones, so nothing of them remains. Else it is given each crop."""
    mix: Callable[[Mixture], tuple[Pixels, NDArray[np.float32]]] | None = None
    """What a whole batch becomes: its images and targets."""
    ablations: tuple[str, ...] = ()
    """The default grids of `ablation` that train it."""
    exchange: Callable[[Sequence[str], int], dict[str, str]] | None = None
    """Whose diffusion features each image is given, in training and at test time: for the keys of the images of a view and
    the model's seed, another key of them for each; None gives every image its own."""
    controls: tuple[Control, ...] = ()
    """Its matched controls: methods that differ from it in the one thing it claims; first the one that differs least."""

    @property
    def augments(self) -> bool:
        """Whether its twins differ from the originals; if not, `training.twins` has no effect on it."""
        return bool(self.needs or self.paint or self.mix)

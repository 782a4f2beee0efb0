"""The methods that train a classifier to be robust to occlusion [Sec. 3]: a file a method, and one list of them.

What a method is called, needs, reads and does stands in its file; other modules take it from there by name. Titles are
the paper's where it has the method. Colours are of Okabe and Ito (2008) and of Tol's muted scheme (2021), told
apart with any colour vision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dfeat.errors import UserError, nearest
from dfeat.methods.black_out import BLACK_OUT
from dfeat.methods.cutmix import CUTMIX
from dfeat.methods.cutout import CUTOUT
from dfeat.methods.fill_mean import FILL_MEAN
from dfeat.methods.fill_smooth import FILL_SMOOTH
from dfeat.methods.hide_and_seek import HIDE_AND_SEEK
from dfeat.methods.method import Control, Method, Need
from dfeat.methods.mixup import MIXUP
from dfeat.methods.none import NONE
from dfeat.methods.patch_drop import PATCH_DROP
from dfeat.methods.patch_mixing import PATCH_MIXING
from dfeat.methods.pretrained import PRETRAINED
from dfeat.methods.random_erasing import RANDOM_ERASING
from dfeat.methods.replace import REPLACE
from dfeat.methods.sd_features import SD_FEATURES
from dfeat.methods.sd_features_placebo import SD_FEATURES_PLACEBO
from dfeat.methods.sd_inpaint import SD_INPAINT

PAPER: Final = (NONE, BLACK_OUT, REPLACE, CUTMIX, SD_INPAINT, SD_FEATURES)
"""The paper's methods in the order of its tables; frozen, as is what is derived from it."""

CONTROLS: Final = (FILL_MEAN, FILL_SMOOTH, SD_FEATURES_PLACEBO)
"""What differs from a method of the paper in one thing that it claims."""

BASELINES: Final = (RANDOM_ERASING, CUTOUT, HIDE_AND_SEEK, PATCH_DROP, MIXUP, PATCH_MIXING)
"""Augmentations of the literature that hide or mix parts of images."""

METHODS: tuple[Method, ...] = (*PAPER, *CONTROLS, *BASELINES)
"""Every method there is. A further one: import its file above and add its object here."""

NAMES: tuple[str, ...] = tuple(one.name for one in METHODS)

PAPER_NAMES: Final = tuple(one.name for one in PAPER)
"""The default of `training.methods`, and what a train job's settings hold in its place, whatever METHODS holds."""

REFERENCE: Final = NONE.name
"""The method that all others are compared with."""


def method(name: str) -> Method:
    """The method of that name. UserError names the nearest one, and all that there are."""
    found = next((one for one in METHODS if one.name == name), None)
    if found is None:
        names = [one.name for one in METHODS]
        hint = nearest(name, names)
        raise UserError(f"no method {name!r}{hint + ' Use' if hint else '; use'} one of {', '.join(names)}")
    return found


def row_of(name: str) -> Method:
    """The method, or PRETRAINED: whatever has a row in the tables."""
    return PRETRAINED if name == PRETRAINED.name else method(name)


def controls_of(name: str, among: Iterable[str]) -> tuple[str, ...]:
    """The matched controls of a method that are among some methods, such as a run's; first the one that differs least."""
    present = set(among)
    return tuple(control.name for control in row_of(name).controls if control.name in present)


def controlled(among: Sequence[str]) -> list[tuple[str, Control]]:
    """Each method that has controls among these methods, with each of them, in their order."""
    return [(name, control) for name in among for control in row_of(name).controls if control.name in among]


def needed(names: Iterable[str]) -> frozenset[Need]:
    """The artifacts that some methods need, together."""
    return frozenset(need for name in names for need in method(name).needs)

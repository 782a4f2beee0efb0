"""What tables, figures and the page call methods, architectures and evaluation sets.

What enters: the settings. What leaves: `Labels`. A label of the settings precedes the default, which is a method's title,
the paper's name of a backbone or set, or the key with spaces for its underscores. Files for machines keep the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dfeat import methods
from dfeat.methods import PRETRAINED
from dfeat.places import HOLDOUT

if TYPE_CHECKING:
    from dfeat.config.run import Settings

_PAPER: Final = {"convnext": "ConvNeXt", "swin": "Swin"}
_SETS: Final = {"imagenet_val": "ImageNet val", "dfeat_real": "D-Feat", HOLDOUT: "held-out images"}


@dataclass(frozen=True)
class Labels:
    """The labels of a run.

    Args:
        models: Labels given to methods and backbones.
        sets: Labels given to evaluation sets.
        own: The reader's own methods, those that `report.ours` names.
        uncut: Sets without simulated occlusion, whose only level is 0.
    """

    models: Mapping[str, str]
    sets: Mapping[str, str]
    own: frozenset[str] = frozenset()
    uncut: frozenset[str] = frozenset()

    def method(self, name: str) -> str:
        """The label of a method, or of the backbones before fine-tuning."""
        titles = {one.name: one.title for one in (*methods.METHODS, PRETRAINED)}
        return self.models.get(name) or titles.get(name) or _readable(name)

    def row(self, name: str) -> str:
        """The label of a method as the head of a row: "Ours: " precedes those that `report.ours` names."""
        return f"Ours: {self.method(name)}" if name in self.own else self.method(name)

    def backbone(self, name: str) -> str:
        """The label of a backbone."""
        return self.models.get(name) or _PAPER.get(name) or _readable(name)

    def set(self, name: str) -> str:
        """The label of an evaluation set."""
        return self.sets.get(name) or _SETS.get(name) or _readable(name)

    def place(self, name: str, level: int | str) -> str:
        """The label of a set at a level of occlusion; the set's alone where it has no simulated occlusion."""
        return self.set(name) if name in self.uncut else f"{self.set(name)}, {level} %"


def labels_of(settings: Settings) -> Labels:
    """The labels of these settings."""
    sets = settings.data.evaluation
    return Labels(
        settings.training.labels,
        {name: chosen.label for name, chosen in sets.items() if chosen.label},
        frozenset(settings.report.ours or ()),
        frozenset(name for name, chosen in sets.items() if set(chosen.levels) == {0}),
    )


def fault_of_labels(settings: Settings) -> str:
    """The first label that two methods, two backbones or two sets would share, in one sentence; empty without."""
    labels, training = labels_of(settings), settings.training
    kinds: tuple[tuple[str, Callable[[str], str], Iterable[str]], ...] = (
        ("training.labels.{}", labels.method, (PRETRAINED.name, *training.methods)),
        ("training.labels.{}", labels.backbone, training.backbones),
        ("data.evaluation.{}.label", labels.set, settings.data.evaluation),
    )
    for key, label_of, names in kinds:
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(label_of(name), name)
            if other != name:
                shared = f"{other!r} and {name!r} would both be {label_of(name)!r} in tables and figures"
                return f"{shared}; set {key.format(name)} to another label"
    return ""


def _readable(key: str) -> str:
    return key.replace("_", " ").strip() or key

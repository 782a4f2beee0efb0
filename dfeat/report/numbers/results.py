"""Predictions read and checked: what tables, figures and claims are computed from [Sec. 4.3].

What enters: `<method>/<backbone>/seed<k>/<set>@<level>.csv` under a run's evaluation folder, one row an image,
header `key,label,top1,top2,top3,top4,top5,p1`, and `<set>.json` beside them. What leaves: `SetPredictions` (which
images were right), and `SetResults` (accuracies with intervals and paired contrasts). All files of a set must hold the
same images under the same conditions, and each must be of the model whose folder it lies in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.evaluation.origins import check_model, conditions, read_predictions_origin
from dfeat.methods import PRETRAINED, REFERENCE
from dfeat.places import level_view, predictions_folder
from dfeat.report.numbers.paper import METRICS, Cell, Metric
from dfeat.report.numbers.statistics import Bools, Effect, Floats, Ints, Outcomes, calibration_error, mcnemar
from dfeat.report.numbers.text import parse_csv
from dfeat.storage.origin import Origin
from dfeat.storage.records import refusal
from dfeat.training.settings import Backbone

Weights = dict[Cell, float]
"""A contrast: the weight of each accuracy in a sum."""
_refusal: Final = partial(refusal, remake="evaluate")
HEADER: Final = "key,label,top1,top2,top3,top4,top5,p1"


@dataclass(frozen=True)
class SetPredictions:
    """All predictions on one set. Axes of `rank` and `p1`: (methods, backbones, levels, seeds, images).

    `rank` is 0 where the first guess was right, 4 where the fifth was, 5 where none was; `p1` is the probability
    of the first guess. `keys` and `labels` are (images,), sorted by key.
    """

    name: str
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    levels: tuple[int, ...]
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    labels: Ints
    rank: NDArray[np.int8]
    p1: Floats

    def correct(self, cell: Cell) -> Bools:
        """Which images were right, (seeds, images)."""
        return np.less(self.rank[self._index(cell)], 1 if cell.metric == "top1" else 5)

    def confidence(self, cell: Cell) -> Floats:
        """Probability of the first guess, (seeds, images)."""
        return np.asarray(self.p1[self._index(cell)])

    def calibration_error(self, cell: Cell) -> float:
        """Expected calibration error, the mean over seeds, a fraction."""
        pairs = zip(self.confidence(cell), self.correct(cell), strict=True)
        return float(np.mean([calibration_error(*pair) for pair in pairs]))

    def cells(self, *metrics: Metric) -> Iterator[Cell]:
        """The cells of these metrics in the order of the tables' rows."""
        for level, backbone, metric, method in product(self.levels, self.backbones, metrics, self.methods):
            yield Cell(method, backbone, level, metric)

    def _index(self, cell: Cell) -> tuple[int, int, int]:
        return self.methods.index(cell.method), self.backbones.index(cell.backbone), self.levels.index(cell.level)


@dataclass(frozen=True)
class SetResults:
    """Accuracies on one set as fractions, every two of them comparable on the same images."""

    predictions: SetPredictions
    outcomes: Outcomes
    confidence: float

    def accuracy(self, cell: Cell) -> float:
        """Mean over seeds and images."""
        return float(self.outcomes.seed_means[self._index(cell)].mean())

    def interval(self, cell: Cell) -> tuple[float, float]:
        """The interval of `accuracy`."""
        return self.outcomes.interval(self._index(cell), self.confidence)

    def contrast(self, weights: Weights) -> Effect:
        """The sum of weight times accuracy, with its interval."""
        return self.outcomes.contrast({self._index(cell): w for cell, w in weights.items()}, self.confidence)

    def difference(self, a: Cell, b: Cell) -> Effect:
        """Accuracy of `a` minus that of `b`."""
        return self.contrast({a: 1.0, b: -1.0})

    def by_seed(self, a: Cell, b: Cell) -> list[float]:
        """McNemar's exact p-value of each seed's two models."""
        pairs = zip(self.predictions.correct(a), self.predictions.correct(b), strict=True)
        return [mcnemar(x, y) for x, y in pairs]

    def over_none(self, weights: Weights) -> Effect | None:
        """The contrast less the same one of None; no effect where it is None's own, or the run has no None."""
        if REFERENCE not in self.predictions.methods or any(cell.method == REFERENCE for cell in weights):
            return None
        return self.contrast(weights | {cell.none: -weight for cell, weight in weights.items()})

    def _index(self, cell: Cell) -> tuple[int, int]:
        sets = self.predictions
        model = sets.methods.index(cell.method) * len(sets.backbones) + sets.backbones.index(cell.backbone)
        return model, sets.levels.index(cell.level) * len(METRICS) + METRICS.index(cell.metric)


def load_results(evaluation: Path, settings: Settings, sets: tuple[str, ...] | None = None) -> dict[str, SetResults]:
    """Read the predictions of `sets` (default those of both tables)."""
    return {
        name: measured(read, settings.report.confidence)
        for name, read in load_predictions(evaluation, settings, sets).items()
    }


def load_predictions(
    evaluation: Path, settings: Settings, sets: tuple[str, ...] | None = None
) -> dict[str, SetPredictions]:
    """Read the predictions of every method, backbone, seed and level of `sets` (default those of both tables).

    Raises UserError naming the files that are missing, malformed, made by a model other than their folder's, or whose
    keys or labels differ from the others of the same set.
    """
    axes = {name: axes_of(settings, name) for name in (settings.data.published if sets is None else sets)}
    missing = [path for name in axes for path in axes[name].paths(evaluation, name).values() if not path.is_file()]
    if missing:
        shown = ", ".join(str(path) for path in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"predictions are missing: {shown}{more}; make them with `dfeat evaluate`")
    return {name: load_set(evaluation, name, axes[name]) for name in axes}


@dataclass(frozen=True)
class Axes:
    """Which models and levels a set's predictions are of."""

    methods: tuple[str, ...]
    backbones: Mapping[str, Backbone]
    levels: tuple[int, ...]
    seeds: tuple[int, ...]

    def paths(self, evaluation: Path, name: str) -> dict[tuple[int, int, int, int], Path]:
        """The file of each (method, backbone, level, seed), by position."""
        files = product(
            enumerate(self.methods), enumerate(self.backbones), enumerate(self.levels), enumerate(self.seeds)
        )
        return {
            (m, b, v, s): predictions_folder(evaluation, method, backbone, seed) / f"{level_view(name, level)}.csv"
            for (m, method), (b, backbone), (v, level), (s, seed) in files
        }


def axes_of(settings: Settings, name: str) -> Axes:
    """Every trained model of the settings, at every level of the set."""
    training = settings.training
    return Axes(training.methods, training.backbones, settings.data.evaluation[name].levels, training.seeds)


def load_pretrained(evaluation: Path, settings: Settings, trained: SetResults) -> Iterator[SetResults]:
    """Yield the results before fine-tuning on the images of `trained`, of those backbones that have some; or nothing."""
    name, backbones = trained.predictions.name, settings.training.backbones
    axes = replace(axes_of(settings, name), methods=(PRETRAINED.name,), seeds=(0,))
    paths = {key: replace(axes, backbones={key: backbones[key]}).paths(evaluation, name).values() for key in backbones}
    made = {key: backbones[key] for key in backbones if all(path.is_file() for path in paths[key])}
    if made and settings.report.before_fine_tuning:
        read = load_set(evaluation, name, replace(axes, backbones=made))
        if read.keys != trained.predictions.keys:
            first = next(iter(paths[next(iter(made))]))
            raise _refusal(first, f"it holds other images than those of the trained models on {name}")
        yield measured(read, settings.report.confidence)


def load_set(evaluation: Path, name: str, axes: Axes) -> SetPredictions:
    """Read a set's predictions. Raises UserError naming a file that is broken, of another model, or of other images."""
    paths = axes.paths(evaluation, name)
    origins = _origins(evaluation, name, axes)
    first_path = next(iter(paths.values()))
    first = _read(first_path, origins[first_path.parent])
    shape = (len(axes.methods), len(axes.backbones), len(axes.levels), len(axes.seeds), len(first.keys))
    rank, p1 = np.empty(shape, np.int8), np.empty(shape)
    for index, path in paths.items():
        file = first if path == first_path else _read(path, origins[path.parent])
        if file.keys != first.keys:
            odd = sorted(set(file.keys) ^ set(first.keys))
            raise _refusal(path, f"it holds other images than {first_path}: {len(odd)} differ, e.g. {odd[0]!r}")
        if not np.array_equal(file.labels, first.labels):
            key = file.keys[int(np.flatnonzero(file.labels != first.labels)[0])]
            raise _refusal(path, f"it gives image {key!r} another label than {first_path} does")
        rank[index], p1[index] = file.rank, file.p1
    return SetPredictions(
        name, axes.methods, tuple(axes.backbones), axes.levels, axes.seeds, first.keys, first.labels, rank, p1
    )


def _origins(evaluation: Path, name: str, axes: Axes) -> dict[Path, Origin]:
    """The record of each folder's predictions, checked for its model; all must have the same index and settings."""
    origins: dict[Path, Origin] = {}
    for method, (key, backbone), seed in product(axes.methods, axes.backbones.items(), axes.seeds):
        folder = predictions_folder(evaluation, method, key, seed)
        origin = origins[folder] = read_predictions_origin(folder, name)
        check_model(origin, method, backbone, seed)
        first = next(iter(origins.values()))
        if conditions(origin) != conditions(first):
            raise origin.refusal(f"on {name} it records another index or other settings than {first.path}")
    return origins


class _File(NamedTuple):
    keys: tuple[str, ...]
    labels: Ints
    rank: NDArray[np.int8]
    p1: Floats


def _read(path: Path, origin: Origin) -> _File:
    """Read one file of predictions, sorted by key, after checking it against `origin`."""
    header, lines = parse_csv(path, origin.read_text(path), "evaluate")
    if header != HEADER.split(","):
        raise _refusal(path, f"its header is {','.join(header)[:80]!r}, not {HEADER!r}")
    if not lines:
        raise _refusal(path, "it has no rows")
    keys, labels, *tops, p1 = zip(*sorted(lines), strict=True)
    try:
        label = np.array(labels).astype(np.int64)
        guesses = [np.array([guess or "-1" for guess in top]).astype(np.int64) for top in tops]
        probability = np.array(p1).astype(np.float64)
    except ValueError as error:
        raise _refusal(path, f"a label, class or probability in it is no number ({error})") from None
    _check_rows(path, keys, probability)
    hits = np.stack(guesses) == label
    rank = np.where(hits.any(axis=0), hits.argmax(axis=0), len(guesses)).astype(np.int8)
    return _File(keys, label, rank, probability)


def _check_rows(path: Path, keys: tuple[str, ...], p1: Floats) -> None:
    """Raise UserError for a repeated key (`keys` are sorted) or a probability outside 0 and 1."""
    twice = next((key for key, following in pairwise(keys) if key == following), None)
    if twice is not None:
        raise _refusal(path, f"image {twice!r} is in it twice")
    outside = np.flatnonzero(~((p1 >= 0) & (p1 <= 1)))
    if outside.size:
        row = int(outside[0])
        raise _refusal(path, f"the probability p1 of image {keys[row]!r} is {p1[row]}, not within 0 and 1")


def measured(predictions: SetPredictions, confidence: float) -> SetResults:
    """The results of these predictions. A backbone's methods share what is known of the spread of seeds."""
    models = list(product(predictions.methods, range(len(predictions.backbones))))
    columns = list(product(predictions.levels, METRICS))
    correct = np.stack(
        [[predictions.correct(Cell(m, predictions.backbones[b], *column)) for column in columns] for m, b in models]
    )
    outcomes = Outcomes(correct, predictions.labels, [b for _, b in models])
    return SetResults(predictions, outcomes, confidence)

"""Uncertainty of accuracies and of their differences: arrays in, numbers out [Sec. 4.3].

What enters: for each model (a method with a backbone) and column (a metric at a level) a boolean array
(seeds, images) of correct predictions, and the images' labels. What leaves: intervals, differences, p-values.

An experiment repeated would draw images and training runs anew, so the variance of a contrast has two parts. With
d_si, the contrast of image i between the models of seed s, and S seeds:

    V = V_images + V_seeds,  V_images = var_i(mean_s d_si) / n,  V_seeds = max(0, sum_m a_m / S)

V_images has what images share over seeds, and 1 / S of what they do not. V_seeds is what whole training runs differ by
beyond that: a_m = t_m - e_m, the variance t_m of model m's accuracy over seeds less the part e_m that independent errors
on n images explain (two-way analysis of variance). Seeds are independent between models, although trainings of two
methods with one seed share the order of images, their crops and, where there are any, drop paths: that can only make
their difference surer than stated here.

Three seeds estimate a spread poorly. The models of one backbone lend each other two degrees of freedom (`PRIOR`): each
t_m and a_m is averaged with the mean of the others' (a moderated variance; Smyth 2004, Stat. Appl. Genet. Mol. Biol.
3:3). Intervals and tests are Student's t with Satterthwaite's (1946, Biometrics Bull. 2:110) degrees of freedom: few
where seeds dominate, many where images do. An interval takes those of images alone where seeds show no spread beyond
e_m; a test does not, since far in the tails, where Holm's correction decides, a spread that few seeds happen not to
show would make false marks. Two pseudo-images at the ends of the contrast's range keep a variance from vanishing where few predictions differ (Bonett
and Price 2012, J. Educ. Behav. Stat. 37:479; Agresti and Coull 1998, Am. Stat. 52:119).
With one seed the interval reflects image sampling only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROUNDING: Final = 1e-12
"""A sum of accuracies nearer to 0 than this is 0: accuracies are counts over n, whose steps are far larger."""
PRIOR: Final = 2
"""Degrees of freedom that the seeds' spread of the other models of a backbone is worth."""
STRATIFIED: Final = 100
"""Degrees of freedom within classes from which classes are strata; fewer do not show that classes differ."""
POWER: Final = 0.8


class Effect(NamedTuple):
    """A weighted sum of accuracies, as fractions.

    `centre` is the estimate with the two pseudo-images counted, the middle of `low` and `high`. Tests take `freedom`
    degrees of freedom.
    """

    estimate: float
    low: float
    high: float
    error: float
    freedom: float
    centre: float

    def p(self, null: float = 0.0) -> float:
        """Two-sided p-value of Student's t against the value `null`."""
        return min(1.0, 2 * min(self.p_above(null), self.p_below(null)))

    def p_above(self, null: float = 0.0) -> float:
        """One-sided p-value: small where the sum is above `null`."""
        return _t_below((null - self.centre) / self.error, self.freedom)

    def p_below(self, null: float = 0.0) -> float:
        """One-sided p-value: small where the sum is below `null`."""
        return _t_below((self.centre - null) / self.error, self.freedom)

    def detectable(self, alpha: float) -> float:
        """The smallest true value that a two-sided test at `alpha` tells from 0 with a power of 80 %.

        `error` and `freedom` are taken as they are. The noncentral t is approximated by a normal distribution
        (Johnson and Welch 1940, Biometrika 31:362).
        """
        from scipy.special import ndtri

        critical = _t_quantile(1 - alpha / 2, self.freedom)
        # P(T > c) = Phi((x - c (1 - 1 / 4 nu)) / sqrt(1 + c^2 / 2 nu)) = power, solved for x, the value over its error
        spread = math.sqrt(1 + critical**2 / (2 * self.freedom))
        return self.error * (critical * (1 - 1 / (4 * self.freedom)) + float(ndtri(POWER)) * spread)


class _Spread(NamedTuple):
    """How a model's accuracy differs over seeds: variance t, its part a beyond independent errors, degrees of freedom."""

    total: float
    beyond: float
    freedom: float


@dataclass(frozen=True)
class Outcomes:
    """Which predictions of all models on one set of images were right.

    `correct` is (models, columns, seeds, images), `labels` (images,). `pools` has a number for each model: models of
    the same number, those of one backbone, are taken to differ over seeds about alike.
    """

    correct: Bools
    labels: Ints
    pools: Sequence[int]
    _spreads: dict[object, dict[int, _Spread]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        models, _, _, images = self.correct.shape
        assert self.labels.shape == (images,) and len(self.pools) == models and images > 0

    @property
    def images(self) -> int:
        """The number of images."""
        return self.correct.shape[3]

    @cached_property
    def seed_means(self) -> Floats:
        """Accuracy of each seed, (models, columns, seeds), fractions."""
        return np.asarray(self.correct.mean(axis=3))

    @cached_property
    def _strata(self) -> Ints | None:
        return _strata(self.labels)

    def contrast(self, weights: Mapping[tuple[int, int], float], confidence: float) -> Effect:
        """The sum of weight times accuracy over cells (model, column), on shared images."""
        return self._effect(weights, confidence, None)

    def interval(self, cell: tuple[int, int], confidence: float) -> tuple[float, float]:
        """The interval of one accuracy, inside [0, 1]; images are drawn within their class.

        Where every prediction is right, or every one wrong, it ends at the exact binomial bound for this many images
        (Clopper and Pearson 1934).
        """
        effect = self._effect({cell: 1.0}, confidence, self._strata)
        bound = ((1 - confidence) / 2) ** (1 / self.images)  # p^n = alpha / 2, of n right out of n
        if effect.estimate == 0:
            return 0.0, 1 - bound
        if effect.estimate == 1:
            return bound, 1.0
        return max(effect.low, 0.0), min(effect.high, 1.0)

    def _effect(self, weights: Mapping[tuple[int, int], float], confidence: float, strata: Ints | None) -> Effect:
        estimate = math.fsum(weight * float(self.seed_means[cell].mean()) for cell, weight in weights.items())
        by_seed = _weighted(self.correct, weights)
        ends = [math.fsum(w for w in weights.values() if w > 0), math.fsum(w for w in weights.values() if w < 0)]
        centre, images = _over_images(by_seed, ends, strata)
        spreads, seeds = self._spread_of(weights), by_seed.shape[0]
        beyond = math.fsum(spread.beyond for spread in spreads) / seeds
        variance = images + max(0.0, beyond)
        # nu = V^2 / sum_k V_k^2 / nu_k over the independent parts of V
        rest = max(1, self.images - 1)
        of_seeds = math.fsum((spread.total / seeds) ** 2 / spread.freedom for spread in spreads)
        freedom = variance**2 / (images**2 / rest + of_seeds)
        half = math.sqrt(variance) * _t_quantile((1 + confidence) / 2, freedom if beyond > 0 else rest)
        return Effect(estimate, centre - half, centre + half, math.sqrt(variance), freedom, centre)

    def _spread_of(self, weights: Mapping[tuple[int, int], float]) -> list[_Spread]:
        """Of each model in a contrast, moderated by the others of its pool; none with one seed."""
        columns: dict[int, list[tuple[int, float]]] = {}
        for (model, column), weight in weights.items():
            columns.setdefault(model, []).append((column, weight))
        if self.correct.shape[2] == 1:
            return []
        return [self._pool_spreads(self.pools[model], tuple(own))[model] for model, own in columns.items()]

    def _pool_spreads(self, pool: int, columns: tuple[tuple[int, float], ...]) -> dict[int, _Spread]:
        """The moderated spread of every model of a pool, for one weighting of columns."""
        known = self._spreads.get((pool, columns))
        if known is None:
            members = [model for model, its in enumerate(self.pools) if its == pool]
            own = np.array([_over_seeds(_weighted(self.correct[m], dict(columns))) for m in members])
            freedom = self.correct.shape[2] - 1
            prior = min(PRIOR, (len(members) - 1) * freedom)
            others = (own.sum(axis=0) - own) / max(1, len(members) - 1)
            # t~ = (prior t_others + (S - 1) t) / (prior + S - 1), and likewise a~
            moderated = (prior * others + freedom * own) / (prior + freedom)
            known = {
                m: _Spread(float(t), float(a), prior + freedom) for m, (t, a) in zip(members, moderated, strict=True)
            }
            self._spreads[pool, columns] = known
        return known


def _t_below(value: float, freedom: float) -> float:
    """P(T < value) of Student's t; scipy.stats.t.cdf is the same and far slower."""
    from scipy.special import ndtr, stdtr

    return float(ndtr(value) if math.isinf(freedom) else stdtr(freedom, value))


def _t_quantile(share: float, freedom: float) -> float:
    """The value below which Student's t lies with probability `share`."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


def _weighted(values: Bools, weights: Mapping[Any, float]) -> Floats:
    """The sum of weight times values[index], (seeds, images)."""
    total = np.zeros(values.shape[-2:])
    for index, weight in weights.items():
        total += weight * values[index]
    return total


def _over_images(by_seed: Floats, ends: Sequence[float], strata: Ints | None) -> tuple[float, float]:
    """Mean and variance of the mean over images of (seeds, images) values, with a pseudo-image at each of two `ends`.

    A pseudo-image counts as much as an image's mean over seeds varies, relative to an image of one seed: fully where
    all seeds make the same errors, 1 / S where they make independent ones.
    """
    values = by_seed.mean(axis=0)
    single = float(by_seed.var(axis=1).mean())
    shared = max(1 / len(by_seed), float(values.var()) / single) if single > 0 else 1.0
    n = len(values)
    centre = (float(values.sum()) + math.fsum(ends)) / (n + 2)
    # V = (sum_c n_c / (n_c - 1) sum_i (y_i - y_c)^2 + shared sum_e (e - centre)^2) / (n + 2)^2
    if strata is None:
        within = float(values.var()) * n * n / max(n - 1, 1)
    else:
        counts = np.bincount(strata)
        means = np.bincount(strata, values) / counts
        squares = np.bincount(strata, (values - means[strata]) ** 2)
        within = float((squares * counts / np.maximum(counts - 1, 1)).sum())
    return centre, (within + shared * math.fsum((end - centre) ** 2 for end in ends)) / (n + 2) ** 2


def _over_seeds(by_seed: Floats) -> tuple[float, float]:
    """Variance of a model's mean over seeds, and its part beyond independent errors of (seeds, images) values."""
    seeds, images = by_seed.shape
    means = by_seed.mean(axis=1)
    total = float(means.var(ddof=1))
    # the residual y_si - y_s. - y_.i + y_.. of the two-way table, whose mean square is the interaction
    residual = by_seed - means[:, None] - by_seed.mean(axis=0) + means.mean()
    return total, total - float((residual**2).sum()) / ((seeds - 1) * max(1, images - 1) * images)


def _strata(labels: Ints) -> Ints | None:
    """A stratum for each image: its class; none where classes are too small to be told from chance.

    Classes with a single image share a stratum; a lone one joins the smallest other class.
    """
    _, strata, counts = np.unique(labels, return_inverse=True, return_counts=True)
    strata = strata.astype(np.int64)
    if labels.size - len(counts) < STRATIFIED:
        return None
    alone = counts[strata] == 1
    if alone.sum() == 1:
        strata[alone] = int(np.argmin(np.where(counts > 1, counts, labels.size + 1)))
    elif alone.any():
        strata[alone] = len(counts)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def mcnemar(a: Bools, b: Bools) -> float:
    """The exact two-sided McNemar test (1947) that two models err equally often on the same images (images,)."""
    from scipy.special import bdtr

    # b of the b + c discordant images are right for `a` alone; under the null b ~ Binomial(b + c, 1/2)
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    # p = 2 P(X <= min(b, c)): the distribution is symmetric
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(order):
        # p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)); rank is j - 1
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def judged(tests: Sequence[tuple[float, Effect]], alpha: float) -> list[tuple[float, str]]:
    """For the p-values of a table and their effects: p adjusted by Holm, and "better" or "worse" where it is below `alpha`."""
    adjusted = holm([p for p, _ in tests])
    signs = ["better" if effect.centre > 0 else "worse" for _, effect in tests]
    return [(p, sign if p < alpha else "") for p, sign in zip(adjusted, signs, strict=True)]


def calibration_error(confidence: Floats, correct: Bools, bins: int = 15) -> float:
    """Mean gap of confidence and accuracy over equal bins of confidence (Guo et al. 2017, ICML), a fraction."""
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # ECE = sum_b n_b / n |mean confidence_b - accuracy_b|
    gaps = np.bincount(which, weights=confidence, minlength=bins) - np.bincount(which, correct, minlength=bins)
    return float(np.abs(gaps).sum() / confidence.size)

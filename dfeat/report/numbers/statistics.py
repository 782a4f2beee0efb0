"""Uncertainty of accuracies and of their differences: arrays in, numbers out [Sec. 4.3].

What enters: for each model (a method with a backbone) and column (a metric at a level) a boolean array
(seeds, images) of correct predictions, and the images' labels. What leaves: intervals, paired
differences, p-values.

The bootstrap resamples what a repetition of the experiment would draw anew:
- images, within their class (the sets are class-balanced by construction), the same ones for every model, so
  that any two cells are compared on the same images;
- training seeds, for each model on its own, although trainings of two methods with one seed share the order of
  images, their crops and, where there are any, drop paths.
It takes n_c - 1 of the n_c images of a class, and S - 1 of S seeds, with replacement and rescaled: with three
images a class, or three seeds, the plain bootstrap would underestimate a variance by a third (Rao and Wu 1988,
J. Am. Stat. Assoc. 83:231). Resampling both ways is conservative (Owen 2007, Ann. Appl. Stat. 1:386).
Two or three seeds estimate their spread poorly, so an interval is stretched by Student's t over the normal
quantile, with Satterthwaite's (1946) degrees of freedom: not at all where images dominate, fully where seeds do.
With one seed the interval reflects image sampling only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROUNDING = 1e-12
"""An end of an interval nearer to 0 than this is 0: accuracies are counts over n, whose steps are far larger."""

_BLOCK = 4_000_000
"""Image weights held at once: resamples are drawn in blocks of at most this many weights (16 MB)."""


class Effect(NamedTuple):
    """A weighted sum of accuracies, as fractions: estimate, interval, standard error and its degrees of freedom."""

    estimate: float
    low: float
    high: float
    error: float
    freedom: float

    def p(self, null: float = 0.0) -> float:
        """Two-sided p-value of Student's t against the value `null`."""
        from scipy import stats

        if self.error == 0:
            return 1.0 if self.estimate == null else 0.0
        return float(2 * stats.t.sf(abs(self.estimate - null) / self.error, self.freedom))


@dataclass(frozen=True)
class Resampled:
    """Accuracies of all models on one set of images, with their bootstrap replicates.

    `seed_means` is (models, columns, seeds), `replicates` (models, columns, resamples), both fractions.
    """

    seed_means: Floats
    replicates: Floats
    images: int

    def contrast(self, weights: dict[tuple[int, int], float], confidence: float) -> Effect:
        """The sum of weight times accuracy over cells (model, column), on shared images."""
        from scipy import stats

        estimate = sum(weight * float(self.seed_means[cell].mean()) for cell, weight in weights.items())
        replicates = sum((weight * self.replicates[cell] for cell, weight in weights.items()), np.float64(0))
        variance = float(np.var(replicates))
        freedom = self._degrees_of_freedom(weights, variance)
        tail = (1 - confidence) / 2
        # (low, high) = estimate + t_nu / z (percentile - estimate)
        stretch = float(stats.t.isf(tail, freedom) / stats.norm.isf(tail))
        ends = (estimate + stretch * (float(q) - estimate) for q in np.quantile(replicates, [tail, 1 - tail]))
        low, high = (0.0 if abs(end) < ROUNDING else end for end in ends)
        return Effect(estimate, low, high, math.sqrt(variance), freedom)

    def interval(self, cell: tuple[int, int], confidence: float) -> tuple[float, float]:
        """The interval of one accuracy, inside [0, 1].

        Where every prediction is right, or every one wrong, resampling shows no spread, so the exact binomial bound
        for this many images is returned (Clopper and Pearson 1934).
        """
        estimate, low, high, *_ = self.contrast({cell: 1.0}, confidence)
        bound = ((1 - confidence) / 2) ** (1 / self.images)  # p^n = alpha / 2, of n right out of n
        if estimate == 0:
            return 0.0, 1 - bound
        if estimate == 1:
            return bound, 1.0
        return max(low, 0.0), min(high, 1.0)

    def _degrees_of_freedom(self, weights: dict[tuple[int, int], float], variance: float) -> float:
        """Satterthwaite's: each model's seed variance has S - 1 degrees; that of the images is taken as exact."""
        seeds = self.seed_means.shape[2]
        if seeds == 1 or variance == 0:
            return math.inf
        totals: dict[int, Floats] = {}
        for (model, column), weight in weights.items():
            totals[model] = totals.get(model, np.zeros(seeds)) + weight * self.seed_means[model, column]
        # nu = V^2 / sum_m (s_m^2 / S)^2 / (S - 1), with the sample variance s_m^2 of model m over its S seeds
        spread = sum((float(np.var(total, ddof=1)) / seeds) ** 2 / (seeds - 1) for total in totals.values())
        return max(seeds - 1.0, variance**2 / spread) if spread > 0 else math.inf


def resample(
    correct: Bools,
    labels: Ints,
    resamples: int,
    image_rng: np.random.Generator,
    seed_rngs: Sequence[np.random.Generator],
) -> Resampled:
    """Bootstrap all cells of a set at once.

    `correct` is (models, columns, seeds, images), `labels` (images,). One draw of images serves all cells;
    `seed_rngs` has a generator for each model, so a further model does not change the others' results.
    Counts of draws are whole numbers, so the sums are exact and do not depend on the machine's linear algebra.
    """
    models, columns, seeds, images = correct.shape
    assert labels.shape == (images,) and len(seed_rngs) == models and images > 0
    draw = _ImageDraw(labels)
    flat = np.ascontiguousarray(correct.reshape(-1, images)[:, draw.order].T, dtype=np.float32)
    # how often each seed is drawn, (models, resamples, seeds); a row sums to S - 1, or to 1 for a single seed
    shares = np.full(seeds, 1 / seeds)
    seed_counts = np.stack([rng.multinomial(max(1, seeds - 1), shares, size=resamples) for rng in seed_rngs])
    replicates = np.empty((models, columns, resamples))
    block = max(1, _BLOCK // images)
    for start in range(0, resamples, block):
        rows = slice(start, min(start + block, resamples))
        sums = draw.weighted_sums(flat, rows.stop - rows.start, image_rng)
        by_seed = sums.reshape(-1, models, columns, seeds)
        counts = seed_counts[:, rows].transpose(1, 0, 2)[:, :, None, :]
        # the mean over the S - 1 drawn seeds of the rescaled mean over images
        replicates[:, :, rows] = ((by_seed * counts).sum(axis=3) / (images * max(1, seeds - 1))).transpose(1, 2, 0)
    return Resampled(correct.sum(axis=3) / images, replicates, images)


class _ImageDraw:
    """Draw images with replacement within strata: the classes, those with a single image merged with others."""

    def __init__(self, labels: Ints) -> None:
        strata = _strata(labels)
        size_of_image = np.bincount(strata)[strata]
        self.order = np.lexsort((strata, size_of_image))
        sizes = size_of_image[self.order]
        self.groups = [(int(n), np.flatnonzero(sizes == n)) for n in np.unique(sizes)]

    def weighted_sums(self, values: NDArray[np.float32], resamples: int, rng: np.random.Generator) -> Floats:
        """Rescaled sums over drawn images, (resamples, columns), of `values` (images in `order`, columns)."""
        total = np.zeros((resamples, values.shape[1]))
        for size, images in self.groups:
            draws = max(1, size - 1)
            first = np.repeat(np.arange(0, len(images), size), draws)
            picked = rng.integers(0, size, (resamples, len(first))) + first
            picked += np.arange(resamples)[:, None] * len(images)
            counts = np.bincount(picked.ravel(), minlength=resamples * len(images)).astype(np.float32)
            # sum_c n_c / (n_c - 1) sum_i m_ci y_ci, where m_c counts n_c - 1 draws from class c
            sums = counts.reshape(resamples, -1) @ values[images]
            total += sums.astype(np.float64) * (size / draws)
        return total


def _strata(labels: Ints) -> Ints:
    """A stratum for each image: its class; classes with a single image share a stratum, never alone in it."""
    _, strata, counts = np.unique(labels, return_inverse=True, return_counts=True)
    strata = strata.astype(np.int64)
    alone = counts[strata] == 1
    if alone.sum() == 1 and len(counts) > 1:
        others = np.where(counts > 1, counts, labels.size + 1)
        strata[alone] = int(np.argmin(others))
    elif alone.any():
        strata[alone] = len(counts)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def mcnemar(a: Bools, b: Bools) -> float:
    """The exact two-sided McNemar test (1947) that two models err equally often on the same images (images,)."""
    from scipy.stats import binomtest

    # b of the b + c discordant images are right for `a` alone; under the null b ~ Binomial(b + c, 1/2)
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def majority_p(p_values: Sequence[float]) -> float:
    """Combine the p-values of the same hypothesis on S seeds, valid under any dependence between them.

    Rueger's (1978) bound, Metrika 25:171: S / k times the k-th smallest, here with k the smallest majority. The seeds'
    tests share their images, so a combination for independent tests would be too optimistic, and the smallest p would
    be that of the luckiest seed. One seed: its own p. Three: 1.5 times the middle one.
    """
    majority = len(p_values) // 2 + 1
    # p = min(1, S / k p_(k)), k = floor(S / 2) + 1
    return min(1.0, sorted(p_values)[majority - 1] * len(p_values) / majority)


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


def smallest_detectable_difference(images: int, discordant: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference of two accuracies that McNemar's test detects with `power` on this many images.

    `discordant` is the share psi of images that exactly one of the two models gets right. Connor (1987, Biometrics
    43:207). Infinity where even a difference as large as `discordant` would go undetected. For one pair of models:
    the spread of seeds is not included.
    """
    from scipy.stats import norm

    z_alpha, z_beta = float(norm.isf(alpha / 2)), float(norm.isf(1 - power))
    # sqrt(n) d = z_(alpha/2) sqrt(psi) + z_beta sqrt(psi - d^2), solved for d
    k = z_alpha * math.sqrt(discordant)
    root = images * k**2 - (images + z_beta**2) * (k**2 - z_beta**2 * discordant)
    difference = (math.sqrt(images) * k + math.sqrt(max(root, 0.0))) / (images + z_beta**2)
    return difference if 0 < difference <= discordant else math.inf


def calibration_error(confidence: Floats, correct: Bools, bins: int = 15) -> float:
    """Mean gap of confidence and accuracy over equal bins of confidence (Guo et al. 2017, ICML), a fraction."""
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # ECE = sum_b n_b / n |mean confidence_b - accuracy_b|
    gaps = np.bincount(which, weights=confidence, minlength=bins) - np.bincount(which, correct, minlength=bins)
    return float(np.abs(gaps).sum() / confidence.size)

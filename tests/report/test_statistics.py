"""Intervals cover what they say, agree with scipy and textbook formulas, and tests are the exact ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from dfeat.report.numbers import statistics
from dfeat.report.numbers.statistics import (
    calibration_error,
    holm,
    majority_p,
    mcnemar,
    resample,
    smallest_detectable_difference,
)

from . import reference


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def resampled(correct: np.ndarray, labels: np.ndarray, resamples: int = 4000, seed: int = 0) -> statistics.Resampled:
    """One model with one column, `correct` (seeds, images)."""
    return resample(correct[None, None], labels, resamples, draws(seed), [draws(seed + 1)])


def bootstrap_interval(
    correct: np.ndarray, labels: np.ndarray, resamples: int, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The interval of the mean of `correct` (seeds, images), as fractions."""
    return resample(correct[None, None], labels, resamples, rng, [rng.spawn(1)[0]]).interval((0, 0), confidence)


def paired_difference(a: np.ndarray, b: np.ndarray, labels: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """Mean of `a` minus mean of `b` (each (seeds, images), the same images), with its 95 % interval, as fractions."""
    rng = draws()
    both = resample(np.stack([a, b])[:, None], labels, resamples, rng, rng.spawn(2))
    effect = both.contrast({(0, 0): 1.0, (1, 0): -1.0}, 0.95)
    return effect.estimate, effect.low, effect.high


def test_interval_agrees_with_scipy_on_one_class_and_seed() -> None:
    correct = draws(3).random(500) < 0.8
    low, high = bootstrap_interval(correct[None], np.zeros(500, np.int64), 4000, 0.95, draws())
    theirs = stats.bootstrap(
        (correct,), np.mean, n_resamples=4000, method="percentile", rng=draws(1)
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.004)
    assert high == pytest.approx(theirs.high, abs=0.004)


def test_variance_over_images_is_the_stratified_formula_even_with_three_images_a_class() -> None:
    labels = np.repeat(np.arange(100), 3)
    correct = draws(1).random(300) < np.repeat(draws(2).random(100), 3)
    by_class = correct.reshape(100, 3)
    expected = (by_class.var(axis=1, ddof=1) / 3).sum() / 100**2
    assert resampled(correct[None], labels).replicates.var() == pytest.approx(expected, rel=0.08)


def test_variance_over_seeds_is_unbiased_with_three_seeds() -> None:
    correct = np.zeros((3, 1000), bool)
    for seed, right in enumerate((700, 720, 780)):
        correct[seed, :right] = True
    labels = correct.sum(axis=0)
    labels = np.unique(labels, return_inverse=True)[1]
    assert resampled(correct, labels).replicates.var() == pytest.approx(np.var([0.7, 0.72, 0.78], ddof=1) / 3, rel=0.05)


def test_replicates_centre_on_the_accuracy_whatever_the_class_sizes() -> None:
    labels = np.concatenate([np.full(n, c) for c, n in enumerate((1, 1, 2, 7, 40, 1))])
    correct = draws(5).random((2, len(labels))) < 0.6
    result = resampled(correct, labels, 20_000)
    assert result.seed_means.mean() == correct.mean()
    assert result.replicates.mean() == pytest.approx(correct.mean(), abs=0.003)


@pytest.mark.parametrize("sizes", [(1,), (1, 5), (1, 1, 1), (4, 1, 9)])
def test_classes_with_a_single_image_are_no_obstacle(sizes: tuple[int, ...]) -> None:
    labels = np.concatenate([np.full(n, c) for c, n in enumerate(sizes)])
    low, high = bootstrap_interval(np.arange(len(labels))[None] % 2 == 0, labels, 200, 0.95, draws())
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.3), (5, 0.3)])
def test_interval_covers_the_accuracy_of_a_new_experiment(seeds: int, spread: float) -> None:
    """Images of 20 classes and training runs drawn anew 300 times; 95 % intervals, allowing for 300 trials."""
    classes = draws(9).normal(0, 0.7, 20)
    truth = stats.norm.cdf((1 + classes) / math.sqrt(1.2**2 + 1 + spread**2)).mean()
    labels, rng, covered = np.repeat(np.arange(20), 10), draws(4), 0
    for _ in range(300):
        margin = 1 + classes[labels] + rng.normal(0, 1.2, 200) + rng.normal(0, spread, (seeds, 1))
        correct = margin + rng.normal(0, 1, (seeds, 200)) > 0
        low, high = bootstrap_interval(correct, labels, 300, 0.95, rng)
        covered += low <= truth <= high
    assert covered / 300 > 0.915


def test_all_right_or_all_wrong_gets_the_exact_binomial_bound() -> None:
    labels = np.repeat(np.arange(10), 10)
    exact = stats.binomtest(100, 100).proportion_ci(0.95, "exact")
    low, high = bootstrap_interval(np.ones((3, 100), bool), labels, 200, 0.95, draws())
    assert (low, high) == (pytest.approx(exact.low), 1.0)
    low, high = bootstrap_interval(np.zeros((3, 100), bool), labels, 200, 0.95, draws())
    assert (low, high) == (0.0, pytest.approx(1 - exact.low))


def test_paired_difference_uses_the_same_images() -> None:
    labels = np.repeat(np.arange(20), 25)
    easy = draws(1).normal(0, 1, 500)
    a, b = (easy + 0.8 > 0)[None], (easy + 0.7 > 0)[None]
    difference, low, high = paired_difference(a, b, labels, 2000)
    assert difference == a.mean() - b.mean()
    assert 0 < low < difference < high
    width = np.subtract(*reversed(bootstrap_interval(a, labels, 2000, 0.95, draws())))
    assert high - low < width


def test_a_model_does_not_differ_from_itself() -> None:
    labels, a = np.repeat(np.arange(5), 20), draws(1).random((1, 100)) < 0.5
    assert paired_difference(a, a, labels, 200) == (0, 0, 0)


def test_further_models_leave_the_first_ones_figures_alone() -> None:
    labels, correct = np.repeat(np.arange(10), 12), draws(2).random((3, 2, 3, 120)) < 0.7
    all_three = resample(correct, labels, 300, draws(), [draws(1), draws(2), draws(3)])
    first = resample(correct[:1], labels, 300, draws(), [draws(1)])
    assert np.array_equal(all_three.replicates[:1], first.replicates)


@pytest.mark.parametrize("wrong", [0, 7, 29])
def test_a_lead_by_one_image_reaches_down_to_0_and_no_further(wrong: int) -> None:
    """That image is missing from a third of the resamples; rounding must not lift the end above 0."""
    labels = np.repeat(np.arange(20), 30)
    correct = np.ones((2, 1, 1, 600), bool)
    correct[1, 0, 0, wrong] = False
    lead = resample(correct, labels, 500, draws(), [draws(1), draws(2)]).contrast({(0, 0): 1.0, (1, 0): -1.0}, 0.95)
    assert lead.estimate > 0
    assert lead.low == 0.0


def test_few_seeds_that_disagree_stretch_the_interval() -> None:
    labels, rng = np.repeat(np.arange(10), 100), draws(1)
    spread = np.stack([rng.random(1000) < share for share in (0.5, 0.6, 0.7)])
    result = resampled(spread, labels)
    low, high = result.interval((0, 0), 0.95)
    plain = np.quantile(result.replicates, [0.025, 0.975])
    assert high - low > 1.8 * (plain[1] - plain[0])


def test_mcnemar_is_exact() -> None:
    a = np.array([True] * 1 + [False] * 8 + [True] * 30)
    b = np.array([False] * 1 + [True] * 8 + [True] * 30)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(a, b) == mcnemar(b, a) == stats.binomtest(1, 9).pvalue
    assert mcnemar(a, a) == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_mcnemar_and_binomial_bound_are_those_of_statsmodels() -> None:
    recorded = json.loads(reference.RECORDED.read_text())
    assert holm(reference.P_VALUES) == pytest.approx(recorded["holm"], rel=1e-12)
    ours = [mcnemar(*reference.models(*pair)) for pair in reference.PAIRS]
    assert ours == pytest.approx(recorded["mcnemar"], rel=1e-9)
    low, high = bootstrap_interval(np.ones((1, 100), bool), np.zeros(100, np.int64), 200, 0.95, draws())
    assert (low, high) == pytest.approx(tuple(recorded["clopper_pearson_all_of_100"]))


def test_majority_p_asks_most_seeds() -> None:
    assert majority_p([0.03]) == 0.03
    assert majority_p([0.001, 0.02, 0.9]) == pytest.approx(0.03)
    assert majority_p([0.001, 0.2]) == 0.2
    assert majority_p([0.9, 0.9, 0.9]) == 1


def test_majority_p_keeps_its_level_for_independent_and_equal_seeds() -> None:
    p = draws(1).random((4000, 3))
    assert np.mean([majority_p(row) < 0.05 for row in p.tolist()]) < 0.06
    assert np.mean([majority_p([row[0]] * 3) < 0.05 for row in p.tolist()]) < 0.06


def test_smallest_detectable_difference_has_the_power_it_promises() -> None:
    images, discordant = 300, 0.12
    smallest = smallest_detectable_difference(images, discordant)
    z = stats.norm.isf([0.025, 0.2])
    root = z[0] * math.sqrt(discordant) + z[1] * math.sqrt(discordant - smallest**2)
    assert (root / smallest) ** 2 == pytest.approx(images)
    rng, better = draws(1), (discordant + smallest) / 2
    tables = rng.multinomial(images, [better, discordant - better, 1 - discordant], 600)
    found = np.mean([stats.binomtest(int(b), int(b + c)).pvalue < 0.05 for b, c, _ in tables])
    assert 0.68 < found < 0.86  # the exact test is a little shy of the formula's normal one


def test_smallest_detectable_difference_is_infinite_where_nothing_can_be_seen() -> None:
    assert smallest_detectable_difference(10, 0.05) == math.inf
    assert smallest_detectable_difference(300, 0.0) == math.inf


def test_expected_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0

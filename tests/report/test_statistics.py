"""Intervals cover what they say, variances are the textbook's, and tests are the exact ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dfeat.report.numbers.statistics import POWER, PRIOR, Effect, Outcomes, calibration_error, holm, mcnemar

from . import reference

LEAD = {(0, 0): 1.0, (1, 0): -1.0}


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def one(correct: np.ndarray, labels: np.ndarray) -> Outcomes:
    """One model with one column, `correct` (seeds, images)."""
    return Outcomes(correct[None, None], labels, [0])


def lead(a: np.ndarray, b: np.ndarray, labels: np.ndarray | None = None) -> Effect:
    """Model `a` less model `b`, each (seeds, images)."""
    labels = np.zeros(a.shape[1], np.int64) if labels is None else labels
    return Outcomes(np.stack([a, b])[:, None], labels, [0, 0]).contrast(LEAD, 0.95)


def test_variance_over_images_is_the_stratified_formula_with_three_images_a_class() -> None:
    labels = np.repeat(np.arange(100), 3)
    correct = draws(1).random(300) < np.repeat(draws(2).random(100), 3)
    by_class = correct.reshape(100, 3)
    pseudo = correct.mean() ** 2 + (1 - correct.mean()) ** 2
    expected = ((by_class.var(axis=1, ddof=1) * 3).sum() + pseudo) / 302**2
    low, high = one(correct[None], labels).interval((0, 0), 0.95)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 299) * math.sqrt(expected), rel=1e-3)


def test_variance_over_seeds_is_that_of_the_textbook_where_seeds_dominate() -> None:
    """Of one model: nobody lends it degrees of freedom, so the interval is Student's t with S - 1."""
    rates = (0.47, 0.5, 0.52)
    correct = np.stack([np.arange(100_000) < rate * 100_000 for rate in rates])
    low, high = one(correct, np.zeros(100_000, np.int64)).interval((0, 0), 0.95)
    half = stats.t.ppf(0.975, 2) * np.std(rates, ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((np.mean(rates) - half, np.mean(rates) + half), rel=0.01)


def test_models_of_a_backbone_lend_each_other_two_degrees_of_freedom() -> None:
    """By hand: t~ = (2 t_others + 2 t) / 4 with 4 degrees of freedom, where images are so many that seeds decide."""
    rates = np.array([[0.3, 0.5, 0.8], [0.4, 0.5, 0.6], [0.5, 0.5, 0.65]])
    correct = np.stack([[np.arange(100_000) < 100_000 * rate for rate in model] for model in rates])[:, None]
    total = rates.var(axis=1, ddof=1)
    own, other = ((PRIOR * np.delete(total, m).mean() + 2 * total[m]) / (PRIOR + 2) / 3 for m in (0, 1))
    freedom = (own + other) ** 2 / ((own**2 + other**2) / 4)
    labels = np.zeros(100_000, np.int64)
    effect = Outcomes(correct, labels, [0, 0, 0]).contrast(LEAD, 0.95)
    assert effect.error == pytest.approx(math.sqrt(own + other), rel=0.01)
    assert effect.freedom == pytest.approx(freedom, rel=0.02)
    apart = Outcomes(correct, labels, [0, 0, 1]).contrast(LEAD, 0.95)
    assert apart.error != pytest.approx(effect.error, rel=0.01)


def test_seeds_that_differ_by_chance_alone_add_nothing() -> None:
    """Independent errors of images are in the variance over images already; they are not counted as the seeds' too."""
    errors = [lead(*draws(seed).random((2, 3, 4000)) < 0.7) for seed in range(40)]
    ideal = math.sqrt(2 * 0.7 * 0.3 / 12_000)
    assert np.mean([effect.error for effect in errors]) == pytest.approx(1.08 * ideal, rel=0.06)


@pytest.mark.parametrize("sizes", [(1,), (1, 5), (1, 1, 1), (4, 1, 9), (150, 1, 60), (2,) * 120 + (1, 1)])
def test_classes_with_a_single_image_are_no_obstacle(sizes: tuple[int, ...]) -> None:
    labels = np.concatenate([np.full(n, c) for c, n in enumerate(sizes)])
    correct = np.arange(len(labels))[None] % 2 == 0
    low, high = one(correct, labels).interval((0, 0), 0.95)
    assert 0 <= low <= correct.mean() <= high <= 1 and low < high


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.3), (5, 0.3)])
def test_interval_covers_the_accuracy_of_a_new_experiment(seeds: int, spread: float) -> None:
    """Images of 20 classes and training runs drawn anew 600 times; 95 % intervals, allowing for 600 trials."""
    classes = draws(9).normal(0, 0.7, 20)
    truth = stats.norm.cdf((1 + classes) / math.sqrt(1.2**2 + 1 + spread**2)).mean()
    labels, rng, covered = np.repeat(np.arange(20), 10), draws(4), 0
    for _ in range(600):
        margin = 1 + classes[labels] + rng.normal(0, 1.2, 200) + rng.normal(0, spread, (4, seeds, 1))
        correct = margin + rng.normal(0, 1, (4, seeds, 200)) > 0
        low, high = Outcomes(correct[:, None], labels, [0] * 4).interval((0, 0), 0.95)
        covered += low <= truth <= high
    assert 0.925 < covered / 600 < 0.985


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]), st.data()
)
def test_no_interval_has_width_0_and_no_p_is_0(
    seeds: int, images: int, classes: int, rate: float, data: st.DataObject
) -> None:
    """Whatever is right or wrong, by class or by image, for as many seeds; the estimate lies inside."""
    rng = draws(data.draw(st.integers(0, 10_000)))
    labels = rng.integers(0, classes, images)
    by_class = rng.random((2, 1, seeds, classes)) < rate
    correct = by_class[..., labels] if data.draw(st.booleans()) else rng.random((2, 1, seeds, images)) < rate
    outcomes = Outcomes(correct, labels, [0, 0])
    low, high = outcomes.interval((0, 0), 0.95)
    assert 0 <= low < high <= 1 and low <= correct[0].mean() <= high
    effect = outcomes.contrast(LEAD, 0.95)
    assert effect.low < effect.estimate < effect.high
    assert 0 < effect.p() <= 1 and effect.p() == pytest.approx(lead(correct[1, 0], correct[0, 0]).p())


def test_classes_that_are_wholly_right_or_wrong_are_no_certainty() -> None:
    """22 images of 11 classes, 4 right: the classes' own variances are all 0. Five against none is no mark: exact p 0.06."""
    labels = np.repeat(np.arange(11), 2)
    low, high = one((labels < 2)[None], labels).interval((0, 0), 0.95)
    assert low < 0.1 and high > 0.32
    better = np.zeros((3, 22), bool)
    better[:, :5] = True
    assert mcnemar(better[0], ~np.ones(22, bool)) == pytest.approx(0.0625)
    effect = lead(better, np.zeros((3, 22), bool), labels)
    assert effect.low <= 0 and effect.p() > 0.05


def test_all_right_or_all_wrong_gets_the_exact_binomial_bound() -> None:
    labels = np.repeat(np.arange(10), 10)
    exact = stats.binomtest(100, 100).proportion_ci(0.95, "exact")
    assert one(np.ones((3, 100), bool), labels).interval((0, 0), 0.95) == (pytest.approx(exact.low), 1.0)
    assert one(np.zeros((3, 100), bool), labels).interval((0, 0), 0.95) == (0.0, pytest.approx(1 - exact.low))


def test_a_difference_uses_the_same_images() -> None:
    labels = np.repeat(np.arange(20), 25)
    easy = draws(1).normal(0, 1, 500)
    a, b = (easy + 0.8 > 0)[None], (easy + 0.7 > 0)[None]
    effect = lead(a, b, labels)
    assert effect.estimate == pytest.approx(a.mean() - b.mean())
    assert 0 < effect.low < effect.estimate < effect.high
    assert effect.high - effect.low < np.subtract(*reversed(one(a, labels).interval((0, 0), 0.95)))


def test_a_model_does_not_differ_from_itself() -> None:
    a = draws(1).random((3, 100)) < 0.5
    effect = lead(a, a)
    assert effect.estimate == 0 and effect.low == -effect.high and effect.p() == 1


def test_seeds_of_opposite_signs_decide_nothing() -> None:
    """Better by 60 images with one seed, worse by 60 with another: McNemar finds both, the methods do not differ."""
    a = np.tile(np.arange(7900) < 7000, (3, 1))
    b = a.copy()
    b[0, :100], b[0, 7000:7040] = False, True
    b[1, 7000:7100], b[1, :40] = True, False
    b[2, :50], b[2, 7000:7050] = False, True
    assert max(mcnemar(x, y) for x, y in zip(a[:2], b[:2], strict=True)) < 1e-6
    assert lead(a, b).p() > 0.9


def test_p_is_that_of_students_t_and_agrees_with_the_interval() -> None:
    for seed in range(20):
        effect = lead(*draws(seed).random((2, 3, 300)) < np.array([0.75, 0.7])[:, None, None])
        assert effect.p() == pytest.approx(2 * stats.t.sf(abs(effect.centre) / effect.error, effect.freedom), rel=1e-9)
        assert effect.p_above() + effect.p_below() == pytest.approx(1)
        assert effect.p() >= 0.05 or effect.low > 0 or effect.high < 0
    known = Effect(0.1, 0.0, 0.2, 0.05, math.inf, 0.1)
    assert known.p() == pytest.approx(2 * stats.norm.sf(2)) and known.p(0.1) == 1


@pytest.mark.parametrize(("freedom", "alpha"), [(4.0, 0.05), (8.0, 0.05 / 140), (30.0, 0.05 / 40), (5000.0, 0.05)])
def test_the_detectable_difference_has_the_power_that_it_states(freedom: float, alpha: float) -> None:
    effect = Effect(0.0, 0.0, 0.0, 0.02, freedom, 0.0)
    value = effect.detectable(alpha) / effect.error
    assert stats.nct.sf(stats.t.isf(alpha / 2, freedom), freedom, value) == pytest.approx(POWER, abs=0.02)
    assert Effect(0.0, 0.0, 0.0, 1.0, math.inf, 0.0).detectable(0.05) == pytest.approx(1.95996 + 0.84162, rel=1e-4)


def test_more_columns_and_models_than_one_in_a_contrast() -> None:
    """A mean over levels has the variance of the mean of the levels' images, not the sum of theirs."""
    rng = draws(3)
    image = rng.normal(0, 1, 400)
    correct = image + rng.normal(0, 0.3, (2, 2, 3, 400)) > 0
    outcomes = Outcomes(correct, np.zeros(400, np.int64), [0, 0])
    both = outcomes.contrast({(0, 0): 0.5, (0, 1): 0.5}, 0.95)
    alone = outcomes.contrast({(0, 0): 1.0}, 0.95)
    assert both.estimate == pytest.approx(correct[0].mean())
    assert 0.9 * alone.error < both.error < alone.error


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
    low, high = one(np.ones((1, 100), bool), np.zeros(100, np.int64)).interval((0, 0), 0.95)
    assert (low, high) == pytest.approx(tuple(recorded["clopper_pearson_all_of_100"]))


def test_expected_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0

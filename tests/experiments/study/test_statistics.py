"""Statistics of a study against scipy, published numbers and simulations."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from kerasrestart.experiments.study.statistics import (
    MOST_SEEDS,
    holm,
    paired_difference,
    power,
    seeds_needed,
    summarize,
)

# Student (1908): hours of sleep gained by ten patients with two drugs, paired. Published results:
# mean difference 1.58, t = 4.0621, two-sided p = 0.00283.
SLEEP_1 = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SLEEP_2 = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))


def by_seed(values):
    return dict(enumerate(values))


def test_difference_and_p_of_students_sleep_data_match_the_published_values():
    found = paired_difference(SLEEP_2, SLEEP_1)
    assert found.n == 10
    assert found.mean == pytest.approx(1.58)
    assert found.deviation == pytest.approx(1.229995, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p == pytest.approx(0.00283289, abs=1e-8)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_and_p_match_scipys_paired_test(n):
    rng = np.random.default_rng(n)
    arm, control = rng.normal(0.3, 1, n), rng.normal(size=n)
    expected = stats.ttest_rel(arm, control)
    interval = expected.confidence_interval(0.95)
    found = paired_difference(by_seed(arm), by_seed(control))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.deviation == pytest.approx(np.std(arm - control, ddof=1))


def test_interval_covers_the_true_difference_in_95_percent_of_samples():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.5, 2.0, (2000, 5))
    inside = 0
    for differences in noise:
        found = paired_difference(by_seed(differences), by_seed(np.zeros(5)))
        inside += found.low <= 0.5 <= found.high
    assert 0.93 < inside / 2000 < 0.97


def test_only_common_seeds_are_compared():
    found = paired_difference({0: 5.0, 1: 7.0, 3: 100.0}, {0: 4.0, 1: 5.0, 2: -100.0})
    assert (found.n, found.mean) == (2, 1.5)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_seed_gives_no_interval():
    found = paired_difference({3: 0.75}, {3: 0.5})
    assert (found.n, found.mean) == (1, 0.25)
    assert found.deviation is found.low is found.high is found.p is None


def test_equal_differences_give_no_interval():
    arm = {seed: 0.7 + 0.1 * seed + 0.03 for seed in range(5)}
    control = {seed: 0.7 + 0.1 * seed for seed in range(5)}
    found = paired_difference(arm, control)  # equal except for rounding
    assert found.mean == pytest.approx(0.03)
    assert found.low is found.high is found.p is None


def test_equal_arms_have_p_1():
    found = paired_difference(SLEEP_1, SLEEP_1)
    assert (found.mean, found.deviation, found.p) == (0, 0, 1)


def test_holm_matches_an_example_computed_by_hand():
    # Ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last is
    # raised to the previous one.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_ignores_missing_tests():
    assert holm([None, 0.02, None, 0.03]) == pytest.approx([None, 0.04, None, 0.04])


def test_power_matches_a_simulation():
    rng = np.random.default_rng(1)
    n, effect = 8, 0.9
    p = stats.ttest_1samp(rng.normal(effect, 1, (20_000, n)), 0, axis=1).pvalue
    assert power(n, effect) == pytest.approx(np.mean(p < 0.05), abs=0.012)
    assert power(5, 0.0) == pytest.approx(0.05, abs=1e-5)  # no difference: the false positive rate


@pytest.mark.parametrize(
    # Cohen's small, medium and large effect; sample sizes from G*Power and Cohen's tables (power
    # 0.8, two-sided 0.05, paired).
    ("effect", "published"),
    [(0.2, 199), (0.5, 34), (0.8, 15)],
)
def test_seeds_needed_match_the_published_numbers(effect, published):
    assert seeds_needed(1.0, effect) == published
    assert seeds_needed(2.0, -2 * effect) == published


def integrated_power(n, effect, level):
    """Power of the two-sided t test: an integral over the density of the chi distribution."""
    edge, shift = stats.t.isf(level / 2, n - 1) / (n - 1) ** 0.5, effect * n**0.5

    def found(chi):
        beyond = stats.norm.sf(edge * chi - shift) + stats.norm.cdf(-edge * chi - shift)
        return stats.chi.pdf(chi, n - 1) * beyond

    turn = min(shift / edge, n**0.5 + 10)  # below it the difference is almost always found
    return quad(found, 0, turn)[0] + quad(found, turn, n**0.5 + 10)[0]


@pytest.mark.parametrize("comparisons", [1, 2, 7])
@pytest.mark.parametrize(
    ("n", "effect"), [(2, 0.5), (2, 10.0), (4, 3.0), (8, 1.2), (30, 0.5), (300, 0.2)]
)
def test_power_matches_numerical_integration(n, effect, comparisons):
    level = 0.05 / comparisons
    assert power(n, effect, level) == pytest.approx(integrated_power(n, effect, level), abs=1e-5)


@pytest.mark.parametrize(("n", "effect"), [(2, 20.0), (2, 60.0), (3, 5.0), (3, 10.0)])
def test_power_of_few_seeds_matches_a_simulation(n, effect):
    level = 0.05 / 7
    p = stats.ttest_1samp(np.random.default_rng(0).normal(effect, 1, (40_000, n)), 0, axis=1).pvalue
    assert power(n, effect, level) == pytest.approx(np.mean(p < level), abs=0.01)


@pytest.mark.parametrize("comparisons", [1, 2, 7])
def test_seeds_needed_is_the_smallest_number_with_enough_power(comparisons):
    level = 0.05 / comparisons
    for deviation in (0.1, 0.3, 1.0, 2.5):
        n = seeds_needed(deviation, 1.0, comparisons)
        assert integrated_power(n, 1 / deviation, level) >= 0.8
        assert n == 2 or integrated_power(n - 1, 1 / deviation, level) < 0.8


def test_seeds_needed_are_enough_after_holms_correction():
    # One of four arms differs, by one standard deviation; the others do not.
    rng, arms = np.random.default_rng(2), 4
    n = seeds_needed(1.0, 1.0, arms)
    found = {}
    for seeds in (n, seeds_needed(1.0, 1.0)):
        differences = rng.normal(size=(4000, arms, seeds))
        differences[:, 0] += 1
        p = stats.ttest_1samp(differences, 0, axis=2).pvalue
        found[seeds] = np.mean([holm(of_study)[0] < 0.05 for of_study in p])
    enough, too_few = found.values()
    assert 0.79 < enough < 0.9
    assert too_few < 0.7  # without the correction


def test_seeds_needed_for_extreme_deviations():
    assert seeds_needed(0.0, 1.0) == 2
    assert seeds_needed(1e-9, 1.0) == 2
    assert seeds_needed(1e6, 1.0) is None
    assert seeds_needed(100.0, 1.0) < MOST_SEEDS


def test_summary_has_mean_and_deviation():
    found = summarize([1.0, 2.0, 6.0])
    assert (found.n, found.mean) == (3, 3.0)
    assert found.deviation == pytest.approx(7**0.5)
    assert summarize([4.0]).deviation is None

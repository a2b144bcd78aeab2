"""How sure one can be that two arms differ: pure functions on numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 100_000  # beyond that a number of seeds is no plan
_QUANTILES = 2000  # powers are exact to four digits


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and spread of an arm.

    Attributes:
        n: How many values.
        mean: Their mean.
        deviation: Their standard deviation, with n - 1; None for one value.
    """

    n: int
    mean: float
    deviation: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """What an arm has more than the control, over the seeds that both have.

    Attributes:
        n: How many seeds.
        mean: Mean of the differences.
        deviation: Their standard deviation, with n - 1; None for one seed.
        low: Lower end of the 95 % confidence interval of the mean, by Student's t; None where
            there is no interval: for one seed, and where all differences are the same.
        high: Its upper end, or None.
        p: Two-sided p-value of the paired t test; 1 where every difference is 0; None where the
            differences tell nothing of their spread.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p: float | None


def summarize(values: Sequence[float]) -> Summary:
    """Summarises the values of an arm, one or more."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return Summary(len(array), float(array.mean()), deviation)


def paired_difference(arm: Mapping[int, float], control: Mapping[int, float]) -> Difference | None:
    """Compares an arm with the control, seed by seed.

    Args:
        arm: By seed, its outcomes.
        control: By seed, those of the control.

    Returns:
        The difference over the seeds that both have; None where they have none in common.
    """
    common = sorted(arm.keys() & control.keys())
    if not common:
        return None
    differences = np.array([arm[seed] - control[seed] for seed in common], np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Difference(n, mean, None, None, None, None)
    deviation = float(differences.std(ddof=1))
    # Equal differences of floats are equal but for their last bits.
    if deviation <= 1e-12 * max(1.0, np.abs(list(arm.values())).max()):
        return Difference(n, mean, 0.0, None, None, None if np.any(differences) else 1.0)
    error = deviation / np.sqrt(n)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(n, mean, deviation, float(mean - reach), float(mean + reach), p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values for their number: one false alarm among all of them is as rare as p says.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal
    of Statistics 6, 1979).

    Args:
        p_values: Those of one family; None counts as no test.

    Returns:
        The adjusted values, at most 1, in the same order; None stays.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def power(n: int, effect: float, level: float = 1 - CONFIDENCE) -> float:
    """How likely a two-sided paired t test is to find a difference.

    Args:
        n: How many pairs, at least 2.
        effect: The true difference over the standard deviation of the differences.
        level: Level of the test. Defaults to 0.05.
    """
    # By quadrature over the standard deviation that is seen, for given that the mean is normal;
    # scipy's noncentral t gives no number for some large effects.
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    seen = np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    edge, shift = stats.t.isf(level / 2, n - 1) * seen, effect * np.sqrt(n)
    return float(np.mean(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)))


def seeds_needed(deviation: float, difference: float, comparisons: int = 1) -> int | None:
    """How many seeds it takes to find a true difference with a power of 80 %, at a level of 5 %.

    Of several comparisons the level is that of the first step of `holm`, 5 % over their number.
    What is found at that level is found by Holm's correction whatever the others are; where those
    are found too, fewer seeds may do.

    Args:
        deviation: Standard deviation of the differences.
        difference: The true difference, not 0, in the same unit.
        comparisons: How many tests there are in the family. Defaults to 1: no correction.

    Returns:
        The least number, 2 or more; None where it is more than `MOST_SEEDS`.
    """
    if deviation <= 0:
        return 2
    effect, level = abs(difference) / deviation, (1 - CONFIDENCE) / comparisons
    high = 2
    while power(high, effect, level) < POWER:
        high *= 2
        if high > 2 * MOST_SEEDS:
            return None
    low = high // 2  # too few, or 1
    while high - low > 1:  # power grows with n
        middle = (low + high) // 2
        enough = power(middle, effect, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high if high <= MOST_SEEDS else None

"""Paired comparison of two arms: confidence intervals, p-values and power. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 100_000  # a larger number is not practical
_QUANTILES = 2000  # gives powers to four digits


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of an arm.

    Attributes:
        n: Number of values.
        mean: Their mean.
        deviation: Their standard deviation (n - 1 in the denominator); `None` for one value.
    """

    n: int
    mean: float
    deviation: float | None

    @property
    def text(self) -> str:
        """Mean and deviation: "62.01 ± 0.35"."""
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference between an arm and the control, over the seeds that both have.

    Attributes:
        n: Number of seeds.
        mean: Mean of the differences, arm minus control.
        deviation: Their standard deviation (n - 1 in the denominator); `None` for one seed.
        low: Lower end of the 95 % confidence interval of the mean, by Student's t. `None` for one
            seed, and if all differences are equal.
        high: Upper end of the interval, or `None`.
        p: Two-sided p-value of the paired t test. 1 if every difference is 0; `None` for one seed,
            and if all differences are equal but not 0.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p: float | None

    @property
    def interval(self) -> str:
        """The interval: "+0.12 to +1.34"; empty where there is none."""
        return "" if self.low is None else f"{self.low:+.2f} to {self.high:+.2f}"


def p_text(p: float) -> str:
    """A p-value with two significant digits, such as `= 0.031` or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def p_cell(p: float | None) -> str:
    """A p-value for a table, such as `0.031` or `< 0.0001`; empty where there is none."""
    return "" if p is None else p_text(p).removeprefix("= ")


def summarize(values: Sequence[float]) -> Summary:
    """Returns mean and standard deviation of the values of an arm (at least one)."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else None
    return Summary(len(array), float(array.mean()), deviation)


def paired_difference(arm: Mapping[int, float], control: Mapping[int, float]) -> Difference | None:
    """Compares an arm with the control over the seeds that both have.

    Example:
    ```python
    difference = paired_difference({0: 61.2, 1: 60.8}, {0: 60.9, 1: 60.1})
    difference.mean  # 0.5
    ```

    Args:
        arm: Seed -> outcome of the arm.
        control: Seed -> outcome of the control.

    Returns:
        The difference, or `None` if they have no seed in common.
    """
    common = sorted(arm.keys() & control.keys())
    if not common:
        return None
    differences = np.array([arm[seed] - control[seed] for seed in common], np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Difference(n, mean, None, None, None, None)
    deviation = float(differences.std(ddof=1))
    # Equal differences of floats may differ in their last bits.
    if deviation <= 1e-12 * max(1.0, np.abs(list(arm.values())).max()):
        return Difference(n, mean, 0.0, None, None, None if np.any(differences) else 1.0)
    error = deviation / np.sqrt(n)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(n, mean, deviation, float(mean - reach), float(mean + reach), p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values for multiple comparisons, which controls the family-wise error rate.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal
    of Statistics 6, 1979).

    Args:
        p_values: The p-values of one family of tests. `None` stands for a test not made.

    Returns:
        The adjusted p-values, at most 1, in the same order; `None` stays `None`.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def power(n: int, effect: float, level: float = 1 - CONFIDENCE) -> float:
    """Returns the power of a two-sided paired t test.

    Args:
        n: Number of pairs, at least 2.
        effect: The true difference divided by the standard deviation of the differences.
        level: Significance level of the test. Defaults to 0.05.
    """
    # Quadrature over the sample standard deviation, given which the mean is normally distributed;
    # scipy's noncentral t returns NaN for some large effects.
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    sample = np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    edge, shift = stats.t.isf(level / 2, n - 1) * sample, effect * np.sqrt(n)
    return float(np.mean(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)))


def seeds_needed(deviation: float, difference: float, comparisons: int = 1) -> int | None:
    """Returns how many seeds find a true difference with a power of 80 % at a level of 5 %.

    With several comparisons, the level is that of the first and strictest step of `holm`: 5 %
    divided by their number. Fewer seeds may be enough if other differences are significant too.

    Args:
        deviation: Standard deviation of the differences.
        difference: The true difference, not 0, in the same unit.
        comparisons: Number of tests in the family. Defaults to 1: no correction.

    Returns:
        The smallest sufficient number, at least 2; `None` if it is above `MOST_SEEDS`.
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

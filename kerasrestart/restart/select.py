"""Which filters a restart takes: one small class for each rule, a function of the scores.

Readable without TensorFlow. Equal scores are taken in order of index, those of different layers in
order of the layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kerasrestart.network.arguments import check_choice, check_share, check_whole

Scores = Mapping[str, np.ndarray]
Chosen = dict[str, np.ndarray]
Excluded = Mapping[str, Collection[int]]
NORMALIZATIONS = ("l2", "mean")


@dataclasses.dataclass(frozen=True)
class Fraction:
    """Selects the filters of lowest score: the same fraction of every layer.

    Example:
    ```python
    restart = kerasrestart.PartialRestart(select=kerasrestart.Fraction(0.1, min_survivors=2))
    chosen = kerasrestart.Fraction(0.25)({"conv": np.array([3.0, 1.0, 2.0, 4.0])})  # {"conv": [1]}
    ```

    Args:
        fraction: Fraction of a layer's filters, between 0 and 1, both excluded. Of n filters
            `fraction * n` are selected, rounded to the nearest (a half upwards): none of a layer
            that is too small. Defaults to 0.1.
        min_survivors: How many filters every layer keeps at least; a fraction that leaves fewer is
            an error. Defaults to 1.

    Raises:
        ValueError: An argument is out of range.
    """

    fraction: float = 0.1
    min_survivors: int = 1

    def __post_init__(self):
        check_share("fraction", self.fraction)
        check_whole("min_survivors", self.min_survivors, 1)

    def check(self, filters: Mapping[str, int]) -> None:
        """Checks that the fraction can be selected in a model, before there are scores.

        Args:
            filters: By layer, the number of filters.

        Raises:
            ValueError: The fraction selects no filter of any layer, or too many of one.
        """
        for name, count in filters.items():
            selected = _rounded(self.fraction * count)
            if selected and count - selected < self.min_survivors:
                raise ValueError(
                    f"fraction must be lower, as min_survivors={self.min_survivors}: it selects "
                    f"{selected} of the {count} filters of layer {name!r}. Received: "
                    f"{self.fraction!r}"
                )
        if not any(_rounded(self.fraction * count) for count in filters.values()):
            largest = max(filters, key=filters.__getitem__)
            raise ValueError(
                f"fraction must be {_smallest_fraction(filters[largest])} or more, or it selects "
                f"no filter of any layer (the largest, {largest!r}, has {filters[largest]}). "
                f"Received: {self.fraction!r}"
            )

    def __call__(self, scores: Scores, exclude: Excluded | None = None) -> Chosen:
        """Selects filters.

        Args:
            scores: By layer, `[filters]`.
            exclude: By layer, indices of filters that are not selected whatever their score.
                Defaults to None: none.

        Returns:
            By layer, int64 `[k]`: indices in ascending order. Layers with none are left out.

        Raises:
            ValueError: As `check` does, or a score is not finite.
        """
        scores = _checked(self, scores)
        counts = {name: _rounded(self.fraction * len(of)) for name, of in scores.items()}
        return lowest(scores, counts, exclude)


@dataclasses.dataclass(frozen=True)
class BelowMean:
    """Selects the filters that score at most a fraction of their layer's mean score.

    There may be none. A layer whose scores are all zero is useless as a whole, and gives as many
    filters as `cap` and `min_survivors` allow.

    Example:
    ```python
    restart = kerasrestart.PartialRestart(select=kerasrestart.BelowMean(0.1, cap=0.5))
    ```

    Source: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", ICML 2023,
    section 4 (ReDo).

    Args:
        fraction: Largest score that is selected, as a fraction of the layer's mean score: from 0
            (dead filters only) to 1. Defaults to 0.1.
        cap: Largest fraction of one layer's filters that is selected, the lowest scores first;
            above 0 and at most 1, rounded downwards. Defaults to 1.
        min_survivors: How many filters every layer keeps at least. Defaults to 1.

    Raises:
        ValueError: An argument is out of range.
    """

    fraction: float = 0.1
    cap: float = 1.0
    min_survivors: int = 1

    def __post_init__(self):
        check_share("fraction", self.fraction, low=True, high=True)
        check_share("cap", self.cap, high=True)
        check_whole("min_survivors", self.min_survivors, 1)

    def check(self, filters: Mapping[str, int]) -> None:
        """Accepts every model: see `Fraction.check`."""

    def __call__(self, scores: Scores, exclude: Excluded | None = None) -> Chosen:
        """Selects filters; arguments and result are those of `Fraction.__call__`.

        Raises:
            ValueError: A score is not finite, or negative.
        """
        scores, counts = _checked(self, scores), {}
        for name, of_layer in scores.items():
            if of_layer.min() < 0:
                raise ValueError(
                    "BelowMean compares with the mean score: scores must be 0 or more, or select "
                    "Fraction or GlobalFraction, as for reversed criteria. Received: layer "
                    f"{name!r} has {of_layer.min()}"
                )
            of_layer = of_layer.astype(np.float64)
            mean = of_layer.mean()
            low = of_layer / mean <= self.fraction if mean else np.ones(len(of_layer), bool)
            low[list((exclude or {}).get(name, ()))] = False
            limit = _limit(self.cap, self.min_survivors, len(of_layer))
            counts[name] = min(int(low.sum()), limit)
        return lowest(scores, counts, exclude)


@dataclasses.dataclass(frozen=True)
class GlobalFraction:
    """Selects the filters of lowest score: a fraction of all filters of all layers together.

    Example:
    ```python
    restart = kerasrestart.PartialRestart(select=kerasrestart.GlobalFraction(0.1, normalize="l2"))
    ```

    Args:
        fraction: Fraction of all filters, between 0 and 1, both excluded: exactly `fraction * n` of
            n filters, rounded to the nearest (a half upwards). Defaults to 0.1.
        cap: Largest fraction of one layer's filters that is selected, above 0 and at most 1,
            rounded downwards; a layer that has reached it gives no more. Defaults to 0.5.
        normalize: What the scores of a layer are divided by before layers are compared: `"l2"`,
            their L2 norm (Molchanov et al., ICLR 2017, section 2.2); `"mean"`, the mean of their
            absolute values; None, nothing. Defaults to None.
        min_survivors: How many filters every layer keeps at least. Defaults to 1.

    Raises:
        ValueError: An argument is out of range.
    """

    fraction: float = 0.1
    cap: float = 0.5
    normalize: str | None = None
    min_survivors: int = 1

    def __post_init__(self):
        check_share("fraction", self.fraction)
        check_share("cap", self.cap, high=True)
        check_choice("normalize", self.normalize, (None, *NORMALIZATIONS))
        check_whole("min_survivors", self.min_survivors, 1)

    def check(self, filters: Mapping[str, int]) -> None:
        """Checks that the fraction can be selected in a model: see `Fraction.check`.

        Raises:
            ValueError: The fraction selects no filter, or more than `cap` and `min_survivors`
                allow.
        """
        total = sum(filters.values())
        count = _rounded(self.fraction * total)
        most = sum(_limit(self.cap, self.min_survivors, of_layer) for of_layer in filters.values())
        if not count:
            raise ValueError(
                f"fraction must be {_smallest_fraction(total)} or more, or it selects none of the "
                f"{total} filters of all layers. Received: {self.fraction!r}"
            )
        if count > most:
            raise ValueError(
                f"fraction must be lower, or cap higher: it selects {count} of {total} filters, "
                f"and cap={self.cap!r} and min_survivors={self.min_survivors} allow {most}. "
                f"Received: {self.fraction!r}"
            )

    def __call__(self, scores: Scores, exclude: Excluded | None = None) -> Chosen:
        """Selects filters; arguments, result and errors are those of `Fraction.__call__`."""
        scores = _checked(self, scores)
        eligible = _eligible(scores, exclude)
        left = {name: _limit(self.cap, self.min_survivors, len(of)) for name, of in scores.items()}
        count = _rounded(self.fraction * sum(map(len, scores.values())))
        places = [(name, index) for name, of in scores.items() for index in range(len(of))]
        comparable = np.concatenate([self._normalized(of) for of in scores.values()])
        chosen: dict[str, list[int]] = {name: [] for name in scores}
        for place in np.argsort(comparable, kind="stable"):
            name, index = places[place]
            if count and left[name] and eligible[name][index]:
                chosen[name].append(index)
                left[name], count = left[name] - 1, count - 1
        return {name: np.sort(np.array(of, np.int64)) for name, of in chosen.items() if of}

    def _normalized(self, scores: np.ndarray) -> np.ndarray:
        scores = scores.astype(np.float64)
        divisor = {"l2": np.linalg.norm(scores), "mean": np.abs(scores).mean()}
        # Where the divisor is zero, so are all scores.
        return scores / (divisor.get(self.normalize or "", 1.0) or 1.0)


def _checked(rule: Any, scores: Scores) -> dict[str, np.ndarray]:
    """The scores as arrays, once it is clear that they are finite and can be selected from."""
    arrays = {name: np.asarray(of_layer) for name, of_layer in scores.items()}
    rule.check({name: len(of_layer) for name, of_layer in arrays.items()})
    for name, of_layer in arrays.items():
        not_finite = np.flatnonzero(~np.isfinite(of_layer))
        if not_finite.size:
            raise ValueError(
                f"scores must be finite; training has diverged. Received: {not_finite.size} of "
                f"{len(of_layer)} scores of layer {name!r} are not "
                f"(filter {not_finite[0]}: {of_layer[not_finite[0]]})"
            )
    return arrays


def _eligible(scores: Scores, exclude: Excluded | None) -> dict[str, np.ndarray]:
    eligible = {name: np.ones(len(of_layer), bool) for name, of_layer in scores.items()}
    for name, filters in (exclude or {}).items():
        if name in eligible:
            eligible[name][list(filters)] = False
    return eligible


def lowest(scores: Scores, counts: Mapping[str, int], exclude: Excluded | None) -> Chosen:
    """The `counts` filters of lowest score of each layer, or as many as are not excluded."""
    eligible, chosen = _eligible(scores, exclude), {}
    for name, of_layer in scores.items():
        order = np.argsort(of_layer, kind="stable")
        chosen[name] = np.sort(order[eligible[name][order]][: counts[name]])
    return {name: filters for name, filters in chosen.items() if len(filters)}


def _rounded(number: float) -> int:
    """To the nearest, a half upwards."""
    return math.floor(number + 0.5)


def _smallest_fraction(filters: int) -> float:
    """A fraction that selects one of `filters`, to three digits."""
    return math.ceil(500 / filters) / 1000


def _limit(cap: float, min_survivors: int, filters: int) -> int:
    """Largest number of a layer's filters that may be selected."""
    # 0.29 * 100 is a little less than 29.
    return max(0, min(math.floor(cap * filters + 1e-9), filters - min_survivors))

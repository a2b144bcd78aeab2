"""Pure functions of scores: the lowest of a layer, of all layers, and those below a mean's share.

Equal scores stand in order of index, those of different layers in order of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def filter_count(fraction: float, filters: int) -> int:
    """The number of filters that `fraction` means in a layer of `filters`."""
    return math.floor(fraction * filters + 0.5)


def least_fraction(filters: int) -> float:
    """A fraction that selects one of so many filters, to three digits."""
    return math.ceil(500 / filters) / 1000


def lowest(scores: np.ndarray, eligible: np.ndarray, count: int) -> np.ndarray:
    """The filters of lowest score among those that are eligible.

    Args:
        scores: `[filters]`.
        eligible: bool `[filters]`.
        count: How many at most.

    Returns:
        Indices, the lowest score first.
    """
    order = np.argsort(scores, kind="stable")
    return order[eligible[order]][:count]


def count_low(name: str, scores: np.ndarray, eligible: np.ndarray, threshold: float) -> int:
    """How many eligible filters have a score of at most a share of their layer's mean.

    Args:
        name: The layer's name, for the error.
        scores: `[filters]`.
        eligible: bool `[filters]`.
        threshold: The share. Where all scores are zero, all are that low.

    Raises:
        ValueError: A score is negative.
    """
    if scores.min() < 0:
        raise ValueError(
            f"threshold is a share of the mean score, and needs scores of 0 or more: layer "
            f"'{name}' has {scores.min()}; use fraction instead, as for reversed criteria."
        )
    scores = scores.astype(np.float64)
    mean = scores.mean()
    low = scores / mean <= threshold if mean else np.ones(len(scores), bool)
    return int(np.count_nonzero(low & eligible))


def lowest_of_all(
    scores: Mapping[str, np.ndarray],
    eligible: Mapping[str, np.ndarray],
    limits: Mapping[str, int],
    count: int,
) -> dict[str, np.ndarray]:
    """The filters of lowest score of all layers together.

    Args:
        scores: By layer name, `[filters]`, comparable between layers.
        eligible: By layer name, bool `[filters]`.
        limits: By layer name, how many it gives at most.
        count: How many in all, at most.

    Returns:
        By layer name, int64 indices, the lowest score first.
    """
    places = [(name, k) for name in scores for k in range(len(scores[name]))]
    left = dict(limits)
    chosen: dict[str, list[int]] = {name: [] for name in scores}
    for place in np.argsort(np.concatenate(list(scores.values())), kind="stable"):
        name, index = places[place]
        if count and left[name] and eligible[name][index]:
            chosen[name].append(index)
            left[name] -= 1
            count -= 1
    return {name: np.array(filters, np.int64) for name, filters in chosen.items()}


def normalized(scores: np.ndarray, by: str | None) -> np.ndarray:
    """A layer's scores, divided so that layers can be compared.

    Args:
        scores: `[filters]`.
        by: `"l2"`: their L2 norm; `"mean"`: the mean of their absolute values; else nothing.

    Returns:
        float64 `[filters]`.
    """
    scores = scores.astype(np.float64)
    divisor = {"l2": np.linalg.norm(scores), "mean": np.abs(scores).mean()}
    # Where it is zero, so are all scores.
    return scores / (divisor.get(by, 1.0) or 1.0)


def check_finite(name: str, scores: np.ndarray) -> None:
    """Checks that a layer's scores are numbers; ValueError."""
    not_finite = np.flatnonzero(~np.isfinite(scores))
    if not_finite.size:
        raise ValueError(
            f"{not_finite.size} of {len(scores)} scores of layer '{name}' are not finite "
            f"(filter {not_finite[0]}: {scores[not_finite[0]]}): training has diverged."
        )

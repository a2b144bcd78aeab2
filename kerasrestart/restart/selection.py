"""Which filters are restarted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def select_filters(
    scores: Mapping[str, np.ndarray], *, fraction: float = 0.1
) -> dict[str, np.ndarray]:
    """Selects the filters of lowest score, the same share of every layer.

    Of a layer of n filters exactly k = fraction * n are selected, rounded to the nearest (a half
    upwards); equal scores are taken in the order of their index. A layer of which k is none, being
    small, keeps all of its filters.

    Args:
        scores: By layer name, `[filters]`.
        fraction: Share of the filters of a layer, between 0 and 1, both excluded. Defaults to 0.1.

    Returns:
        By layer name, int64 `[k]`: indices in ascending order. Layers with none are left out.

    Raises:
        ValueError: `fraction` is out of range, selects no filter of any layer or all of one, or a
            score is not finite.
    """
    check_fraction(fraction, {name: len(of_layer) for name, of_layer in scores.items()})
    chosen = {}
    for name, of_layer in scores.items():
        of_layer = np.asarray(of_layer)
        not_finite = np.flatnonzero(~np.isfinite(of_layer))
        if not_finite.size:
            raise ValueError(
                f"{not_finite.size} of {len(of_layer)} scores of layer '{name}' are not finite "
                f"(filter {not_finite[0]}: {of_layer[not_finite[0]]}): training has diverged."
            )
        if count := filters_in(fraction, len(of_layer)):
            chosen[name] = np.sort(np.argsort(of_layer, kind="stable")[:count])
    return chosen


def filters_in(fraction: float, filters: int) -> int:
    """The number of filters that `fraction` means in a layer of `filters`."""
    return math.floor(fraction * filters + 0.5)


def check_fraction(fraction: float, filters: Mapping[str, int]) -> None:
    """Checks that `fraction` selects some filter, and not all of a layer.

    Args:
        fraction: As in `select_filters`.
        filters: By layer name, the number of filters.

    Raises:
        ValueError: It does not.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, both excluded. Received: {fraction}")
    for name, count in filters.items():
        if filters_in(fraction, count) == count:
            raise ValueError(
                f"fraction={fraction} selects all {count} filters of layer '{name}': "
                "lower it, so that some survive."
            )
    if not any(filters_in(fraction, count) for count in filters.values()):
        largest = max(filters, key=filters.__getitem__)
        raise ValueError(
            f"fraction={fraction} selects no filter of any layer (the largest, '{largest}', has "
            f"{filters[largest]}): raise it to {math.ceil(500 / filters[largest]) / 1000} or more."
        )

"""Selects filters by their scores, without a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kerasrestart.restart.selection import Selection


def select_filters(
    scores: Mapping[str, np.ndarray],
    *,
    fraction: float | None = None,
    threshold: float | None = None,
    scope: str = "layer",
    cap: float | None = None,
    normalize: str | None = None,
    layers: str | Sequence[str] | None = None,
    min_survivors: int = 1,
) -> dict[str, np.ndarray]:
    """Selects the filters of lowest score: a tenth of every layer, unless other rules are given.

    Args:
        scores: By layer name, `[filters]`.
        fraction: Share of the filters of a layer. This and all that follow: see `Selection`.
            Defaults to 0.1, where there is no threshold.
        threshold: Largest share of the layer's mean score, instead. Defaults to None.
        scope: `"layer"`, or `"global"`: the fraction is one of all layers together. Defaults to
            `"layer"`.
        cap: Largest share of one layer's filters, with a threshold or `scope="global"`. Defaults to
            0.5 with the latter.
        normalize: `"l2"`, `"mean"` or None: what makes layers comparable, with `scope="global"`.
            Defaults to None.
        layers: Names of the layers that take part, or a regular expression. Defaults to all.
        min_survivors: How many filters every layer keeps at least. Defaults to 1.

    Returns:
        By layer name, int64 `[k]`: indices in ascending order. Layers with none are left out.

    Raises:
        ValueError: As `Selection` and its methods `check` and `select` do.
    """
    return Selection(fraction, threshold, scope, cap, normalize, layers, min_survivors).select(
        scores
    )

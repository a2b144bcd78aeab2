"""Selects filters by a part or a function of the user's, and checks the result.

Readable without TensorFlow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasrestart.network.arguments import check
from kerasrestart.network.own_functions import check_function, naming
from kerasrestart.network.text import shown
from kerasrestart.restart.filter_indices import checked_filters
from kerasrestart.restart.select import Chosen, Excluded, Fraction, Scores

Select = Callable[..., Mapping[str, Any]]

_FORM = "Fraction, BelowMean, GlobalFraction or a function (scores) -> {layer: indices}"


def select_filters(
    scores: Scores, select: Select | None = None, *, fraction: float | None = None
) -> Chosen:
    """Selects filters by their scores, without training.

    Example:
    ```python
    scores = kerasrestart.score_filters(model, x, y)
    chosen = kerasrestart.select_filters(scores, fraction=0.1)
    chosen = kerasrestart.select_filters(scores, kerasrestart.BelowMean(0.1, cap=0.5))
    ```

    Args:
        scores: By layer, `[filters]`.
        select: `Fraction`, `BelowMean`, `GlobalFraction`, or a function of the scores that returns
            `{layer: indices}`. Defaults to None: `Fraction(fraction)`.
        fraction: The short form of `select=Fraction(fraction)`. Defaults to 0.1.

    Returns:
        By layer, int64 `[k]`: indices in ascending order. Layers with none are left out.

    Raises:
        ValueError: Both `select` and `fraction` are given; `scores` are something else, or not all
            finite; or the selection is not possible.
    """
    _check_scores(scores)
    if select is None:
        select = Fraction() if fraction is None else Fraction(fraction)
    elif fraction is not None:
        raise ValueError(
            "fraction is the short form of select=Fraction(...): one of them must be left out. "
            f"Received: fraction={fraction!r}, select={select!r}"
        )
    return choose(check_select(select), scores)


def _check_scores(scores: Any) -> None:
    expected = "{layer: scores of its filters}, with at least one layer"
    check("scores", scores, isinstance(scores, Mapping) and bool(scores), expected)
    for name, of_layer in scores.items():
        values = np.asarray(of_layer)
        is_list = values.ndim == 1 and np.issubdtype(values.dtype, np.number)
        if not (is_list and np.isfinite(values).all()):
            raise ValueError(
                f"The scores of {name!r} must be a list of finite numbers, one for each filter. "
                f"Received: {shown(of_layer)}"
            )


def check_select(select: Any) -> Select:
    """Checks that `select` can be called with scores; returns it.

    Raises:
        ValueError: It cannot.
    """
    named: dict[str, Excluded] = {"exclude": {}} if _sees_excluded(select) else {}
    check_function("select", select, _FORM, {}, **named)
    return select


def choose(select: Select, scores: Scores, exclude: Excluded | None = None) -> Chosen:
    """Calls a selection, and checks what it returns.

    Args:
        select: One of the classes here, or a function `scores -> {layer: indices}`. A function that
            has no argument `exclude` does not see it: excluded filters are removed from its result.
        scores: By layer, `[filters]`.
        exclude: As in `Fraction.__call__`.

    Returns:
        As `Fraction.__call__`.

    Raises:
        ValueError: The selection raised an error, which names the function where that is the
            user's; or it returned an unknown layer, an index out of range, an index twice, or all
            filters of a layer.
    """
    exclude = exclude or {}
    named = {"exclude": exclude} if _sees_excluded(select) else {}
    with naming("select", select):
        found = select(scores, **named)
    if not isinstance(found, Mapping):
        raise ValueError(f"select must return {{layer: indices}}. Received: {shown(found)}")
    chosen = {}
    for name, indices in found.items():
        if name not in scores:
            raise ValueError(
                f"select must return layers that have scores, of {list(scores)}. Received: {name!r}"
            )
        filters = checked_filters("The result of select", name, indices, len(scores[name]))
        chosen[name] = np.setdiff1d(filters, np.array(list(exclude.get(name, ())), np.int64))
    return {name: filters for name, filters in chosen.items() if len(filters)}


def _sees_excluded(select: Any) -> bool:
    try:
        return "exclude" in inspect.signature(select).parameters
    except (TypeError, ValueError):  # as of some functions written in C
        return False

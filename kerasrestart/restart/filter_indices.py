"""Checks indices of a layer's filters; readable without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasrestart.network.text import shown


def checked_filters(source: str, layer: str, indices: Any, count: int) -> np.ndarray:
    """Returns the indices of some of a layer's filters, in the order given.

    Args:
        source: Where they come from, such as the argument's name.
        layer: The name of the layer.
        indices: The indices; may be empty.
        count: How many filters the layer has.

    Returns:
        int64 `[k]`.

    Raises:
        ValueError: They are something else than indices of filters, each once, or are those of all.
    """
    filters = np.asarray(indices)
    received = shown(indices)
    is_list = filters.ndim == 1 and (not filters.size or np.issubdtype(filters.dtype, np.integer))
    if not is_list or (filters.size and not 0 <= filters.min() <= filters.max() < count):
        raise ValueError(
            f"{source} must have indices from 0 to {count - 1} for layer {layer!r}. "
            f"Received: {received}"
        )
    if len(np.unique(filters)) < len(filters):
        raise ValueError(
            f"{source} must have each filter of layer {layer!r} once. Received: {received}"
        )
    if len(filters) == count:
        raise ValueError(
            f"{source} must leave at least one of the {count} filters of layer {layer!r}. "
            f"Received: {received}"
        )
    return filters.astype(np.int64)

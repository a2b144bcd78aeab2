"""Gives chosen filters new weights, and leaves every other number of the model as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.names import OUTGOING
from kerasrestart.network.sites import Site, find_sites
from kerasrestart.restart import initializers, slots
from kerasrestart.restart.seeds import derive_seed


def restart_filters(
    model: keras.Model,
    chosen: Mapping[str, Sequence[int]],
    *,
    initializer: Any = "uniform",
    outgoing: str = "keep",
    seed: int = 0,
    sites: Mapping[str, Site] | None = None,
) -> None:
    """Re-initialises the chosen filters of a model in place.

    For each chosen filter: its incoming weights are drawn anew, its bias by the layer's own
    `bias_initializer`; its channel of the batch norm behind it, if that is trainable, becomes that
    of a new layer (gamma 1, beta 0, moving mean 0, moving variance 1); the optimizer's slots for
    just these numbers become those of a new weight. All else stays bit for bit. Nothing is changed
    if an argument is refused.

    Args:
        model: A built Functional or Sequential model. Its optimizer is looked after if it has one.
        chosen: By layer name, the indices of the filters, as `select_filters` gives them.
        initializer: See `kerasrestart.restart.initializers.get`. Defaults to `"uniform"`.
        outgoing: What becomes of the weights by which the next layer reads a restarted filter:
            `"keep"` (the paper's). Defaults to `"keep"`.
        seed: The new weights are a function of the seed and of which layer it is in the model: a
            second restart needs another seed to draw others. Defaults to 0.
        sites: The model's sites, where they are known already. Defaults to `find_sites(model)`.

    Raises:
        ValueError: A layer, index, initializer or `outgoing` is not known, a layer would lose all
            of its filters, or the optimizer's slots are not known.
        TypeError: The model has no graph.
    """
    sites = find_sites(model) if sites is None else sites
    check_outgoing(outgoing)
    rule = initializers.get(initializer)
    chosen = {name: _checked(sites, name, filters) for name, filters in chosen.items()}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        slots.check_slots(optimizer)
    if rule is None:
        return
    # All is drawn before anything is replaced, so that a rule that fails leaves the model whole.
    replacements = [
        replacement
        for number, (name, site) in enumerate(sites.items())
        if len(chosen.get(name, ()))
        for replacement in _draw(site, chosen[name], rule, derive_seed(seed, number))
    ]
    for variable, new, mask in replacements:
        _replace(variable, new, mask)
        for slot, fresh in slots.slots_of(optimizer, variable):
            _replace(slot, slots.fresh_value(fresh, slot, new), mask)


def check_outgoing(outgoing: str) -> None:
    """Checks the name of an outgoing rule; raises ValueError if it is not known."""
    if outgoing not in OUTGOING:
        raise ValueError(f"outgoing must be one of {list(OUTGOING)}. Received: {outgoing!r}")


def _checked(sites: Mapping[str, Site], name: str, filters: Sequence[int]) -> np.ndarray:
    if name not in sites:
        raise ValueError(
            f"No filters to restart in a layer '{name}'. Expected one of {list(sites)}."
        )
    filters, count = np.asarray(filters), sites[name].filters
    if not filters.size:
        return np.zeros(0, int)
    if filters.ndim != 1 or not np.issubdtype(filters.dtype, np.integer):
        raise ValueError(f"The filters of '{name}' must be a list of indices. Received: {filters}")
    if not 0 <= filters.min() <= filters.max() < count:
        raise ValueError(f"The filters of '{name}' lie in 0 to {count - 1}. Received: {filters}")
    if len(set(filters.tolist())) == count:
        raise ValueError(f"All {count} filters of '{name}' are chosen: some must survive.")
    return filters


def _draw(
    site: Site, filters: np.ndarray, rule: initializers.Rule, seed: int
) -> Iterator[tuple[keras.Variable, tf.Tensor, np.ndarray]]:
    """Yields each variable of a site with new values for it, and the mask of those to take."""
    layer, norm, axis = site.layer, site.norm, site.filter_axis
    vector_mask = np.zeros(site.filters, bool)
    vector_mask[filters] = True
    kernel = layer.kernel
    shape = [1] * len(kernel.shape)
    shape[axis] = site.filters
    yield kernel, rule(kernel.value, axis, derive_seed(seed, 0)), vector_mask.reshape(shape)
    if layer.bias is not None:
        bias_rule = initializers.from_keras(layer.bias_initializer)
        yield layer.bias, bias_rule(layer.bias.value, -1, derive_seed(seed, 1)), vector_mask
    if norm is not None and norm.trainable:
        for variable, fresh in (
            (norm.gamma, 1.0),
            (norm.beta, 0.0),
            (norm.moving_mean, 0.0),
            (norm.moving_variance, 1.0),
        ):
            if variable is not None:  # a norm without scale or centre
                yield variable, tf.fill(variable.shape, fresh), vector_mask


def _replace(variable: keras.Variable, new: tf.Tensor, mask: np.ndarray) -> None:
    """Assigns the values of `new` that lie in the mask; the rest stays bit for bit."""
    variable.assign(tf.where(mask, tf.cast(new, variable.dtype), variable.value))

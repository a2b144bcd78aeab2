"""Draws new weights for chosen filters, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayer, FilterLayers
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.restart import initializers
from kerasrestart.restart.checked_draw import checked_draw
from kerasrestart.restart.initializer_names import describe
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.norms import starts_at_zero
from kerasrestart.restart.writing import Replacement, constrained


def layer_seeds(found: FilterLayers, seed: int) -> dict[int, int]:
    """Returns the seed of each layer with filters, by its place in the whole model."""
    first_calls = (call.operation for call in found.graph.calls if call.occurrence == 0)
    with_filters = (layer for layer in first_calls if isinstance(layer, WITH_FILTERS))
    return {id(layer): derive_seed(seed, place) for place, layer in enumerate(with_filters)}


def draw(
    filter_layer: FilterLayer,
    filters: np.ndarray,
    rule: initializers.Rule,
    name: str,
    seed: int,
    trained: set[int],
) -> Iterator[Replacement]:
    """Yields the new kernel of a layer, and its bias if that trains.

    Args:
        filter_layer: The layer.
        filters: The filters that get new weights.
        rule: The rule of the initializer.
        name: The name of the initializer, for errors.
        seed: The seed of the layer.
        trained: The `id` of each variable that trains.
    """
    layer = filter_layer.layer
    kernel = tf.convert_to_tensor(kernels.incoming_kernel(layer).value)
    yield _draw_kernel(filter_layer, kernels.by_filter(layer, kernel), filters, rule, name, seed)
    if layer.bias is not None and id(layer.bias) in trained:
        chosen = chosen_mask(filter_layer, filters)
        new = checked_draw(
            initializers.from_keras(layer.bias_initializer),
            tf.convert_to_tensor(layer.bias.value),
            -1,
            derive_seed(seed, 1),
            chosen,
            argument="bias_initializer",
            initializer=describe(layer.bias_initializer),
            layer=filter_layer.name,
        )
        yield Replacement(layer.bias, new, chosen)


def _draw_kernel(
    filter_layer: FilterLayer,
    old: tf.Tensor,
    filters: np.ndarray,
    rule: initializers.Rule,
    name: str,
    seed: int,
) -> Replacement:
    """Draws the kernel of a layer by a rule and the name of its initializer.

    `old` is the present kernel, with an axis of filters.
    """
    kernel = kernels.incoming_kernel(filter_layer.layer)
    chosen = chosen_mask(filter_layer, filters)
    if isinstance(rule, initializers.Own):
        rule = rule.of_layer(filter_layer.layer)
    new = checked_draw(
        rule,
        old,
        filter_layer.filter_axis,
        derive_seed(seed, 0),
        chosen,
        argument="initializer",
        initializer=name,
        layer=filter_layer.name,
    )
    return Replacement(kernel, tf.reshape(new, kernel.shape), filter_mask(filter_layer, filters))


def check_draws(
    filter_layers: Iterable[FilterLayer], initializer: Any, *, outgoing: str, norms: bool
) -> None:
    """Draws half of the filters of each layer as a trial and drops them.

    The trial uses made-up weights: the present ones may be zero, but not when a restart comes.
    Layers with kernels of the same shape are tried once; layers of one filter are never restarted.

    Args:
        filter_layers: The layers to draw for.
        initializer: As in `restart_filters`.
        outgoing: As in `restart_filters`.
        norms: As in `restart_filters`.

    Raises:
        ValueError: The initializer cannot draw for such a layer; or with `outgoing="zero"` it draws
            zeros, or a norm begins with zeros.
    """
    rule, name = initializers.get(initializer), describe(initializer)
    tried = set()
    for filter_layer in filter_layers:
        if outgoing == "zero" and norms and filter_layer.norm is not None:
            check_norm(filter_layer.name, filter_layer.norm)
        kernel = kernels.incoming_kernel(filter_layer.layer)
        layout = type(filter_layer.layer), tuple(kernel.shape), kernel.value.dtype
        # `Own` draws by another rule in each layer.
        if filter_layer.filters < 2 or (layout in tried and not isinstance(rule, initializers.Own)):
            continue
        tried.add(layout)
        made_up = tf.random.stateless_normal(kernel.shape, (0, 0), 0, 0.1, kernel.value.dtype)
        filters = np.arange(filter_layer.filters // 2)
        by_filter = kernels.by_filter(filter_layer.layer, made_up)
        drawn = _draw_kernel(filter_layer, by_filter, filters, rule, name, 0)
        if outgoing == "zero":
            check_alive(filter_layer.name, drawn)


def check_alive(key: str, drawn: Replacement) -> None:
    """Refuses new incoming weights that are all zero, also by the kernel's constraint."""
    kernel, new, mask = drawn
    mask = np.broadcast_to(mask, kernel.shape)
    new = constrained(kernel, tf.where(mask, new, tf.cast(kernel.value, new.dtype)), mask)
    if not np.asarray(new)[mask].any():
        raise ValueError(
            f"The new weights of '{key}' are all zero, and so would its outgoing weights be: its "
            "filters would never learn again. initializer must be another, or outgoing='keep'. "
            "Received: weights of zero"
        )


def check_norm(key: str, norm: keras.Layer) -> None:
    """Refuses a norm of new filters that begins with a scale and shift of zero."""
    if starts_at_zero(norm):
        raise ValueError(
            f"The norm '{norm.name}' gives zeros for new filters of '{key}', and their outgoing "
            "weights would be zero, too: they would never learn again. gamma_initializer must be "
            "another, or outgoing='keep', or norms=False. Received: gamma_initializer='zeros'"
        )


def filter_mask(filter_layer: FilterLayer, filters: np.ndarray) -> np.ndarray:
    """Returns the bool mask of some filters' weights, broadcastable to the incoming kernel."""
    return kernels.filter_mask(filter_layer.layer, filters)


def chosen_mask(filter_layer: FilterLayer, filters: np.ndarray) -> np.ndarray:
    """Returns bool `[filters]`, true for some filters."""
    chosen = np.zeros(filter_layer.filters, bool)
    chosen[filters] = True
    return chosen

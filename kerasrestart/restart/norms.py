"""Resets the channels of the norms that restarted filters pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.network.paths import Path
from kerasrestart.restart import initializers
from kerasrestart.restart.checked_draw import checked_draw
from kerasrestart.restart.initializer_names import describe
from kerasrestart.restart.initializers import derive_seed

# The variables of a norm with one number per channel: which of its initializers each starts from,
# and whether from the square root of what that draws.
CHANNEL_VARIABLES = {
    "gamma": ("gamma_initializer", False),
    "beta": ("beta_initializer", False),
    "moving_mean": ("moving_mean_initializer", False),
    "moving_variance": ("moving_variance_initializer", False),
    # Of BatchNormalization(renorm=True).
    "moving_stddev": ("moving_variance_initializer", True),
    "renorm_mean": ("moving_mean_initializer", False),
    "renorm_stddev": ("moving_variance_initializer", True),
}


def norm_channels(
    filter_layer: FilterLayer, filters: np.ndarray, path: Path
) -> list[tuple[layers.Layer, Sequence[int]]]:
    """Returns the norms that filters pass unmixed, each with the filters' channels in it.

    These are the norm that belongs to the layer, and the batch norms further on, such as those
    after the concatenations of a dense block. After a sum, batch norms hold channels that belong
    to other filters too, and are left out.

    Args:
        filter_layer: The layer.
        filters: Indices of its filters.
        path: Where their channels go.
    """
    places: dict[int, tuple[layers.Layer, Any]] = {}
    if filter_layer.norm is not None:
        places[id(filter_layer.norm)] = filter_layer.norm, filters
    if not path.shared_with:
        for reader in path.norms:
            places[id(reader.layer)] = reader.layer, list(reader.channels)
    return list(places.values())


def channel_values(
    norm: layers.Layer, channels: Sequence[int], seed: int
) -> Iterator[tuple[keras.Variable, tf.Tensor, np.ndarray]]:
    """Yields the variables of a norm that train, with their initial values.

    Moving statistics count as training if the norm does: a frozen batch norm uses them as they are.

    Args:
        norm: A norm of `kerasrestart.network.operations.NORMS`.
        channels: The channels to reset.
        seed: Seed of the norm's own initializers, for those that draw.

    Yields:
        A variable, its initial value, and the bool mask of the channels.
    """
    if not norm.trainable:
        return
    for number, (name, (initializer_name, is_root)) in enumerate(CHANNEL_VARIABLES.items()):
        variable = getattr(norm, name, None)
        if variable is None:  # a norm without scale, centre or moving statistics
            continue
        if name in ("gamma", "beta") and not variable.trainable:
            continue
        mask = np.zeros(variable.shape, bool)
        mask[channels] = True
        rule = initializers.from_keras(getattr(norm, initializer_name))
        initial = checked_draw(
            rule,
            tf.convert_to_tensor(variable.value),
            -1,
            derive_seed(seed, number),
            mask,
            argument=initializer_name,
            initializer=describe(getattr(norm, initializer_name)),
            layer=norm.name,
        )
        yield variable, tf.sqrt(initial) if is_root else initial, mask


def starts_at_zero(norm: layers.Layer) -> bool:
    """Whether a norm gives zeros for channels that were reset."""
    new = {id(v): np.asarray(value)[:1] for v, value, _ in channel_values(norm, [0], 0)}
    scale, shift = (new.get(id(getattr(norm, name, None))) for name in ("gamma", "beta"))
    return scale is not None and not scale.any() and (shift is None or not shift.any())


def other_variables(norm: layers.Layer) -> list[keras.Variable]:
    """Returns the variables of a norm with one number per channel that a restart does not know."""
    known = [getattr(norm, name, None) for name in CHANNEL_VARIABLES]
    sizes = {tuple(v.shape) for v in known if v is not None}
    return [v for v in norm.weights if tuple(v.shape) in sizes and all(v is not k for k in known)]

"""Draws new weights, and checks that they can be written."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kerasrestart.network.own_functions import naming
from kerasrestart.restart.initializers import Rule


def checked_draw(
    rule: Rule,
    old: tf.Tensor,
    axis: int,
    seed: int,
    chosen: np.ndarray,
    *,
    argument: str,
    initializer: str,
    layer: str,
) -> tf.Tensor:
    """Draws by a rule.

    Args:
        rule: The rule of the initializer.
        old: The present weights.
        axis: The axis of the filters in them.
        seed: The seed.
        chosen: bool `[filters]`: the new weights of the others are not used.
        argument: The argument that takes the initializer, for errors.
        initializer: The name of the initializer, for errors.
        layer: The name of the layer, for errors.

    Returns:
        New weights of the shape and dtype of `old`.

    Raises:
        ValueError: The rule raised an error, or what it drew has another shape, is not a number, or
            not finite.
    """
    received = f"{initializer} for layer {layer!r}"
    with naming(argument, received):
        drawn = rule(old, axis, seed, chosen)
    if drawn.shape != old.shape or not (drawn.dtype.is_floating or drawn.dtype.is_integer):
        raise ValueError(
            f"{argument} must draw numbers of shape {old.shape}. Received: {received}, which drew "
            f"{drawn.dtype.name} of shape {drawn.shape}"
        )
    drawn = tf.cast(drawn, old.dtype)
    # In NumPy, which takes a tenth of the time of TensorFlow's mask for the small weights of norms.
    new = np.compress(chosen, drawn.numpy(), axis=axis).astype(np.float64)
    if not np.isfinite(new).all():
        raise ValueError(
            f"{argument} must draw finite numbers. Received: {received}, which drew "
            f"{new[~np.isfinite(new)][0]}"
        )
    return drawn

"""What is computed from a feature map: the saliency of each filter for each example."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Criterion = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]


def taylor(feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int) -> tf.Tensor:
    """First-order Taylor criterion, before it is averaged.

    The change of the cost when a feature map is set to zero, to first order: |sum of z * dC/dz|
    over its positions. The absolute value is taken for each example, once all positions are summed.
    Division by the number of positions and the mean over examples are left to the caller.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference" (ICLR 2017), equation 8; criterion of "Partial Restart of Neural Network".

    Args:
        feature_map: z, float `[batch, ..., filters]`, or channels first.
        gradient: Gradient of a loss by z, same shape and dtype.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`, in units of the loss.
    """
    product = tf.cast(feature_map, tf.float32) * tf.cast(gradient, tf.float32)
    channel_axis %= product.shape.rank
    positions = [axis for axis in range(1, product.shape.rank) if axis != channel_axis]
    return tf.abs(tf.reduce_sum(product, axis=positions))


CRITERIA: dict[str, Criterion] = {"taylor": taylor}


def get(criterion: str | Criterion) -> Criterion:
    """Returns the criterion of that name, or `criterion` itself if it is a function.

    Args:
        criterion: A name in `CRITERIA`, or a function `(feature_map, gradient, channel_axis) ->
            [batch, filters]` as `taylor` is: float32, not negative, linear in the gradient.

    Raises:
        ValueError: The name is not known.
    """
    if callable(criterion):
        return criterion
    if criterion not in CRITERIA:
        raise ValueError(
            f"Unknown criterion: {criterion!r}. Expected one of {sorted(CRITERIA)} or a function."
        )
    return CRITERIA[criterion]

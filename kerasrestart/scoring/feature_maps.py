"""Sums over the positions of feature maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

SUMS = ("Add", "AddV2", "AddN")


def positions_of(output: tf.Tensor, channel_axis: int) -> int | tf.Tensor:
    """Number of positions of a feature map, known when traced wherever the shape is."""
    axes = position_axes(output.shape.rank, channel_axis)
    if all(output.shape[axis] is not None for axis in axes):
        return int(np.prod([output.shape[axis] for axis in axes]))
    return tf.cast(tf.reduce_prod(tf.gather(tf.shape(output), axes)), tf.float32)


def position_axes(rank: int, channel_axis: int) -> list[int]:
    """All axes but those of the examples and of the channels."""
    return [axis for axis in range(1, rank) if axis != channel_axis % rank]


def over_positions(values: tf.Tensor, channel_axis: int) -> tf.Tensor:
    """Sums over positions: `[batch, channels]`."""
    return tf.reduce_sum(values, axis=position_axes(values.shape.rank, channel_axis))


def product_sums(feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int) -> tf.Tensor:
    """Sums of z * dC/dz over positions, without a second reader of a z that is a sum.

    TensorFlow's graph optimizer merges the nodes of a sum of sums, such as the shift of a batch
    norm and the addition of a shortcut behind it, where each partial sum has one reader. With a
    second reader the sum is associated otherwise, and weights come out different in their last
    bits. So the terms of such a z are multiplied by the gradient one by one.

    Args:
        feature_map: z, float `[batch, ..., channels]`, or channels first.
        gradient: Its gradient, same shape and dtype.
        channel_axis: The axis of the channels.

    Returns:
        float32 `[batch, channels]`.
    """
    gradient = tf.cast(gradient, tf.float32)
    channels = feature_map.shape[channel_axis]
    parts, over_gradient = [], None
    for term in _terms(feature_map):
        whole = term is feature_map
        term = tf.cast(term, tf.float32)
        if not whole and term.shape.num_elements() == channels:
            # One number for each channel.
            if over_gradient is None:
                over_gradient = over_positions(gradient, channel_axis)
            parts.append(tf.reshape(term, [channels]) * over_gradient)
        else:
            parts.append(over_positions(term * gradient, channel_axis))
    return parts[0] if len(parts) == 1 else tf.add_n(parts)


def _terms(tensor: tf.Tensor) -> Iterator[tf.Tensor]:
    """The terms of a sum in a graph; the tensor itself where it is none."""
    source = tensor
    while tf.is_symbolic_tensor(source) and source.op.type == "Identity":
        source = source.op.inputs[0]  # such as another probe
    if tf.is_symbolic_tensor(source) and source.op.type in SUMS:
        for term in source.op.inputs:
            yield from _terms(term)
    else:
        yield tensor

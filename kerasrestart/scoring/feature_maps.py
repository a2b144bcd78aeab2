"""Sums over the positions of feature maps."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


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


def unshared(tensor: tf.Tensor) -> tf.Tensor:
    """The values of a tensor, without a second reader of one that is a sum.

    TensorFlow's graph optimizer merges the nodes of a sum of sums, such as the shift of a batch
    norm and the addition of a shortcut behind it, where each partial sum has one reader. With a
    second reader it associates the sum otherwise, and weights come out different in their last
    bits. So the sum is computed once more, by an operation that is not merged with the first.
    """
    source = tensor
    while tf.is_symbolic_tensor(source) and source.op.type == "Identity":
        source = source.op.inputs[0]  # such as another probe
    if not tf.is_symbolic_tensor(source) or source.op.type not in ("Add", "AddV2"):
        return tensor
    terms = sorted(source.op.inputs, key=lambda term: -term.shape.rank)
    if terms[0].shape.rank != source.shape.rank:
        return tensor
    channels = terms[1].shape.num_elements()
    if terms[1].shape.is_compatible_with(terms[0].shape) and terms[1].shape.rank:
        return tf.add_n(terms)
    last_axes = (terms[1].shape[-1:].as_list(), source.shape[-1:].as_list())
    if last_axes[0] == last_axes[1] == [channels]:
        return tf.nn.bias_add(terms[0], tf.reshape(terms[1], [channels]))
    return tensor

"""Sums over the positions of feature maps."""

from __future__ import annotations

import functools

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
    """Sums over positions: `[batch, channels]`.

    Args:
        values: float32 `[batch, ..., channels]`, or channels first.
        channel_axis: The axis of the channels.
    """
    axes = position_axes(values.shape.rank, channel_axis)
    positions = positions_of(values, channel_axis)
    channels = values.shape[-1]
    last = channel_axis % values.shape.rank == values.shape.rank - 1
    block = _block(positions) if isinstance(positions, int) else 1
    if block < 8 or not (last and channels and _only_cpus()):
        return tf.reduce_sum(values, axis=axes)
    # On a CPU a sum over axes in the middle is slow, and a pooling takes as little as half of its
    # time. A pooling adds numbers one by one, which loses bits of long sums: hence the blocks.
    blocks = tf.reshape(values, [-1, positions // block, block, channels])
    means = tf.nn.avg_pool2d(blocks, (1, block), strides=1, padding="VALID")
    return tf.reduce_sum(means, axis=[1, 2]) * block


def _block(positions: int) -> int:
    """The largest divisor of a number of positions up to 256."""
    return next(size for size in range(min(positions, 256), 0, -1) if positions % size == 0)


@functools.cache
def _only_cpus() -> bool:
    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())

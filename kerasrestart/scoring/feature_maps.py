"""Sums over the positions of feature maps."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

SUMS = ("Add", "AddV2", "AddN")
PRODUCTS = ("Mul",)
IDENTITIES = ("Identity", "IdentityN")
RELU_GRADIENTS = ("ReluGrad", "Relu6Grad")


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


def unshared(
    tensor: tf.Tensor, passed_on: tf.Tensor, gradient: tf.Tensor | None = None
) -> tf.Tensor:
    """The values of a feature map for the score, without a second reader where that has a price.

    A ReLU that alone reads the map can overwrite it, and its own output is needed for the backward
    pass in any case. Where the gradient comes from such a ReLU, that output is returned: the
    product with the gradient is the same, since the gradient is 0 wherever the two differ.

    TensorFlow's graph optimizer merges the nodes of a sum of sums, such as the shift of a batch
    norm and the addition of a shortcut behind it, where each partial sum has one reader; and those
    of a product of products, such as a swish and the scale of the dropout behind it. With a second
    reader it associates them otherwise, and weights come out different in their last bits. So such
    a sum or product is computed once more, by an operation that is not merged with the first.

    Args:
        tensor: The feature map.
        passed_on: The same values, as the network reads them.
        gradient: The gradient by them. Defaults to None: there is none.
    """
    if (activated := _activated(passed_on, gradient)) is not None:
        return activated
    source = source_of(tensor)
    if is_made_by(source, PRODUCTS) and _goes_into(passed_on, PRODUCTS):
        return tf.math.multiply_no_nan(*source.op.inputs)
    if not is_made_by(source, SUMS) or not _goes_into(passed_on, SUMS):
        return tensor
    if len(source.op.inputs) != 2:
        return tensor
    large, small = sorted(source.op.inputs, key=lambda term: -(term.shape.rank or 0))
    if large.shape.rank and large.shape.as_list() == small.shape.as_list():
        return tf.add_n([large, small])
    channels = small.shape.num_elements()
    if channels and small.shape[-1] == large.shape[-1] == channels:
        return tf.nn.bias_add(large, tf.reshape(small, [channels]))
    return tensor


def _activated(tensor: tf.Tensor, gradient: tf.Tensor | None) -> tf.Tensor | None:
    """The output of the ReLU through which all of the gradient by a tensor comes, if any."""
    if gradient is None or not is_made_by(gradient, RELU_GRADIENTS):
        return None
    activated = gradient.op.inputs[1]
    return activated if source_of(activated.op.inputs[0]) is source_of(tensor) else None


def source_of(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind any identities, such as other probes and functions' own gradients."""
    while tf.is_symbolic_tensor(tensor) and tensor.op.type in IDENTITIES:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def is_made_by(tensor: tf.Tensor, types: tuple[str, ...]) -> bool:
    """Whether an operation of one of the types makes a tensor; never in eager execution."""
    return tf.is_symbolic_tensor(tensor) and tensor.op.type in types


def _goes_into(tensor: tf.Tensor, types: tuple[str, ...]) -> bool:
    """Whether an operation of one of the types reads a tensor, also behind identities."""
    if not tf.is_symbolic_tensor(tensor):
        return False
    return any(
        reader.type in types or (reader.type == "Identity" and _goes_into(reader.outputs[0], types))
        for reader in tensor.consumers()
    )

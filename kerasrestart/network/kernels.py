"""How each kind of layer lays out its kernel: by filter, and by what it reads.

A filter's incoming weights are a part of its own layer's kernel; its outgoing weights are the parts
of other layers' kernels that read its channel. Masks say which numbers of a kernel these are.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Layers with filters that slide over positions; dense layers have units.
CONVOLUTIONAL = CONVOLUTIONS + TRANSPOSED + DEPTHWISE + SEPARABLE
UNITS = (layers.Dense, layers.EinsumDense)
WITH_FILTERS = (*CONVOLUTIONAL, *UNITS)


def filters_of(layer: layers.Layer) -> int:
    """Number of filters, or of units, of a built layer."""
    if isinstance(layer, DEPTHWISE):
        return layer.kernel.shape[-2] * layer.kernel.shape[-1]
    return layer.kernel.shape[-1] if isinstance(layer, UNITS) else layer.filters


def is_dense(layer: layers.Layer) -> bool:
    """Whether a layer has a kernel of `[inputs, units]` that maps the last axis of its input."""
    if isinstance(layer, layers.EinsumDense):
        operands, _, result = layer.equation.replace(" ", "").partition("->")
        given, _, kernel = operands.partition(",")
        bias = layer.bias_axes or kernel[-1:]
        return (
            len(kernel) == 2
            and (given[-1:], result[-1:], bias) == (kernel[0], kernel[1], kernel[1])
            and given[:-1] == result[:-1]
        )
    return isinstance(layer, layers.Dense)


def reads_alone(layer: layers.Layer) -> bool:
    """Whether each filter of a built layer reads one channel, as in a depthwise convolution.

    A convolution with as many groups as channels does so, too.
    """
    grouped = getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] == 1
    return isinstance(layer, DEPTHWISE) or grouped


def filters_that_read(layer: layers.Layer, channels: Sequence[int]) -> np.ndarray:
    """The filters that read some channels, of a layer whose filters read one channel each."""
    of_each = filters_of(layer) // channels_of(layer)
    return (np.asarray(channels, int)[:, None] * of_each + np.arange(of_each)).ravel()


def channel_axis_of(layer: layers.Layer) -> int:
    """Axis of the layer's output along which its filters lie."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def filter_axis_of(layer: layers.Layer) -> int:
    """Axis of the kernel, as `by_filter` gives it, along which the filters lie."""
    return -2 if isinstance(layer, TRANSPOSED) else -1


def incoming_kernel(layer: layers.Layer) -> keras.Variable:
    """The kernel that holds the weights of each filter.

    Of a separable convolution this is the pointwise one: all filters share the depthwise.
    """
    return layer.pointwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel


def by_filter(layer: layers.Layer, kernel: tf.Tensor) -> tf.Tensor:
    """The incoming kernel with an axis of filters, whose other axes are the weights of one filter.

    It is the kernel itself, except that of a depthwise convolution: there a filter reads one
    channel, so `[..., channels, multiplier]` becomes `[..., 1, channels * multiplier]`.
    """
    if not isinstance(layer, DEPTHWISE):
        return kernel
    return tf.reshape(kernel, (*kernel.shape[:-2], 1, filters_of(layer)))


def reading_kernel(layer: layers.Layer) -> keras.Variable:
    """The kernel that reads the layer's input, channel by channel."""
    return layer.depthwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel


def filter_mask(layer: layers.Layer, filters: np.ndarray) -> np.ndarray:
    """Marks the incoming weights of some filters.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        filters: Indices of filters.

    Returns:
        bool, broadcasts against `incoming_kernel(layer)`.
    """
    chosen = np.zeros(filters_of(layer), bool)
    chosen[filters] = True
    shape = [1] * len(incoming_kernel(layer).shape)
    if isinstance(layer, DEPTHWISE):
        shape[-2:] = layer.kernel.shape[-2:]  # filter c * multiplier + m reads channel c
    else:
        shape[filter_axis_of(layer)] = -1
    return chosen.reshape(shape)


def reading_mask(layer: layers.Layer, channels: np.ndarray) -> np.ndarray:
    """Marks the weights that read some channels of a layer's input.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        channels: Indices of channels of its input (of features, for a dense layer).

    Returns:
        bool, broadcasts against `reading_kernel(layer)`.
    """
    chosen = np.zeros(channels_of(layer), bool)
    chosen[channels] = True
    return by_channel(layer, chosen)


def channels_of(layer: layers.Layer) -> int:
    """Number of channels that a built layer reads; of features, for a dense layer."""
    axis = -1 if isinstance(layer, TRANSPOSED) else -2
    return reading_kernel(layer).shape[axis] * getattr(layer, "groups", 1)


def by_channel(layer: layers.Layer, values: np.ndarray) -> np.ndarray:
    """Lays out one number for each channel of a layer's input like the weights that read it.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        values: `[channels]`, of any dtype.

    Returns:
        The numbers; they broadcast against `reading_kernel(layer)`.
    """
    kernel = reading_kernel(layer)
    groups = getattr(layer, "groups", 1)
    shape = [1] * len(kernel.shape)
    if groups == 1:
        shape[-1 if isinstance(layer, TRANSPOSED) else -2] = -1
        return values.reshape(shape)
    # A grouped kernel is [..., channels of a group, filters]; a group reads its own channels only.
    shape[-2:] = kernel.shape[-2:]
    return np.repeat(values.reshape(groups, -1), shape[-1] // groups, axis=0).T.reshape(shape)


def response_to_means(layer: layers.Layer, means: np.ndarray) -> np.ndarray:
    """What a layer adds to each of its filters for an input that is constant in each channel.

    Exact where the whole kernel lies on the input: not at the border of a padded one. A transposed
    convolution spreads its kernel over as many positions as it has strides, and this is their mean.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        means: `[channels]`: the input.

    Returns:
        float64 `[filters]`, without the bias.
    """
    kernel = np.asarray(reading_kernel(layer).value, np.float64)
    weighted = kernel * by_channel(layer, np.asarray(means, np.float64))
    summed = weighted.sum(axis=tuple(range(kernel.ndim - 2)))  # over the positions
    if isinstance(layer, DEPTHWISE):
        return summed.reshape(-1)
    if isinstance(layer, SEPARABLE):
        pointwise = np.asarray(layer.pointwise_kernel.value, np.float64)
        return summed.reshape(-1) @ pointwise.reshape(-1, pointwise.shape[-1])
    if isinstance(layer, TRANSPOSED):
        return summed.sum(axis=-1) / np.prod(layer.strides)
    return summed.sum(axis=-2)


def sums_by_channel(layer: layers.Layer, values: tf.Tensor) -> tf.Tensor:
    """Sums numbers that lie like the reading kernel over all weights that read one channel.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        values: A tensor of the shape of `reading_kernel(layer)`.

    Returns:
        `[channels]`: a number for each channel of the layer's input.
    """
    matrix = tf.reduce_sum(values, axis=list(range(values.shape.rank - 2)))
    if isinstance(layer, TRANSPOSED):
        return tf.reduce_sum(matrix, axis=0)
    groups = getattr(layer, "groups", 1)
    by_group = tf.reshape(matrix, (matrix.shape[0], groups, -1))
    return tf.reshape(tf.transpose(tf.reduce_sum(by_group, axis=-1)), (-1,))

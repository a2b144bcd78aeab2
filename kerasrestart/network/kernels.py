"""How each kind of layer lays out its kernel: by filter, and by what it reads.

A filter's incoming weights are a part of its own layer's kernel; its outgoing weights are the parts
of other layers' kernels that read its channel. Masks say which numbers of a kernel these are.
"""

from __future__ import annotations

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
WITH_FILTERS = (*CONVOLUTIONAL, layers.Dense)


def filters_of(layer: layers.Layer) -> int:
    """Number of filters, or of units, of a built layer."""
    if isinstance(layer, DEPTHWISE):
        return layer.kernel.shape[-2] * layer.kernel.shape[-1]
    return layer.units if isinstance(layer, layers.Dense) else layer.filters


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

    It is the kernel itself but for depthwise convolutions: a filter of theirs reads one channel, so
    `[..., channels, multiplier]` becomes `[..., 1, channels * multiplier]`.
    """
    if not isinstance(layer, DEPTHWISE):
        return kernel
    return tf.reshape(kernel, (*kernel.shape[:-2], 1, filters_of(layer)))


def reading_kernel(layer: layers.Layer) -> keras.Variable:
    """The kernel that reads the layer's input, channel by channel."""
    return layer.depthwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel


def filter_mask(layer: layers.Layer, filters: np.ndarray) -> np.ndarray:
    """Says which incoming weights are those of some filters.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        filters: Indices of filters.

    Returns:
        bool, to be broadcast against `incoming_kernel(layer)`.
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
    """Says which weights read some channels of a layer's input.

    Args:
        layer: A built layer of `WITH_FILTERS`.
        channels: Indices of channels of its input (of features, for a dense layer).

    Returns:
        bool, to be broadcast against `reading_kernel(layer)`.
    """
    kernel = reading_kernel(layer)
    groups = getattr(layer, "groups", 1)
    axis = -1 if isinstance(layer, TRANSPOSED) else -2
    if groups == 1:
        chosen = np.zeros(kernel.shape[axis], bool)
        chosen[channels] = True
        shape = [1] * len(kernel.shape)
        shape[axis] = -1
        return chosen.reshape(shape)
    # A grouped kernel is [..., channels of a group, filters]; a group reads its own channels only.
    of_group, filters = kernel.shape[-2:]
    chosen = np.zeros((groups, of_group), bool)
    chosen.reshape(-1)[channels] = True
    by_filter = np.repeat(chosen, filters // groups, axis=0).T
    return by_filter.reshape([1] * (len(kernel.shape) - 2) + [of_group, filters])

"""What kinds of Keras layers do to the channels that pass through them."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import layers

from kerasrestart.network.keras_internals import layers_inside
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.raw_operations import RawOperation

ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
MERGING = (
    *(layers.Add, layers.Subtract, layers.Multiply),
    *(layers.Average, layers.Maximum, layers.Minimum),
)


def _of_each_rank(*kinds: str) -> tuple[type[layers.Layer], ...]:
    names = [f"{kind}{rank}D" for kind in kinds for rank in (1, 2, 3)]
    return tuple(getattr(layers, name) for name in names if hasattr(layers, name))


# Maps of each channel by itself, positively homogeneous of degree one (f(ax) = a f(x), a > 0),
# that leave fewer elements ...
SHRINKING = _of_each_rank(
    *("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling", "Cropping")
)
# ... and those that do not.
HOMOGENEOUS = (
    *SHRINKING,
    layers.Dropout,
    *_of_each_rank("SpatialDropout", "ZeroPadding", "UpSampling"),
    # Of newer Keras; may leave fewer elements or more.
    *_of_each_rank("AdaptiveAveragePooling", "AdaptiveMaxPooling"),
)
# Those that treat all axes alike.
ELEMENTWISE = (
    *ACTIVATIONS,
    *(layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout),
    *(layers.Identity, layers.Rescaling, layers.ActivityRegularization),
)
# All layers that leave each channel by itself, and in its place, except batch norms.
CHANNELWISE = (*HOMOGENEOUS, *ELEMENTWISE)
LAST = -1  # the channel axis, where it is not 1, the first after the batch
NORMS = (layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization)
# Layers with weights that make no new features.
FEATURELESS_WEIGHTS = (*NORMS, layers.PReLU)
RECURRENT = (layers.RNN, layers.Bidirectional)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
# Layers that are not looked into: what they compute is known, or cannot be followed.
KNOWN = (*CHANNELWISE, *NORMS, *MERGING, layers.Concatenate, layers.Flatten, layers.Reshape)
UNFOLLOWED = (*RECURRENT, *ATTENTION)
# Activation functions that make a number of several channels.
_MIXING = tuple(
    getattr(keras.activations, name)
    for name in ("softmax", "log_softmax", "sparsemax", "glu")
    if hasattr(keras.activations, name)
)
# What a subclass may define without changing what `call` computes.
_HARMLESS = frozenset(
    {"__init__", "__module__", "__qualname__", "__doc__", "__annotations__", "__dict__"}
    | {"__weakref__", "__firstlineno__", "__static_attributes__", "__orig_bases__", "__repr__"}
    | {"__parameters__", "__abstractmethods__", "_abc_impl"}
    | {"build", "get_config", "from_config", "get_build_config", "build_from_config"}
    | {"compute_output_shape", "compute_output_spec", "compute_mask", "count_params"}
    | {"save_own_variables", "load_own_variables"}
)


def is_opaque(layer: layers.Layer) -> bool:
    """Whether a call of a layer is taken as a whole; else what it computes is looked into."""
    if isinstance(layer, WITH_FILTERS):
        return computes_as_keras(layer) or not layers_inside(layer)
    if isinstance(layer, layers.Activation) and not _is_known(layer):
        return False
    return isinstance(layer, (*KNOWN, *UNFOLLOWED)) and computes_as_keras(layer)


def is_known_by_shape(layer: layers.Layer) -> bool:
    """Whether nothing of an opaque layer but the shape of its output needs to be traced."""
    if not computes_as_keras(layer):
        return False
    if isinstance(layer, WITH_FILTERS):
        return has_known_activation(layer)
    return isinstance(layer, (*NORMS, *ELEMENTWISE)) and not _gives_its_input(layer)


def _gives_its_input(layer: layers.Layer) -> bool:
    """Whether the call of a layer may return the very tensor that it gets."""
    kinds = (layers.Identity, layers.ActivityRegularization, layers.Dropout, layers.Activation)
    return isinstance(layer, kinds)


def computes_as_keras(layer: layers.Layer) -> bool:
    """Whether a layer computes what the Keras class does that it is, or is derived from."""
    own = vars(layer).get("call")
    if own is not None:
        while hasattr(own, "__wrapped__"):
            own = own.__wrapped__
        if getattr(own, "__func__", None) is not type(layer).call:
            return False
    return _keeps_call(type(layer))  # type: ignore[arg-type]


@functools.cache
def _keeps_call(kind: Any) -> bool:
    own: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "keras":
            return not any(hasattr(base, name) for name in own - _HARMLESS)
        own.update(vars(base))
    return False


def makes_features(operation: layers.Layer | RawOperation) -> bool:
    """Whether an operation makes new features by weights; those of a norm make none."""
    if isinstance(operation, RawOperation):
        return bool(operation.kernels)
    return bool(operation.weights) and not isinstance(operation, FEATURELESS_WEIGHTS)


def joins(operation: layers.Layer | RawOperation) -> bool:
    """Whether an operation puts tensors next to each other along an axis that they have."""
    if isinstance(operation, RawOperation):
        return operation.type == "ConcatV2"
    return isinstance(operation, layers.Concatenate)


def activates(operation: layers.Layer | RawOperation) -> bool:
    """Whether an operation is an activation function, applied to each number."""
    if isinstance(operation, RawOperation):
        return operation.activates
    return isinstance(operation, ACTIVATIONS) and not _mixes_channels(operation)


def has_activation(layer: layers.Layer) -> bool:
    """Whether a layer with weights applies an activation function itself; any callable may be."""
    return layer.activation is not keras.activations.linear and layer.activation is not None


def has_known_activation(layer: layers.Layer) -> bool:
    """Whether the activation function within a layer is known to map each number by itself."""
    return layer.activation is None or (_is_known(layer) and layer.activation not in _MIXING)


def _is_known(layer: layers.Layer) -> bool:
    """Whether the activation function of a layer is one of Keras's own."""
    function = layer.activation
    own = getattr(keras.activations, getattr(function, "__name__", ""), None)
    return function is own and own is not None


def is_linear_by_channel(operation: layers.Layer | RawOperation) -> bool:
    """Whether a layer is a depthwise convolution that adds nothing: homogeneous, with weights."""
    return (
        isinstance(operation, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
        and operation.depth_multiplier == 1
        and not operation.use_bias
        and not has_activation(operation)
        and computes_as_keras(operation)
    )


def is_homogeneous_activation(operation: layers.Layer | RawOperation) -> bool:
    """Whether an activation function f has f(ax) = a f(x) for a > 0."""
    if isinstance(operation, RawOperation):
        return operation.homogeneous
    if isinstance(operation, layers.ReLU):
        return operation.max_value is None and not operation.threshold
    if isinstance(operation, layers.Activation):
        return operation.activation in (keras.activations.relu, keras.activations.leaky_relu)
    return isinstance(operation, layers.LeakyReLU | layers.PReLU)


def shrinks(operation: layers.Layer | RawOperation) -> bool:
    """Whether an operation that passes scores leaves fewer numbers to read."""
    if isinstance(operation, RawOperation):
        return operation.shrinks
    strides = getattr(operation, "strides", None) or (1,)
    return isinstance(operation, SHRINKING) or max(np.ravel(strides)) > 1


def channels_first(operation: layers.Layer | RawOperation) -> bool:
    """Whether a layer takes the first axis after the batch for that of the channels."""
    return getattr(operation, "data_format", None) == "channels_first"


def takes_as_channels(layer: layers.Layer, axis: int) -> bool:
    """Whether an axis of a tensor, `LAST` or 1, is that of the channels to a layer behind it."""
    return isinstance(layer, ELEMENTWISE) or channels_first(layer) == (axis == 1)


def keeps_channels(layer: layers.Layer, axis: int = LAST) -> bool:
    """Whether a layer of one tensor leaves each channel by itself, and in its place.

    Args:
        layer: A layer whose calls are opaque.
        axis: The channel axis of the tensor, `LAST` or 1. Defaults to the last.
    """
    keeps = isinstance(layer, CHANNELWISE) and not _mixes_channels(layer)
    return keeps and takes_as_channels(layer, axis)


def _mixes_channels(layer: layers.Layer) -> bool:
    return getattr(layer, "activation", None) in _MIXING

"""What kinds of layers and operations do to the channels that pass through them."""

from __future__ import annotations

import keras
from keras import layers

ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
# What `keras.activations` and `keras.ops` put into a graph, by class.
ACTIVATION_OPERATIONS = frozenset(
    {"Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu"}
    | {"LogSigmoid", "Mish", "Relu", "ReLU", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink"}
    | {"Softplus", "Softsign", "Squareplus", "Tanh", "TanhShrink", "Threshold"}
)
# Classes of layers in `keras.layers` and of operations in `keras.ops` alike.
MERGING = frozenset(
    {"Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Average", "Maximum", "Minimum"}
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
# All layers that leave each channel by itself, and in its place; batch norms apart.
CHANNELWISE = (*HOMOGENEOUS, *ELEMENTWISE)
LAST = -1  # the channel axis, where it is not 1, the first behind the batch
NORMS = (layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization)
# Layers with weights that make no new features.
FEATURELESS_WEIGHTS = (*NORMS, layers.PReLU)


def activates(operation: keras.Operation) -> bool:
    """Whether an operation is an activation function, applied to each number."""
    if isinstance(operation, layers.Layer):
        return isinstance(operation, ACTIVATIONS) and not _is_softmax(operation)
    return kind_of(operation) in ACTIVATION_OPERATIONS


def has_activation(layer: layers.Layer) -> bool:
    """Whether a layer with weights applies an activation function itself; any callable may be."""
    return layer.activation is not keras.activations.linear


def is_linear_by_channel(operation: keras.Operation) -> bool:
    """Whether a layer is a depthwise convolution that adds nothing: homogeneous, with weights."""
    return (
        isinstance(operation, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
        and operation.depth_multiplier == 1
        and not operation.use_bias
        and not has_activation(operation)
    )


def channels_first(operation: keras.Operation) -> bool:
    """Whether a layer takes the first axis behind the batch for that of the channels."""
    return getattr(operation, "data_format", None) == "channels_first"


def takes_as_channels(operation: keras.Operation, axis: int) -> bool:
    """Whether an axis of a tensor, `LAST` or 1, is that of the channels to a layer behind it."""
    return isinstance(operation, ELEMENTWISE) or channels_first(operation) == (axis == 1)


def keeps_channels(operation: keras.Operation, axis: int = LAST) -> bool:
    """Whether an operation of one tensor leaves each channel by itself, and in its place.

    Args:
        operation: A layer or operation.
        axis: The channel axis of the tensor, `LAST` or 1. Defaults to the last.
    """
    if isinstance(operation, layers.Layer):
        keeps = isinstance(operation, CHANNELWISE) and not _is_softmax(operation)
        return keeps and takes_as_channels(operation, axis)
    # A merge of one tensor is one with a constant.
    return kind_of(operation) in ACTIVATION_OPERATIONS | MERGING


def kind_of(operation: keras.Operation) -> str:
    """The class of a layer or operation of Keras's own by name; empty for all others."""
    own = type(operation).__module__.partition(".")[0] == "keras"
    return type(operation).__name__ if own else ""


def _is_softmax(layer: layers.Layer) -> bool:
    return getattr(layer, "activation", None) is keras.activations.softmax

"""Where the filters of a network are, and where the saliency of each is read.

The feature map z of a filter is taken after the filter's batch norm and activation: before a batch
norm the Taylor score is degenerate, since the norm makes the loss blind to the filter's scale and
the sum of z * dC/dz vanishes.

From there the reading place moves on down the graph for as long as sum(z * dC/dz) over each channel
stays what it is. It does through every map that acts on each channel alone and is positively
homogeneous of degree one (Euler's theorem): pooling, dropout, padding, cropping, up-sampling. A
score read after a 2x2 pooling costs a quarter of the one before it.
"""

from __future__ import annotations

import dataclasses

import keras
from keras import layers

from kerasrestart.network.graph import Call, Graph

FILTER_LAYERS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
# What `keras.activations` and `keras.ops` put into a graph, by class.
ACTIVATION_OPERATIONS = frozenset(
    {"Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu"}
    | {"LogSigmoid", "Mish", "Relu", "ReLU", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink"}
    | {"Softplus", "Softsign", "Squareplus", "Tanh", "TanhShrink", "Threshold"}
)
# Homogeneous maps that leave fewer elements to read.
SHRINKING = tuple(
    getattr(layers, f"{kind}{rank}D")
    for rank in (1, 2, 3)
    for kind in (
        "MaxPooling",
        "AveragePooling",
        "GlobalMaxPooling",
        "GlobalAveragePooling",
        "Cropping",
    )
)
HOMOGENEOUS = (
    *SHRINKING,
    layers.Dropout,
    *(
        getattr(layers, f"{kind}{rank}D")
        for rank in (1, 2, 3)
        for kind in ("SpatialDropout", "ZeroPadding", "UpSampling")
    ),
)
# Layers with weights that still keep each channel to itself.
CHANNELWISE_WEIGHTS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.PReLU,
)


@dataclasses.dataclass(frozen=True)
class Site:
    """A layer of filters that can be scored and restarted.

    Attributes:
        layer: The convolution.
        norm: The batch norm that belongs to it, or None.
        reads: For each use of the layer, the pair (call of the layer itself, call whose output is
            read). Most layers have one use.
    """

    layer: layers.Layer
    norm: layers.BatchNormalization | None
    reads: tuple[tuple[Call, Call], ...]

    @property
    def name(self) -> str:
        """Name of the layer; the key of this site in every dictionary."""
        return self.layer.name

    @property
    def filters(self) -> int:
        """Number of filters."""
        return self.layer.filters

    @property
    def filter_axis(self) -> int:
        """Axis of the kernel along which the filters lie."""
        return -2 if isinstance(self.layer, TRANSPOSED) else -1

    @property
    def channel_axis(self) -> int:
        """Axis of the feature map along which the filters lie."""
        return 1 if self.layer.data_format == "channels_first" else -1


def find_sites(model: keras.Model) -> dict[str, Site]:
    """Finds the layers of `model` whose filters can be scored and restarted.

    These are the trainable convolutions (1D, 2D, 3D and their transposes) but for those whose
    result reaches an output of the model with no other weights in between: the classes that an
    output layer tells apart are not to be forgotten.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        The sites by layer name, in execution order.

    Raises:
        TypeError: The model has no graph.
        ValueError: It has no such layer, or two of them bear the same name.
    """
    graph = Graph(model)
    sites: dict[str, Site] = {}
    for call in graph.calls:
        layer = call.operation
        if call.occurrence or not isinstance(layer, FILTER_LAYERS):
            continue
        uses = graph.calls_of(layer)
        if any(_is_output(graph, use) for use in uses) or not _can_restart(layer):
            continue
        if layer.name in sites:
            raise ValueError(
                f"Two layers of model '{model.name}' are named '{layer.name}'. Filters are found "
                "by the name of their layer: give each layer its own name."
            )
        followed = [_follow(graph, use) for use in uses]
        norm = followed[0][1]
        # A norm belongs to a layer if it follows all of its uses, and follows nothing else.
        if any(n is not norm for _, n in followed) or len(graph.calls_of(norm)) != len(uses):
            norm = None
        reads = tuple((use, read) for use, (read, _) in zip(uses, followed, strict=True))
        sites[layer.name] = Site(layer, norm, reads)
    if not sites:
        raise ValueError(
            f"Model '{model.name}' has no filters to restart: expected at least one trainable "
            "convolution that is not its output layer."
        )
    return sites


def _can_restart(layer: layers.Layer) -> bool:
    # Under LoRA the kernel is no variable but a sum of them.
    lora = getattr(layer, "lora_enabled", False)
    return layer.trainable and bool(layer.trainable_variables) and not lora


def _follow(graph: Graph, start: Call) -> tuple[Call, layers.BatchNormalization | None]:
    """Walks from a convolution to the place where its score is read, and to its norm."""
    activated = keras.activations.serialize(start.operation.activation) != "linear"
    read, norm, current = start, None, start
    while (following := graph.only_consumer(current)) is not None:
        operation = following.operation
        if norm is None and _normalizes(operation, start.operation):
            read, norm = following, operation
        elif _activates(operation) and not activated:
            read, activated = following, True
        elif not isinstance(operation, HOMOGENEOUS):
            break
        current = following
    return _cheapest(graph, read), norm


def _activates(operation: keras.Operation) -> bool:
    if isinstance(operation, layers.Layer):
        return isinstance(operation, ACTIVATIONS)
    return type(operation).__name__ in ACTIVATION_OPERATIONS


def _normalizes(operation: keras.Operation, layer: layers.Layer) -> bool:
    channels_first = layer.data_format == "channels_first"
    channel_axes = (1,) if channels_first else (-1, layer.rank + 1)
    return (
        isinstance(operation, layers.BatchNormalization)
        and operation.moving_mean.shape == (layer.filters,)
        and operation.axis in channel_axes
    )


def _cheapest(graph: Graph, read: Call) -> Call:
    """The last place after `read` that holds fewer elements and the same sum(z * dC/dz)."""
    following = graph.only_consumer(read)
    while following is not None and isinstance(following.operation, HOMOGENEOUS):
        if isinstance(following.operation, SHRINKING):
            read = following
        following = graph.only_consumer(following)
    return read


def _is_output(graph: Graph, start: Call) -> bool:
    """Whether the result of `start` reaches a model output with no weights in between."""
    seen, ahead = set(), list(start.outputs)
    while ahead:
        tensor = ahead.pop()
        if tensor in graph.outputs:
            return True
        for reader in graph.consumers[tensor]:
            weights = getattr(reader.operation, "weights", ())
            passes = not weights or isinstance(reader.operation, CHANNELWISE_WEIGHTS)
            if passes and id(reader) not in seen:
                seen.add(id(reader))
                ahead.extend(reader.outputs)
    return False

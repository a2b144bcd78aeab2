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

from kerasrestart.scoring.graph import Call, Graph

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
        if not (layer.trainable and layer.trainable_variables) or _is_output(graph, call):
            continue
        if layer.name in sites:
            raise ValueError(
                f"Two layers of model '{model.name}' are named '{layer.name}'. Filters are found "
                "by the name of their layer: give each layer its own name."
            )
        uses = [_follow(graph, use) for use in graph.calls_of(layer)]
        norms = {id(norm): norm for _, _, norm in uses}
        # A shared layer with a norm of its own behind each use: no one norm belongs to it.
        norm = next(iter(norms.values())) if len(norms) == 1 else None
        sites[layer.name] = Site(layer, norm, tuple((use, read) for use, read, _ in uses))
    if not sites:
        raise ValueError(
            f"Model '{model.name}' has no filters to restart: expected at least one trainable "
            "convolution that is not its output layer."
        )
    return sites


def _follow(graph: Graph, start: Call) -> tuple[Call, Call, layers.BatchNormalization | None]:
    """Walks from a convolution to its norm and to the place where its score is read."""
    activated = keras.activations.serialize(start.operation.activation) != "linear"
    read, norm, current = start, None, start
    while (following := graph.only_consumer(current)) is not None:
        operation = following.operation
        if norm is None and _normalizes(operation, start.operation):
            read, norm = following, operation
        elif isinstance(operation, ACTIVATIONS) and not activated:
            read, activated = following, True
        elif not isinstance(operation, HOMOGENEOUS):
            break
        current = following
    return start, _cheapest(graph, read), norm


def _normalizes(operation: keras.Operation, layer: layers.Layer) -> bool:
    return (
        isinstance(operation, layers.BatchNormalization)
        and operation.moving_mean.shape == (layer.filters,)
        and operation.axis
        in ((1,) if layer.data_format == "channels_first" else (-1, layer.rank + 1))
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

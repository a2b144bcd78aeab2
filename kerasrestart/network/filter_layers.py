"""Where the filters of a network are, and where the saliency of each is read.

The feature map z of a filter is taken after the filter's norm and activation: before a batch
norm the Taylor score is degenerate, since the norm makes the loss blind to the filter's scale and
the sum of z * dC/dz vanishes.

From there the reading place moves on down the graph for as long as sum(z * dC/dz) over each channel
stays what it is. It does through every map that acts on each channel alone and is positively
homogeneous of degree one (Euler's theorem): pooling, dropout, padding, cropping, up-sampling, and a
depthwise convolution that adds nothing. A score read after a 2x2 pooling costs a quarter of the
one before it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import keras
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.operations import (
    FEATURELESS_WEIGHTS,
    HOMOGENEOUS,
    NORMS,
    SHRINKING,
    activates,
    has_activation,
    is_linear_by_channel,
    takes_as_channels,
)


@dataclasses.dataclass(frozen=True)
class FilterLayer:
    """A layer of filters that can be scored and restarted.

    Attributes:
        layer: The convolution.
        norm: The batch norm, layer norm or group norm that belongs to it, or None.
        reads: For each use of the layer, the pair (call of the layer itself, call whose output is
            read). Most layers have one use.
        activations: For each use, the call that makes the filter's activation; without one, that of
            its norm or of the layer itself. Never moved on behind a pooling: for all that is not
            sum(z * dC/dz).
    """

    layer: layers.Layer
    norm: layers.Layer | None
    reads: tuple[tuple[Call, Call], ...]
    activations: tuple[Call, ...]

    @property
    def name(self) -> str:
        """Name of the layer; the key of this filter_layer in every dictionary."""
        return self.layer.name

    @property
    def filters(self) -> int:
        """Number of filters, or of units."""
        return kernels.filters_of(self.layer)

    @property
    def filter_axis(self) -> int:
        """Axis of the kernel along which the filters lie."""
        return kernels.filter_axis_of(self.layer)

    @property
    def channel_axis(self) -> int:
        """Axis of the feature map along which the filters lie."""
        return kernels.channel_axis_of(self.layer)


@dataclasses.dataclass(frozen=True)
class FilterLayers:
    """Which layers with filters a model has.

    Attributes:
        graph: The model's graph.
        layers: Those that can be restarted and are to be, by name, in execution order.
        left_out: The others, by name: why they are left out, of several of one name the first; and
            layers of other kinds that hold convolutions inside.
    """

    graph: Graph
    layers: dict[str, FilterLayer]
    left_out: dict[str, str]


def find_filter_layers(
    model: keras.Model, layers: str | Sequence[str] | None = None
) -> FilterLayers:
    """Looks for all layers with filters in a model.

    Args:
        model: A built Functional or Sequential model.
        layers: Which layers are to be restarted: their names, or a regular expression that a whole
            name matches. Defaults to None: all convolutions, of any kind, and no dense layers.

    Raises:
        TypeError: The model has no graph.
        ValueError: Two layers that are to be restarted bear the same name; `layers` names no layer
            with filters, or one that cannot be restarted; or there is none at all.
    """
    graph = Graph(model)
    filter_layers: dict[str, FilterLayer] = {}
    left_out: dict[str, str] = {}
    for call in graph.calls:
        layer = call.operation
        if call.occurrence == 0 and _hides_filters(layer):
            left_out[layer.name] = "has convolutions inside, out of reach"
        if call.occurrence or not isinstance(layer, kernels.WITH_FILTERS):
            continue
        reason = _cannot(graph, layer) or _not_chosen(layer, layers)
        if reason is not None:
            left_out.setdefault(layer.name, reason)
        elif layer.name in filter_layers:
            raise ValueError(
                f"Two layers of model '{model.name}' are named '{layer.name}'. Filters are found "
                "by the name of their layer: give each layer its own name."
            )
        else:
            filter_layers[layer.name] = _filter_layer(graph, layer)
    named = [] if layers is None or isinstance(layers, str) else layers
    for name in named:
        if name not in filter_layers:
            why = left_out.get(name, f"expected some of {[*filter_layers, *left_out]}")
            raise ValueError(f"No filters can be restarted in a layer '{name}': {why}.")
    if not filter_layers:
        reasons = "; ".join(f"{name} {why}" for name, why in left_out.items()) or "it has none"
        raise ValueError(f"Model '{model.name}' has no filters to restart: {reasons}.")
    return FilterLayers(graph, filter_layers, left_out)


def _hides_filters(operation: keras.Operation) -> bool:
    """Whether an operation is a layer that holds convolutions, out of sight of the graph."""
    return isinstance(operation, layers.Layer) and any(
        isinstance(inner, kernels.CONVOLUTIONAL)
        for inner in operation._flatten_layers(include_self=False)
    )


def _cannot(graph: Graph, layer: layers.Layer) -> str | None:
    """Why a layer cannot be restarted."""
    # The classes that an output layer tells apart are not to be forgotten.
    if any(_is_output(graph, use) for use in graph.calls_of(layer)):
        return "makes an output of the model"
    if not (layer.trainable and layer.trainable_variables):
        return "is not trainable"
    if getattr(layer, "lora_enabled", False):
        return "has its kernel in LoRA's parts"
    return None


def _not_chosen(layer: layers.Layer, chosen: str | Sequence[str] | None) -> str | None:
    if chosen is None:
        dense = isinstance(layer, layers.Dense)
        return "is a dense layer (layers='.*' takes these too)" if dense else None
    takes = re.fullmatch(chosen, layer.name) if isinstance(chosen, str) else layer.name in chosen
    return None if takes else "is not among the chosen layers"


def _filter_layer(graph: Graph, layer: layers.Layer) -> FilterLayer:
    uses = graph.calls_of(layer)
    followed = [_follow(graph, use) for use in uses]
    norm = followed[0][1]
    # A norm belongs to a layer if it follows all of its uses, and follows nothing else.
    if any(n is not norm for _, n, _ in followed) or len(graph.calls_of(norm)) != len(uses):
        norm = None
    reads = tuple((use, read) for use, (read, _, _) in zip(uses, followed, strict=True))
    return FilterLayer(layer, norm, reads, tuple(activation for _, _, activation in followed))


def _follow(graph: Graph, start: Call) -> tuple[Call, layers.Layer | None, Call]:
    """Walks from a convolution to where its score is read, to its norm and to its activation."""
    activated = has_activation(start.operation)
    read, norm, current = start, None, start
    axis = kernels.channel_axis_of(start.operation)
    activation = start if activated else None
    while (following := graph.only_consumer(current)) is not None:
        operation = following.operation
        if norm is None and normalizes(graph, following, start.operation):
            read, norm = following, operation
        elif activates(operation) and not activated:
            read, activation, activated = following, following, True
        elif not _passes_scores(following, axis):
            break
        current = following
    return _cheapest(graph, read, axis), norm, activation or read


def normalizes(graph: Graph, call: Call, layer: layers.Layer) -> bool:
    """Whether a call is that of a norm with a scale and shift for each channel of `layer`."""
    norm = call.operation
    if not isinstance(norm, NORMS):
        return False
    rank = len(graph.shapes[call.inputs[0]])
    axes = norm.axis if isinstance(norm.axis, list | tuple) else [norm.axis]
    return [axis % rank for axis in axes] == [kernels.channel_axis_of(layer) % rank]


def _passes_scores(call: Call, axis: int, linear: bool = False) -> bool:
    """Whether sum(z * dC/dz) over each channel is the same before and behind a call.

    Args:
        call: The call.
        axis: The channel axis of what it takes.
        linear: Whether layers with filters of their own count too. Defaults to False.
    """
    operation = call.operation
    passes = isinstance(operation, HOMOGENEOUS) or (linear and is_linear_by_channel(operation))
    return passes and takes_as_channels(operation, axis)


def _cheapest(graph: Graph, read: Call, axis: int) -> Call:
    """The last place after `read` that holds fewer elements and the same sum(z * dC/dz)."""
    following = graph.only_consumer(read)
    while following is not None and _passes_scores(following, axis, linear=True):
        operation = following.operation
        if isinstance(operation, SHRINKING) or max(getattr(operation, "strides", (1,))) > 1:
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
            passes = not weights or isinstance(reader.operation, FEATURELESS_WEIGHTS)
            if passes and id(reader) not in seen:
                seen.add(id(reader))
                ahead.extend(reader.outputs)
    return False

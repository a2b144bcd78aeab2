"""Which layers of a model have filters that can be scored and restarted."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.arguments import checked_layers
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.operations import ATTENTION, RECURRENT
from kerasrestart.network.output_layers import output_layer_ids
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.reading_places import reading_place
from kerasrestart.network.text import did_you_mean, listed
from kerasrestart.network.traced_graph import (
    applied_parts,
    called_layers,
    layers_out_of_sight,
    traced_graph,
)
from kerasrestart.network.variable_reads import variable_ids


@dataclasses.dataclass(frozen=True)
class FilterLayer:
    """A layer of filters that can be scored and restarted.

    Attributes:
        layer: The convolution, or dense layer.
        norm: The batch norm, layer norm or group norm that belongs to it, or None.
        reads: For each use of the layer in one pass, the pair (call of the layer itself, call of
            the layer whose output is read). Most layers have one use.
        activations: For each use, the call that makes the filter's activation; without one, that of
            its norm or of the layer itself. Never moved on after a pooling: for all that is not
            sum(z * dC/dz).
        name: The layer's name where that is unique in the model, else its path; the key of this
            layer in every dictionary.
        unread: For each use, the activation function, a raw operation such as `tf.nn.relu`, or
            `NORM`, whose result no layer gives, so that `activations` come before it; or None.
    """

    layer: layers.Layer
    norm: layers.Layer | None
    reads: tuple[tuple[Call, Call], ...]
    activations: tuple[Call, ...]
    name: str
    unread: tuple[RawOperation | None, ...]

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
        layers: Those that can be restarted and are chosen, by key, in execution order.
        left_out: The others, by key: why they are left out.
        out_of_reach: Those of `left_out` that cannot be followed, by key: their numbers of filters.
        excluded: Those of `left_out` that are chosen but must not be restarted, such as frozen ones
            or those that make an output, by key: their numbers of filters.
    """

    graph: Graph
    layers: dict[str, FilterLayer]
    left_out: dict[str, str]
    out_of_reach: dict[str, int]
    excluded: dict[str, int]

    @functools.cached_property
    def channels(self) -> ChannelMap:
        """Where the channels of all filters go."""
        return ChannelMap(self.graph)

    @property
    def total(self) -> int:
        """Number of filters of all layers of the chosen kind, also of those left out."""
        left_out = (*self.out_of_reach.values(), *self.excluded.values())
        return self.watched + sum(left_out)

    @property
    def watched(self) -> int:
        """Number of filters in `layers`."""
        return sum(layer.filters for layer in self.layers.values())

    @property
    def unreached(self) -> dict[str, str]:
        """Why the layers of `out_of_reach` cannot be followed, by key."""
        return {key: self.left_out[key] for key in self.out_of_reach}

    def coverage(self) -> str:
        """One line: how many filters are watched, and how many are out of reach, and why.

        Example: `Watching 96 of 104 filters in 12 layers; 8 out of reach: res_block_3 (called in a
        while_loop)`.
        """
        layers = f"{len(self.layers)} layer{'s' if len(self.layers) > 1 else ''}"
        line = f"Watching {self.watched} of {self.total} filters in {layers}"
        for words, counts in (("out of reach", self.out_of_reach), ("left out", self.excluded)):
            if counts:
                reasons = [f"{key} ({self.left_out[key]})" for key in counts]
                line += f"; {sum(counts.values())} {words}: {listed(reasons, 160)}"
        return line


def find_filter_layers(
    model: keras.Model,
    layers: str | Sequence[str] | None = None,
    x: Any = None,
    data: Any = None,
    *,
    training: bool = True,
    may_be_none: bool = False,
    in_loop: bool = False,
) -> FilterLayers:
    """Finds all layers with filters in a model, by a traced forward pass or training step.

    Nothing is computed, and no variable of a built model changes.

    Args:
        model: Any Keras model.
        layers: Which layers are to be restarted: their keys, or a regular expression that a whole
            key matches. A key is the name of a layer where that is unique in the model, else its
            path, such as `"rgb/conv2d"`. Defaults to None: all convolutions, of any kind, and no
            dense layers.
        x: An example of what the model takes, where it does not know that itself: a batch, or
            `tf.TensorSpec`s. A model that is not built is built by it. Defaults to None.
        data: An example of what `train_step` takes, or its specs. Of a model with a `train_step` or
            `compute_loss` of its own, this is traced and not the call alone. Defaults to None.
        training: Whether the model is traced in training mode, in which alone its `train_step`
            counts. Some layers are called in one of the modes only. Defaults to True.
        may_be_none: Whether a model without filters to restart is accepted. Defaults to False.
        in_loop: Whether a loop without `fit` trains the model, whose step may read other maps than
            the call shows. Defaults to False.

    Raises:
        TypeError: `model` is not a Keras model, or it does not know what it takes.
        ValueError: `layers` is neither a regular expression nor names, names no layer with filters,
            or one that cannot be restarted; or there is none at all; or the model cannot be traced.
    """
    layers = checked_layers(layers)
    graph = traced_graph(model, x, data, training)
    graph.is_partial = graph.is_partial or in_loop
    found: dict[str, FilterLayer] = {}
    left_out: dict[str, str] = {}
    out_of_reach: dict[str, int] = {}
    excluded: dict[str, int] = {}
    possible: list[str] = []
    outputs = output_layer_ids(graph)
    for layer in [*called_layers(graph), *layers_out_of_sight(graph, model)]:
        key = graph.name_of(layer)
        count, not_chosen = _filters_in(graph, layer), _not_chosen(graph, layer, key, layers)
        far = _out_of_reach(graph, layer, outputs)
        cannot = far or _cannot(graph, layer, outputs)
        reason = cannot or not_chosen
        if cannot is None:
            possible.append(key)
        if reason and count and not_chosen is None:
            (out_of_reach if far else excluded)[key] = count
        if reason is None:
            found[key] = _filter_layer(graph, layer, key)
        else:
            left_out[key] = reason
    for name in [] if layers is None or isinstance(layers, str) else layers:
        if name not in found:
            why = did_you_mean(name, possible)
            if name in left_out:
                why = f", which {left_out[name]}"
            raise ValueError(
                f"layers must be some of {possible}, whose filters can be restarted. Received: "
                f"{name!r}{why}"
            )
    if not found and not may_be_none:
        reasons = "; ".join(f"{name} {why}" for name, why in left_out.items()) or "it has none"
        raise ValueError(f"Model '{model.name}' has no filters to restart: {reasons}.")
    return FilterLayers(graph, found, left_out, out_of_reach, excluded)


def _is_convolutional(layer: keras.Layer) -> bool:
    return isinstance(layer, kernels.CONVOLUTIONAL) or type(layer).__name__.startswith("ConvLSTM")


def _filters_in(graph: Graph, layer: keras.Layer) -> int:
    if isinstance(layer, (*kernels.UNITS, *kernels.DEPTHWISE)):
        return kernels.filters_of(layer) if layer.built else 0
    if (own := graph.notes_of(layer).own_kernels) is not None:
        return own.filters
    return getattr(layer, "filters", 0) if _is_convolutional(layer) else 0


def _out_of_reach(graph: Graph, layer: keras.Layer, outputs: set[int]) -> str | None:
    """Why what a layer computes cannot be followed."""
    if isinstance(layer, RECURRENT):
        return "has recurrent units, which feed each other"
    if isinstance(layer, ATTENTION):
        return "has attention heads, not filters"
    if (own := graph.notes_of(layer).own_kernels) is not None:
        if id(layer) in outputs:
            return None
        kind = "convolution" if own.convolves else "Dense layer"
        hint = f"it is watched if a Keras {kind}, or a subclass, holds it"
        if parts := applied_parts(graph, layer):
            names = listed([part.name for part in parts])
            return f"applies the kernel of {names} by operations of its own"
        return own.unfollowed or f"has a kernel of its own: {hint}"
    if not graph.updated.isdisjoint(variable_ids(layer.weights)):
        return "has weights that an inner loop updates and applies without the layer"
    if id(layer) in graph.elsewhere:
        return graph.elsewhere[id(layer)]
    if not graph.calls_of(layer):
        if not layer.trainable:  # a teacher, or a copy of averages: not a filter to reach
            return None
        read_by = set().union(*(graph.readers.get(n, ()) for n in variable_ids(layer.weights)))
        if read_by:
            return f"is not called: its weights are read by {listed(sorted(read_by))}"
        return "not called in the traced pass"
    if isinstance(layer, kernels.UNITS) and not kernels.is_dense(layer):
        return "has a kernel that is not [inputs, units]"
    if misplaced := graph.notes_of(layer).misplaced:
        return misplaced
    if not any(graph.reaches_loss(call) for call in graph.calls_of(layer)):
        return "does not reach an output"
    return None


def _cannot(graph: Graph, layer: keras.Layer, outputs: set[int]) -> str | None:
    """Why a layer must not be restarted."""
    # The network must not forget the classes that an output layer distinguishes.
    if id(layer) in outputs:
        return "makes an output of the model"
    if getattr(layer, "lora_enabled", False):
        return "has its kernel in LoRA's parts"
    kernel = kernels.incoming_kernel(layer)
    if not isinstance(kernel, keras.Variable):
        return "has a kernel that is computed from other weights"
    if not (layer.trainable and layer.trainable_variables):
        return "is not trainable"
    if not kernel.trainable:
        return "has a kernel that is not trainable"
    if graph.trained is not None and variable_ids(kernel).isdisjoint(graph.trained):
        return "is not trained by train_step"
    return None


def _not_chosen(
    graph: Graph, layer: keras.Layer, key: str, chosen: str | Sequence[str] | None
) -> str | None:
    if chosen is None:
        own = graph.notes_of(layer).own_kernels
        dense = not (own.convolves if own else _is_convolutional(layer))
        return "is a dense layer (layers='.*' takes these too)" if dense else None
    takes = re.fullmatch(chosen, key) if isinstance(chosen, str) else key in chosen
    return None if takes else "is not among the chosen layers"


def _filter_layer(graph: Graph, layer: keras.Layer, key: str) -> FilterLayer:
    uses = graph.calls_of(layer)
    places = [reading_place(graph, use, len(uses)) for use in uses]
    norm = places[0].norm
    # A norm belongs to a layer if it follows all of its uses, and follows nothing else.
    if any(place.norm is not norm for place in places) or graph.uses_of(norm) != len(uses):
        norm = None
    return FilterLayer(
        layer,
        norm,
        tuple((use, place.read) for use, place in zip(uses, places, strict=True)),
        tuple(place.activation for place in places),
        key,
        tuple(place.unread for place in places),
    )

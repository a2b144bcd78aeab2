"""Makes up, in what reads them, for what filters gave on average before they were taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.network.graph import Graph
from kerasrestart.network.operations import has_activation
from kerasrestart.network.paths import Path
from kerasrestart.network.reading_places import normalizes


def check_compensation(found: FilterLayers) -> None:
    """Checks that every reader of filters has something that makes up for them.

    Args:
        found: Filter layers, all of which can have their outgoing weights set to zero.

    Raises:
        ValueError: A reader has neither a bias nor a batch norm right behind it.
    """
    channels = ChannelMap(found.graph)
    paths = [channels.outgoing(filter_layer.layer) for filter_layer in found.layers.values()]
    _check_readers(found.graph, [reading.layer for path in paths for reading in path.readers])


def compensations(
    graph: Graph,
    paths: Mapping[str, Path],
    chosen: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
) -> Iterator[tuple[keras.Variable, np.ndarray]]:
    """By how much biases change, so that readers give on average what they gave.

    The bias rises by mean x outgoing weight, summed over the channels that go and the positions of
    the kernel: exactly what is lost, but at the border of a padded convolution, where the kernel
    reads less. Without a bias, the moving mean of the batch norm right behind falls by as much,
    which is the same to a model at work; in training a batch norm takes away any shift by itself.

    Args:
        graph: The model's graph.
        paths: By layer name, where its chosen filters go, as `outgoing_paths` finds it.
        chosen: By layer name, indices of filters. Those that are drawn anew themselves are not
            made up for.
        means: By name of the reader, the mean of each channel of its input.

    Yields:
        A variable, and what is to be added to it: float64, of its shape.

    Raises:
        ValueError: A reader has neither bias nor batch norm, or no means of the right shape.
    """
    read: dict[str, tuple[layers.Layer, set[int]]] = {}
    for path in paths.values():
        for reading in path.readers:
            _, places = read.setdefault(reading.layer.name, (reading.layer, set()))
            places.update(reading.channels)
    _check_readers(graph, [layer for layer, _ in read.values()])
    for name, (layer, places) in read.items():
        of_layer = np.asarray(means.get(name, ()))
        if of_layer.shape != (kernels.channels_of(layer),):
            raise ValueError(
                f"The mean inputs of layer '{name}' must be {kernels.channels_of(layer)} numbers, "
                f"as reader_input_means gives them. Received: shape {of_layer.shape} of {list(means)}"
            )
        lost = np.zeros(of_layer.shape)
        lost[list(places)] = of_layer[list(places)]
        shift = kernels.response_to_means(layer, lost)
        shift[np.asarray(chosen.get(name, ()), int)] = 0
        if layer.bias is not None:
            yield layer.bias, shift
        else:
            yield _norm_behind(graph, layer).moving_mean, -shift


def _check_readers(graph: Graph, readers: Iterable[layers.Layer]) -> None:
    bare = {r.name: None for r in readers if r.bias is None and _norm_behind(graph, r) is None}
    if bare:
        raise ValueError(
            "compensate_bias needs a bias, or a batch norm right behind, in each layer that reads "
            f"restarted filters: {', '.join(bare)} has neither. Leave the layers before it out, or "
            "use compensate_bias=False."
        )


def _norm_behind(graph: Graph, layer: layers.Layer) -> layers.BatchNormalization | None:
    """The batch norm that takes a layer's output as it is, at each use of the layer."""
    if has_activation(layer):
        return None
    uses = graph.calls_of(layer)
    behind = [graph.only_consumer(use) for use in uses]
    if not all(call is not None and normalizes(graph, call, layer) for call in behind):
        return None
    norm = behind[0].operation
    alone = len(graph.calls_of(norm)) == len(uses) and all(c.operation is norm for c in behind)
    return norm if alone and isinstance(norm, layers.BatchNormalization) else None

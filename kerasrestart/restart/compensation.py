"""Compensates readers for the mean output of filters whose outgoing weights are set to zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.network.graph import Graph
from kerasrestart.network.operations import has_activation
from kerasrestart.network.paths import Path
from kerasrestart.network.reading_places import normalizes


def check_compensation(found: FilterLayers) -> None:
    """Checks that every reader of filters has a bias or a batch norm to compensate with.

    Args:
        found: Filter layers whose outgoing weights can all be set to zero.

    Raises:
        ValueError: A reader has no trainable bias, and no trainable batch norm directly after it.
    """
    paths = [found.channels.outgoing(filter_layer.layer) for filter_layer in found.layers.values()]
    _check_readers(found.graph, [reading.layer for path in paths for reading in path.readers])


def compensations(
    graph: Graph,
    paths: Mapping[str, Path],
    chosen: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
) -> Iterator[tuple[keras.Variable, np.ndarray]]:
    """Computes the changes of biases that keep the readers' mean outputs.

    A bias rises by mean x outgoing weight, summed over the removed channels and the positions of
    the kernel. That is exactly what is lost, except at the border of a padded convolution, where
    the kernel reads less. Without a bias, the moving mean of the batch norm directly after it falls
    by the same amount. This is equivalent in inference; in training a batch norm removes any shift.

    Args:
        graph: The model's graph.
        paths: By layer, the path of its chosen filters, from `outgoing_paths`.
        chosen: By layer, indices of filters. Readers' units that are restarted themselves are not
            compensated.
        means: By name of the reader, the mean of each channel of its input.

    Yields:
        A variable, and what is to be added to it: float64, of its shape.

    Raises:
        ValueError: A reader has neither bias nor batch norm, or no means of the right shape.
    """
    read: dict[int, tuple[layers.Layer, set[int]]] = {}
    for path in paths.values():
        for reading in path.readers:
            read.setdefault(id(reading.layer), (reading.layer, set()))[1].update(reading.channels)
    _check_readers(graph, [layer for layer, _ in read.values()])
    for layer, places in read.values():
        name = graph.name_of(layer)
        of_layer = np.asarray(means.get(name, ()))
        if of_layer.shape != (kernels.channels_of(layer),):
            raise ValueError(
                f"The mean inputs of layer '{name}' must be {kernels.channels_of(layer)} numbers, "
                f"as reader_input_means returns. Received: shape {of_layer.shape} of {list(means)}"
            )
        lost = np.zeros(of_layer.shape)
        lost[list(places)] = of_layer[list(places)]
        shift = kernels.response_to_means(layer, lost)
        shift[np.asarray(chosen.get(name, ()), int)] = 0
        if _has_bias(layer):
            yield layer.bias, shift
        else:
            yield _norm_behind(graph, layer).moving_mean, -shift


def _has_bias(layer: layers.Layer) -> bool:
    return layer.bias is not None and layer.trainable and layer.bias.trainable


def _check_readers(graph: Graph, readers: Iterable[layers.Layer]) -> None:
    bare = {
        graph.name_of(r): None
        for r in readers
        if not _has_bias(r) and _norm_behind(graph, r) is None
    }
    if bare:
        raise ValueError(
            "compensate_bias needs a trainable bias, or a trainable batch norm directly after it, "
            f"in each layer that reads restarted filters: {', '.join(bare)} has neither. Leave out "
            "the layers before it, or use compensate_bias=False."
        )


def _norm_behind(graph: Graph, layer: layers.Layer) -> layers.BatchNormalization | None:
    """Returns the batch norm that reads a layer's output directly, at each use of the layer."""
    if has_activation(layer):
        return None
    uses = graph.calls_of(layer)
    behind = [graph.only_consumer(use) for use in uses]
    if not all(call is not None and normalizes(graph, call, layer) for call in behind):
        return None
    norm = behind[0].operation
    alone = len(graph.calls_of(norm)) == len(uses) and all(c.operation is norm for c in behind)
    is_usable = isinstance(norm, layers.BatchNormalization) and norm.trainable
    return norm if alone and is_usable else None

"""The map of a network as a table: for people who ask what will be restarted, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kerasrestart.network.filter_layers import FilterLayer, FilterLayers, find_filter_layers
from kerasrestart.network.kernels import WITH_FILTERS, filters_of
from kerasrestart.network.operation_words import words_of
from kerasrestart.network.own_training import runs_eagerly
from kerasrestart.network.paths import Path
from kerasrestart.network.raw_operations import OUTPUT_GRADIENTS
from kerasrestart.network.reading_places import NORM
from kerasrestart.network.text import listed
from kerasrestart.network.traced_graph import called_layers, layers_out_of_sight

WIDTH = 120  # of a table with remarks in a column of their own
HEADER = ("layer", "kind", "filters", "score read after", "norm", "read by", "remark")


def describe(
    model: keras.Model,
    x: Any = None,
    *,
    layers: str | Sequence[str] | None = None,
    data: Any = None,
) -> str:
    """Shows for each layer with filters whether and how it is restarted.

    Example:
    ```python
    print(kerasrestart.describe(model))
    print(kerasrestart.describe(model, x[:1]))  # a subclass of keras.Model that is not built
    ```

    Args:
        model: Any Keras model.
        x: An example of what it takes, where it does not know that itself. Defaults to None.
        layers: Which layers are to be restarted: their names (paths, where two layers have the same
            name), or a regular expression that a whole name matches. Defaults to None: all
            convolutions.
        data: A batch as `train_step` takes it, for a model with a `train_step` of its own.
            Defaults to None.

    Returns:
        A table in text: a line for each layer with filters, in execution order: its name and kind,
        its number of filters, the layer after which its score is read, the norm that belongs to it,
        the layers that read its channels; and as a remark why it is left out, or why the outgoing
        weights of its filters are not their own. A table wider than 120 characters has the remarks
        on lines of their own, indented, below the layers that they are about.

    Raises:
        TypeError, ValueError: As `find_filter_layers` does.
    """
    found = find_filter_layers(model, layers, x, data)
    lines: list[tuple[str, ...]] = [HEADER]
    for layer in [*called_layers(found.graph), *layers_out_of_sight(found.graph, model)]:
        key = found.graph.name_of(layer)
        if key in found.layers:
            path = found.channels.path(layer)
            lines.append(_line(found.layers[key], path, _remark(found, key, runs_eagerly(model))))
        else:
            lines.append(_line_of_left_out(found, layer, key))
    table = _aligned(lines)
    if max(map(len, table)) > WIDTH:
        remarks = ["", *(line[-1] for line in lines[1:])]
        table = []
        for line, remark in zip(_aligned([line[:-1] for line in lines]), remarks, strict=True):
            table += [line, f"    {remark}"] if remark else [line]
    return "\n".join(table)


def _remark(found: FilterLayers, key: str, eager: bool) -> str:
    filter_layer = found.layers[key]
    remarks = [found.channels.outgoing(filter_layer.layer).obstacle()]
    # The scores are those of the layer's own calls, whatever the obstacle is.
    if (others := found.channels.shared_weights(filter_layer.layer)) not in (None, *remarks):
        remarks.append(others)
    unread = [function for function in filter_layer.unread if function is not None]
    if NORM in unread:
        remarks.append("its norm is not a layer, so that it has no score by feature maps")
    before = [
        words_of(function.type)
        for function in unread
        if function is not NORM
        and not function.homogeneous
        and (eager or function.type not in OUTPUT_GRADIENTS)
    ]
    if before:
        remarks.append(f"read before its activation, {listed(list(dict.fromkeys(before)))}")
    return "; ".join(remark for remark in remarks if remark)


def _line_of_left_out(found: FilterLayers, layer: keras.Layer, key: str) -> tuple[str, ...]:
    filters, readers = "", ""
    own = found.graph.notes_of(layer).own_kernels
    if own is not None and own.filters:
        filters = str(own.filters)
    if isinstance(layer, WITH_FILTERS) and layer.built:
        filters = str(filters_of(layer))
        if found.graph.calls_of(layer):
            readers = _names(found.channels.path(layer))
    return key, type(layer).__name__, filters, "", "", readers, f"left out: {found.left_out[key]}"


def _line(filter_layer: FilterLayer, path: Path, remark: str) -> tuple[str, ...]:
    reads = {read.operation.name: None for _, read in filter_layer.reads}
    return (
        filter_layer.name,
        type(filter_layer.layer).__name__,
        str(filter_layer.filters),
        listed(list(reads), width=30),
        filter_layer.norm.name if filter_layer.norm else "",
        _names(path),
        remark,
    )


def _names(path: Path) -> str:
    return listed([reading.name for reading in path.readers], width=30)


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]

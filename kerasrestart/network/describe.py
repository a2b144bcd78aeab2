"""The map of a network as a table: for people who ask what will be restarted, and why not."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayer, find_filter_layers
from kerasrestart.network.kernels import WITH_FILTERS, filters_of
from kerasrestart.network.paths import Path, listed

WIDTH = 120  # of a table whose remarks stand beside the rest
HEADER = ("layer", "kind", "filters", "score read after", "norm", "read by", "remark")


def describe(model: keras.Model, layers: str | Sequence[str] | None = None) -> str:
    """Tells of each layer with filters whether and how it is restarted.

    Args:
        model: A built Functional or Sequential model.
        layers: Which layers are to be restarted: their names, or a regular expression that a whole
            name matches. Defaults to None: all convolutions.

    Returns:
        A table in text: a line for each layer with filters, or with convolutions inside that are
        out of reach, in execution order: its name and kind, its number of filters, the layer after
        which its score is read, the batch norm that belongs to it, the layers that read its
        channels; and as a remark why it is left out, or why its filters' outgoing weights are not
        their own. Where that would be wider than 120 characters, remarks have lines of their own,
        indented, below those that they are about.

    Raises:
        TypeError, ValueError: As `find_filter_layers` does.

    Example:
    ```python
    print(kerasrestart.describe(keras.applications.ResNet50(weights=None)))
    ```
    """
    found = find_filter_layers(model, layers)
    channels = ChannelMap(found.graph)
    lines: list[tuple[str, ...]] = [HEADER]
    for call in found.graph.calls:
        layer = call.operation
        if call.occurrence:
            continue
        if isinstance(layer, WITH_FILTERS):
            path = channels.path(layer)
            filter_layer, left_out = found.layers.get(layer.name), None
            if (
                filter_layer is None or filter_layer.layer is not layer
            ):  # else another has the same name
                filter_layer, left_out = None, found.left_out[layer.name]
            remark = f"left out: {left_out}" if left_out else channels.outgoing(layer).obstacle()
            lines.append(_line(layer, filter_layer, path, remark or ""))
        elif layer.name in found.left_out:
            remark = f"left out: {found.left_out[layer.name]}"
            lines.append((layer.name, type(layer).__name__, *[""] * 4, remark))
    table = _aligned(lines)
    if max(map(len, table)) > WIDTH:
        remarks = ["", *(line[-1] for line in lines[1:])]
        table = []
        for line, remark in zip(_aligned([line[:-1] for line in lines]), remarks, strict=True):
            table += [line, f"    {remark}"] if remark else [line]
    return "\n".join(table)


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _line(
    layer: keras.Layer, filter_layer: FilterLayer | None, path: Path, remark: str
) -> tuple[str, ...]:
    reads = {read.operation.name: None for _, read in filter_layer.reads} if filter_layer else {}
    return (
        layer.name,
        type(layer).__name__,
        str(filters_of(layer)),
        listed(list(reads), width=30),
        filter_layer.norm.name if filter_layer and filter_layer.norm else "",
        listed([reading.layer.name for reading in path.readers], width=30),
        remark,
    )

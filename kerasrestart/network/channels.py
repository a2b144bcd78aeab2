"""Where the channel of each filter goes: which layers read it, which norms it passes.

Each tensor of the graph gets, for every number along its channel axis, the id of the filter that it
comes from. Layers that keep channels to themselves pass the ids on, Flatten repeats them,
Concatenate joins them, sums and products make two ids one. A layer with a kernel reads ids and
writes those of its own filters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from keras import layers

from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.kernels import (
    WITH_FILTERS,
    filters_of,
    filters_that_read,
    reading_kernel,
    reads_alone,
)
from kerasrestart.network.operations import MERGING, keeps_channels, kind_of

NO_FILTER = -1  # of a channel that comes from no filter, such as a colour of the image


@dataclasses.dataclass(frozen=True)
class Reading:
    """A layer, and the places on its input at which it reads something."""

    layer: layers.Layer
    channels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Path:
    """What becomes of the channels of some filters of one layer.

    Attributes:
        readers: The layers that read them by a kernel, and where on their inputs.
        norms: The batch norms that they pass, and where.
        shared_with: What is added to them, or multiplied with them: names of layers, "an input".
        escapes: Where they go that is not followed: layers that mix channels in other ways, and
            "an output" of the model.
    """

    readers: tuple[Reading, ...]
    norms: tuple[Reading, ...]
    shared_with: tuple[str, ...]
    escapes: tuple[str, ...]

    def joined(self, other: Path) -> Path:
        """This path, and another beside it."""
        return Path(
            readers=_united(self.readers + other.readers),
            norms=_united(self.norms + other.norms),
            shared_with=tuple(sorted({*self.shared_with, *other.shared_with})),
            escapes=tuple(sorted({*self.escapes, *other.escapes})),
        )

    def obstacle(self) -> str | None:
        """Why these readers' weights cannot be set to zero; None if they can."""
        if self.shared_with:
            return f"its channels are shared with {', '.join(self.shared_with)}"
        if self.escapes:
            return f"its channels go into {', '.join(self.escapes)}"
        if fixed := [r.layer.name for r in self.readers if not _learns(r.layer)]:
            return f"its channels are read by {', '.join(fixed)}, of fixed weights"
        return None if self.readers else "nothing reads its channels"


class ChannelMap:
    """The paths of the channels of all filters of a model.

    Args:
        graph: The model's graph.
    """

    def __init__(self, graph: Graph):
        self._first: dict[int, int] = {}  # id of the first filter of each layer, by the layer's id
        self._owner: list[str] = []  # the layer of each id
        self._parent: list[int] = []  # of each id: ids that were made one hang together as a tree
        self._read: list[tuple[layers.Layer, np.ndarray]] = []
        self._normed: list[tuple[layers.Layer, np.ndarray]] = []
        self._escapes: list[tuple[str, np.ndarray]] = []
        self._mixed_with_input: list[np.ndarray] = []
        self._ids: dict[int, np.ndarray] = {}
        self._shapes = graph.shapes
        for call in graph.calls:
            self._pass(call)
        for tensor in graph.outputs:
            self._escapes.append(("an output", self._of(tensor)))
        self._roots = np.array([self._root(i) for i in range(len(self._parent))], int)

    def path(self, layer: layers.Layer, filters: Sequence[int] | None = None) -> Path:
        """Follows the channels of some filters of a layer, all in one.

        Args:
            layer: A layer of `WITH_FILTERS` in the graph.
            filters: Their indices. Defaults to None: all of the layer.
        """
        own = self._own(layer)
        followed = own if filters is None else own[np.asarray(filters, int)]
        # One place more, for NO_FILTER: index -1.
        same = np.append(np.isin(self._roots, self._roots[followed]), False)
        others = np.setdiff1d(np.flatnonzero(same), followed)
        owners = {self._owner[i] for i in others if self._owner[i] != layer.name}
        if np.isin(others, own).any():
            owners.add(f"other filters of {layer.name}")
        if any(same[ids].any() for ids in self._mixed_with_input):
            owners.add("an input")
        return Path(
            readers=_readings(self._read, same),
            norms=_readings(self._normed, same),
            shared_with=tuple(sorted(owners)),
            escapes=tuple(sorted({name for name, ids in self._escapes if same[ids].any()})),
        )

    def outgoing(
        self,
        layer: layers.Layer,
        filters: Sequence[int] | None = None,
        passes: Callable[[layers.Layer, np.ndarray], np.ndarray] | None = None,
    ) -> Path:
        """Follows channels to the weights by which a filter counts: its outgoing ones.

        Each filter of a depthwise convolution reads one channel and nothing else. So that channel
        is followed on, as the depthwise filter's own: were the depthwise weights themselves set to
        zero, a constant would be left of both, and behind a ReLU neither might ever learn again.

        Args:
            layer: As in `path`.
            filters: As in `path`.
            passes: From a depthwise convolution and some of its filters, those that are to be
                followed. Defaults to None: all of them.

        Returns:
            The path, its readers no depthwise convolutions but those that read these in turn; its
            norms also those behind depthwise convolutions.
        """
        path = self.path(layer, filters)
        if path.shared_with:
            return path
        mixing = [reading for reading in path.readers if not reads_alone(reading.layer)]
        followed = dataclasses.replace(path, readers=tuple(mixing))
        for reading in path.readers:
            if reads_alone(reading.layer):
                behind = filters_that_read(reading.layer, reading.channels)
                if passes is not None:
                    behind = passes(reading.layer, behind)
                followed = followed.joined(self.outgoing(reading.layer, behind, passes))
        return followed

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i

    def _of(self, tensor: int) -> np.ndarray:
        """Ids along the channel axis; empty where the tensor comes from no filter at all."""
        return self._ids.get(tensor, np.zeros(0, int))

    def _pass(self, call: Call) -> None:
        """Writes the ids of what a call gives, from those of what it gets."""
        operation, inputs = call.operation, [self._of(tensor) for tensor in call.inputs]
        kind = kind_of(operation)
        written = None
        if getattr(operation, "data_format", None) == "channels_first":
            pass  # channels are looked for on the last axis only
        elif isinstance(operation, WITH_FILTERS):
            self._note(self._read, operation, inputs[0])
            self._ids[call.outputs[0]] = self._own(operation)
            return
        elif isinstance(operation, layers.BatchNormalization):
            if operation.axis in (-1, len(self._shapes[call.inputs[0]]) - 1):
                self._note(self._normed, operation, inputs[0])
                written = inputs[0]
        elif len(inputs) == 1 and keeps_channels(operation):
            written = inputs[0]
        elif kind in MERGING:
            written = self._merge(call, inputs)
        elif kind == "Concatenate":
            written = self._concatenate(call, inputs)
        elif kind in ("Flatten", "Reshape"):
            written = self._flatten(call, inputs[0])
        if written is None:
            self._escapes += [(operation.name, ids) for ids in inputs]
        else:
            self._ids[call.outputs[0]] = written

    def _own(self, layer: layers.Layer) -> np.ndarray:
        """The ids of a layer's filters; the same at each use of the layer."""
        if id(layer) not in self._first:
            first, count = len(self._parent), filters_of(layer)
            self._first[id(layer)] = first
            self._parent += range(first, first + count)
            self._owner += [layer.name] * count
        first = self._first[id(layer)]
        return np.arange(first, first + filters_of(layer))

    def _note(
        self,
        seen: list[tuple[layers.Layer, np.ndarray]],
        layer: layers.Layer,
        ids: np.ndarray,
    ) -> None:
        """Notes what a layer reads; what its uses read at one place is read by the same weight."""
        for before in (other for used, other in seen if used is layer):
            if before.size or ids.size:
                size = max(before.size, ids.size)
                self._unite(_padded(before, size), _padded(ids, size))
        seen.append((layer, ids))

    def _unite(self, ids: np.ndarray, others: np.ndarray) -> None:
        """Makes ids at the same place one."""
        both = (ids != NO_FILTER) & (others != NO_FILTER)
        for one, other in zip(ids[both], others[both], strict=True):
            self._parent[self._root(other)] = self._root(one)
        alone = (ids != NO_FILTER) ^ (others != NO_FILTER)
        self._mixed_with_input.append(np.maximum(ids, others)[alone])

    def _merge(self, call: Call, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
        channels = self._shapes[call.outputs[0]][-1]
        merged = np.full(channels or 0, NO_FILTER)
        for number, (tensor, ids) in enumerate(zip(call.inputs, inputs, strict=True)):
            if self._shapes[tensor][-1] != channels or channels is None:
                return None  # broadcast over the channels
            ids = _padded(ids, channels)
            if number:
                self._unite(merged, ids)
            merged = np.where(merged != NO_FILTER, merged, ids)
        return merged

    def _concatenate(self, call: Call, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
        if call.operation.axis in (-1, len(self._shapes[call.outputs[0]]) - 1):
            sizes = [self._shapes[tensor][-1] for tensor in call.inputs]
            return np.concatenate(
                [_padded(ids, size) for ids, size in zip(inputs, sizes, strict=True)]
            )
        return inputs[0] if all(np.array_equal(inputs[0], ids) for ids in inputs) else None

    def _flatten(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        features = self._shapes[call.outputs[0]][-1]
        if not ids.size:
            return ids
        # The channels lie innermost, so they repeat as long as none is split.
        whole = features is not None and features % ids.size == 0
        return np.tile(ids, features // ids.size) if whole else None


def _padded(ids: np.ndarray, channels: int) -> np.ndarray:
    """The ids of a tensor's channels, also of one that comes from no filter at all."""
    return ids if ids.size else np.full(channels, NO_FILTER)


def _readings(
    read: Sequence[tuple[layers.Layer, np.ndarray]], same: np.ndarray
) -> tuple[Reading, ...]:
    """Who reads the marked ids, and where."""
    found = [Reading(layer, tuple(np.flatnonzero(same[ids]).tolist())) for layer, ids in read]
    return _united([reading for reading in found if reading.channels])


def _united(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Readings with each layer once."""
    found: dict[int, tuple[layers.Layer, set[int]]] = {}
    for reading in readings:
        found.setdefault(id(reading.layer), (reading.layer, set()))[1].update(reading.channels)
    return tuple(Reading(layer, tuple(sorted(places))) for layer, places in found.values())


def _learns(layer: layers.Layer) -> bool:
    """Whether the weights by which a layer reads can grow from zero."""
    return not getattr(layer, "lora_enabled", False) and reading_kernel(layer).trainable

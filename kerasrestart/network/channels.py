"""Where the channel of each filter goes: which layers read it, which norms it passes.

Each tensor of the graph gets, for every number along its channel axis, the id of the filter that it
comes from. Layers that keep channels to themselves pass the ids on, Flatten repeats them,
Concatenate joins them, sums and products make two ids one. A layer with a kernel reads ids and
writes those of its own filters.

The channel axis of a tensor is the last one, or the first behind the batch where layers are made
with `data_format="channels_first"`; a layer that takes another axis for it mixes channels.
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
    reads_alone,
)
from kerasrestart.network.operations import (
    LAST,
    MERGING,
    channels_first,
    keeps_channels,
    kind_of,
)
from kerasrestart.network.paths import Path, Reading, united

NO_FILTER = -1  # of a channel that comes from no filter, such as a colour of the image


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
        self._axis: dict[int, int] = {}  # where the ids lie: LAST, or 1
        self._shapes = graph.shapes
        for call in graph.calls:
            self._pass(call)
        for tensor in graph.outputs:
            self._escapes.append(("an output", self._of(tensor)))
        self._roots = np.array([self._root(i) for i in range(len(self._parent))], int)

    def path(self, layer: layers.Layer, filters: Sequence[int] | np.ndarray | None = None) -> Path:
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
        filters: Sequence[int] | np.ndarray | None = None,
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
        axes = {self._axis[t] for t, ids in zip(call.inputs, inputs, strict=True) if ids.size}
        axis = axes.pop() if axes else LAST
        if axes:
            self._escapes += [(operation.name, ids) for ids in inputs]
            return
        kind, rank = kind_of(operation), len(self._shapes[call.inputs[0]])
        written = None
        if isinstance(operation, WITH_FILTERS):
            own_axis = 1 if channels_first(operation) and rank > 2 else LAST
            if inputs[0].size and own_axis != axis:
                self._escapes.append((operation.name, inputs[0]))
            else:
                self._note(self._read, operation, inputs[0])
            written, axis = self._own(operation), own_axis
        elif isinstance(operation, layers.BatchNormalization):
            if operation.axis % rank == axis % rank:
                self._note(self._normed, operation, inputs[0])
                written = inputs[0]
        elif len(inputs) == 1 and keeps_channels(operation, axis):
            written = inputs[0]
        elif kind in MERGING:
            written = self._merge(call, inputs, axis)
        elif kind == "Concatenate":
            written = self._concatenate(call, inputs, axis)
        elif kind in ("Flatten", "Reshape"):
            written, axis = self._reshape(call, inputs[0], axis)
        if written is None:
            self._escapes += [(operation.name, ids) for ids in inputs]
        else:
            self._ids[call.outputs[0]] = written
            self._axis[call.outputs[0]] = LAST if len(self._shapes[call.outputs[0]]) == 2 else axis

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

    def _merge(self, call: Call, inputs: Sequence[np.ndarray], axis: int) -> np.ndarray | None:
        shape = self._shapes[call.outputs[0]]
        channels = shape[axis]
        merged = np.full(channels or 0, NO_FILTER)
        for number, (tensor, ids) in enumerate(zip(call.inputs, inputs, strict=True)):
            of_tensor = self._shapes[tensor]
            if axis != LAST and len(of_tensor) != len(shape):
                return None
            if of_tensor[axis] != channels or channels is None:
                return None  # broadcast over the channels
            ids = _padded(ids, channels)
            if number:
                self._unite(merged, ids)
            merged = np.where(merged != NO_FILTER, merged, ids)
        return merged

    def _concatenate(
        self, call: Call, inputs: Sequence[np.ndarray], axis: int
    ) -> np.ndarray | None:
        rank = len(self._shapes[call.outputs[0]])
        if call.operation.axis % rank == axis % rank:
            sizes = [self._shapes[tensor][axis] for tensor in call.inputs]
            return np.concatenate(
                [_padded(ids, size) for ids, size in zip(inputs, sizes, strict=True)]
            )
        return inputs[0] if all(np.array_equal(inputs[0], ids) for ids in inputs) else None

    def _reshape(self, call: Call, ids: np.ndarray, axis: int) -> tuple[np.ndarray | None, int]:
        """The ids behind a Flatten or Reshape, and the axis along which they lie."""
        before, after = self._shapes[call.inputs[0]], self._shapes[call.outputs[0]]
        if not ids.size:
            return ids, LAST
        if kind_of(call.operation) == "Flatten" and channels_first(call.operation):
            if axis == LAST and len(before) > 2:
                return None, LAST
            axis = LAST  # it moves the channels to the end before it flattens
        if len(after) > 2 and after[1] == ids.size and (axis == 1 or len(before) == 2):
            return ids, 1 if after[-1] != ids.size else LAST
        features = after[-1]
        if features is None or features % ids.size or (axis == 1 and len(after) > 2):
            return None, LAST
        # Innermost, the channels repeat as long as none is split; outermost, each stands together.
        repeated = np.tile if axis == LAST else np.repeat
        return repeated(ids, features // ids.size), LAST


def _padded(ids: np.ndarray, channels: int) -> np.ndarray:
    """The ids of a tensor's channels, also of one that comes from no filter at all."""
    return ids if ids.size else np.full(channels, NO_FILTER)


def _readings(
    read: Sequence[tuple[layers.Layer, np.ndarray]], same: np.ndarray
) -> tuple[Reading, ...]:
    """Who reads the marked ids, and where."""
    found = [Reading(layer, tuple(np.flatnonzero(same[ids]).tolist())) for layer, ids in read]
    return united([reading for reading in found if reading.channels])

"""Where the channel of each filter goes: which layers read it, which norms it passes.

Each tensor of the graph gets, for every number along its channel axis, the id of the filter that it
comes from. Layers that keep channels to themselves pass the ids on, Flatten repeats them,
Concatenate joins them, sums and products make two ids one. A layer with a kernel reads ids and
writes those of its own filters.

The channel axis of a tensor is the last one, or the first after the batch where layers are made
with `data_format="channels_first"`; a layer that takes another axis for it mixes channels.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from keras import layers

from kerasrestart.network.channel_ids import NO_FILTER, Tensors, padded
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.kernels import (
    WITH_FILTERS,
    filters_of,
    filters_that_read,
    is_dense,
    reads_alone,
)
from kerasrestart.network.operations import (
    LAST,
    MERGING,
    channels_first,
    keeps_channels,
)
from kerasrestart.network.paths import Path, Reading, united
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.text import listed


class _Entries:
    """Arrays of ids, and in which of them each root occurs.

    Attributes:
        roots: The arrays, with the root in place of each id.
    """

    def __init__(self, roots: np.ndarray, all_ids: Sequence[np.ndarray]):
        with_none = np.append(roots, NO_FILTER)  # NO_FILTER is index -1
        self.roots = [with_none[ids] for ids in all_ids]
        self._numbers: dict[int, list[int]] = defaultdict(list)
        for number, own in enumerate(self.roots):
            for root in np.unique(own).tolist():
                self._numbers[root].append(number)

    def of(self, roots: np.ndarray) -> list[int]:
        """The numbers of the arrays in which some roots occur."""
        found = (self._numbers.get(root, ()) for root in roots.tolist())
        return sorted(set().union(*found))


class ChannelMap:
    """The paths of the channels of all filters of a model.

    Args:
        graph: The model's graph.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self._first: dict[int, int] = {}  # id of the first filter of each layer, by the layer's id
        self._owner: list[str] = []  # the layer of each id
        self._parent: list[int] = []  # ids that are one channel form a tree
        self._read: list[tuple[layers.Layer, np.ndarray]] = []
        self._read_before: dict[int, tuple[np.ndarray, frozenset[str]]] = {}
        self._normed: list[tuple[layers.Layer, np.ndarray]] = []
        self._escapes: list[tuple[str, np.ndarray]] = []
        # What lies on channels of filters and comes from none: its sources, and their ids.
        self._mixed: list[tuple[frozenset[str], np.ndarray]] = []
        self._tensors = Tensors(graph.shapes)
        for call in graph.calls:
            self._pass(call)
        end = "an output" if graph.trained is None else "the loss"
        for tensor in graph.outputs:
            self._escapes.append((end, self._tensors.ids(tensor)))
        self._roots = np.array([self._root(i) for i in range(len(self._parent))], int)
        # For each root, how many ids each layer has of it.
        self._owners: dict[int, Counter[str]] = defaultdict(Counter)
        for owner, root in zip(self._owner, self._roots.tolist(), strict=True):
            self._owners[root][owner] += 1
        self._read_at = _Entries(self._roots, [ids for _, ids in self._read])
        self._normed_at = _Entries(self._roots, [ids for _, ids in self._normed])
        self._escapes_at = _Entries(self._roots, [ids for _, ids in self._escapes])
        self._mixed_at = _Entries(self._roots, [ids for _, ids in self._mixed])
        self._paths: dict[bytes, Path] = {}  # by roots: those of a residual network are long

    def path(self, layer: layers.Layer, filters: Sequence[int] | np.ndarray | None = None) -> Path:
        """Follows the channels of some filters of a layer, all in one.

        Args:
            layer: A layer of `WITH_FILTERS` in the graph.
            filters: Their indices. Defaults to None: all of the layer.
        """
        own = self._own(layer)
        followed = own if filters is None else own[np.asarray(filters, int)]
        roots = np.unique(self._roots[followed])
        whole = self._path_of(roots)
        name = self._graph.name_of(layer)
        owners = set(whole.shared_with) - {name}
        if sum(self._owners[root][name] for root in roots.tolist()) > len(set(followed.tolist())):
            owners.add(f"other filters of {name}")
        escapes = set(whole.escapes)
        if coupled := self._graph.notes_of(layer).coupled:
            escapes.add(coupled)
        involved = [layer, *(reader.layer for reader in whole.readers)]
        return dataclasses.replace(
            whole,
            shared_with=tuple(sorted(owners)),
            escapes=tuple(sorted(escapes)),
            shared_weights=tuple(filter(None, map(self.shared_weights, involved))),
        )

    def shared_weights(self, layer: layers.Layer) -> str | None:
        """What else of the model reads the weights of a layer, in words; None if nothing does."""
        others = self._graph.notes_of(layer).shared_weights
        if not others:
            return None
        return f"the weights of {self._graph.name_of(layer)} are also read by {listed(others)}"

    def _path_of(self, roots: np.ndarray) -> Path:
        """All that has some roots; `shared_with` are all layers that have them."""
        key = roots.tobytes()
        if key not in self._paths:
            owners = set().union(*(self._owners[root] for root in roots.tolist()))
            owners.update(*(self._mixed[i][0] for i in self._mixed_at.of(roots)))
            self._paths[key] = Path(
                readers=self._readings(self._read, self._read_at, roots),
                norms=self._readings(self._normed, self._normed_at, roots),
                shared_with=tuple(owners),
                escapes=tuple({self._escapes[i][0] for i in self._escapes_at.of(roots)}),
                shared_weights=(),
            )
        return self._paths[key]

    def outgoing(
        self,
        layer: layers.Layer,
        filters: Sequence[int] | np.ndarray | None = None,
        passes: Callable[[layers.Layer, np.ndarray], np.ndarray] | None = None,
    ) -> Path:
        """Follows channels to the weights by which a filter counts: its outgoing ones.

        Each filter of a depthwise convolution reads one channel and nothing else. So that channel
        is followed further, as the depthwise filter's own: if the depthwise weights themselves were
        set to zero, a constant would be left of both, and after a ReLU neither might ever learn
        again.

        Args:
            layer: As in `path`.
            filters: As in `path`.
            passes: From a depthwise convolution and some of its filters, those to follow. Defaults
                to None: all of them.

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

    def readers_of(self, layer: layers.Layer) -> list[tuple[layers.Layer, np.ndarray]]:
        """Finds what reads the filters of a layer directly, channel by channel.

        Args:
            layer: As in `path`.

        Returns:
            The layers that read them by a kernel, each once, and int64 `[channels]` of its input:
            the filter on each channel, -1 where that is none of them.
        """
        own = self._roots[self._own(layer)]
        filter_of = np.full(len(self._roots) + 1, -1)  # the last one, of NO_FILTER, stays
        filter_of[own[::-1]] = np.arange(len(own))[::-1]
        found = {}
        for number in self._read_at.of(np.unique(own)):
            found[id(self._read[number][0])] = (
                self._read[number][0],
                filter_of[self._read_at.roots[number]],
            )
        return list(found.values())

    def _readings(
        self,
        read: Sequence[tuple[layers.Layer, np.ndarray]],
        entries: _Entries,
        roots: np.ndarray,
    ) -> tuple[Reading, ...]:
        wanted, found = np.zeros(len(self._roots) + 1, bool), []
        wanted[roots] = True  # the last one, of NO_FILTER, is not
        for number in entries.of(roots):
            layer, _ = read[number]
            channels = tuple(np.flatnonzero(wanted[entries.roots[number]]).tolist())
            found.append(Reading(layer, channels, self._graph.name_of(layer)))
        return united(found)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def _pass(self, call: Call) -> None:
        """Writes the ids of what a call gives, from those of what it gets."""
        operation, tensors = call.operation, self._tensors
        inputs = [tensors.ids(tensor) for tensor in call.inputs]
        axes = {tensors.axis(t) for t, ids in zip(call.inputs, inputs, strict=True) if ids.size}
        axis = axes.pop() if axes else LAST
        written: list[np.ndarray] | None = None
        if axes:
            pass
        elif isinstance(operation, RawOperation):
            written, axis = self._pass_raw(call, inputs, axis)
        elif isinstance(operation, WITH_FILTERS):
            written = [self._read_and_write(call, inputs[0], axis)]
            axis = self._own_axis(call)
        else:
            one, axis = self._pass_layer(call, inputs, axis)
            written = None if one is None else [one]
        if written is None:
            self._escape(call, inputs)
        else:
            tensors.write(call.outputs, written, axis)
        is_lost = written is None and any(ids.size for ids in inputs)
        tensors.write_sources(call, self._graph.name_of(operation) if is_lost else None)

    def _escape(self, call: Call, inputs: Sequence[np.ndarray]) -> None:
        if self._graph.reaches_output(call):
            name = self._graph.name_of(call.operation)
            self._escapes += [(name, ids) for ids in inputs if ids.size]

    def _own_axis(self, call: Call) -> int:
        """The channel axis of a layer with filters, of what it reads and of what it writes."""
        positions = len(self._tensors.shape(call.inputs[0])) > 2
        return 1 if channels_first(call.operation) and positions else LAST

    def _read_and_write(self, call: Call, ids: np.ndarray, axis: int) -> np.ndarray:
        layer = call.operation
        plain = not isinstance(layer, layers.EinsumDense) or is_dense(layer)
        if (
            not plain
            or self._graph.notes_of(layer).is_altered
            or (ids.size and self._own_axis(call) != axis)
        ):
            self._escape(call, [ids])
        else:
            self._note(self._read, call, ids)
        return self._own(layer)

    def _pass_layer(
        self, call: Call, inputs: Sequence[np.ndarray], axis: int
    ) -> tuple[np.ndarray | None, int]:
        layer, rank = call.operation, len(self._tensors.shape(call.inputs[0]))
        if isinstance(layer, layers.BatchNormalization):
            if layer.axis % rank == axis % rank:
                self._note(self._normed, call, inputs[0])
                return inputs[0], axis
        elif len(inputs) == 1 and keeps_channels(layer, axis):
            return inputs[0], axis
        elif isinstance(layer, MERGING):
            return self._merge(call, inputs, axis), axis
        elif isinstance(layer, layers.Concatenate):
            return self._tensors.concatenated(call, layer.axis, axis), axis
        elif isinstance(layer, layers.Flatten | layers.Reshape):
            flattens_first = isinstance(layer, layers.Flatten) and channels_first(layer)
            return self._tensors.reshaped(call, axis, flattens_first)
        return None, axis

    def _pass_raw(
        self, call: Call, inputs: Sequence[np.ndarray], axis: int
    ) -> tuple[list[np.ndarray] | None, int]:
        operation, tensors = call.operation, self._tensors
        before, after = (tensors.shape(t) for t in (call.inputs[0], call.outputs[0]))
        channel = axis % len(before) if before else 0
        if not any(ids.size for ids in inputs) and operation.kind != "concatenate":
            return [inputs[0]] * len(call.outputs), axis
        if not before or not after:
            return None, axis
        if operation.kind == "merge":
            one = self._merge(call, inputs, axis)
        elif operation.kind == "concatenate":
            one = tensors.concatenated(call, operation.axis, axis)
        elif operation.kind == "reshape":
            one, axis = tensors.reshaped(call, axis)
        elif operation.kind == "slice":
            if axis != LAST:
                return None, axis
            return [inputs[0][channels] for channels in operation.channels], axis
        elif operation.kind == "transpose":
            order = operation.permutation
            kept = order[0] == 0 and order[channel] == channel
            one = inputs[0] if kept else None
        elif operation.keeps_channels(channel):
            same_place = axis == LAST or len(before) == len(after) or len(after) == 2
            if axis == LAST and before[-1] != after[-1]:
                same_place = False
            return ([inputs[0]] * len(call.outputs) if same_place else None), axis
        else:
            one = None
        return (None if one is None else [one]), axis

    def _own(self, layer: layers.Layer) -> np.ndarray:
        """The ids of a layer's filters; the same at each use of the layer."""
        if id(layer) not in self._first:
            first, count = len(self._parent), filters_of(layer)
            self._first[id(layer)] = first
            self._parent += range(first, first + count)
            self._owner += [self._graph.name_of(layer)] * count
        first = self._first[id(layer)]
        return np.arange(first, first + filters_of(layer))

    def _note(
        self, seen: list[tuple[layers.Layer, np.ndarray]], call: Call, ids: np.ndarray
    ) -> None:
        """Notes what a layer reads; what its uses read on one channel is read by one weight."""
        layer, sources = call.operation, self._tensors.sources(call.inputs[0])
        before, sources_before = self._read_before.get(id(layer), (None, sources))
        if before is not None and (before.size or ids.size):
            size = max(before.size, ids.size)
            self._unite(padded(before, size), padded(ids, size), sources_before, sources)
        if before is None or ids.size:
            self._read_before[id(layer)] = ids, sources
        seen.append((layer, ids))

    def _unite(
        self,
        ids: np.ndarray,
        others: np.ndarray,
        sources: frozenset[str],
        sources_of_others: frozenset[str],
    ) -> None:
        """Makes ids on the same channel one; the sources are of the channels without an id."""
        both = (ids != NO_FILTER) & (others != NO_FILTER)
        for one, other in zip(ids[both].tolist(), others[both].tolist(), strict=True):
            self._parent[self._root(other)] = self._root(one)
        self._mixed.append((sources_of_others, ids[(ids != NO_FILTER) & ~both]))
        self._mixed.append((sources, others[(others != NO_FILTER) & ~both]))

    def _merge(self, call: Call, inputs: Sequence[np.ndarray], axis: int) -> np.ndarray | None:
        shape = self._tensors.shape(call.outputs[0])
        channels = shape[axis]
        merged, sources = np.full(channels or 0, NO_FILTER), frozenset[str]()
        for number, (tensor, ids) in enumerate(zip(call.inputs, inputs, strict=True)):
            of_tensor = self._tensors.shape(tensor)
            if axis != LAST and len(of_tensor) != len(shape):
                return None
            if not of_tensor or of_tensor[axis] != channels or channels is None:
                return None  # broadcast over the channels
            ids = padded(ids, channels)
            if number:
                self._unite(merged, ids, sources, self._tensors.sources(tensor))
            sources |= self._tensors.sources(tensor)
            merged = np.where(merged != NO_FILTER, merged, ids)
        return merged

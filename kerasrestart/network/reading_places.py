"""Where the score of each filter is read.

The feature map z of a filter is taken after the filter's norm and activation: before a batch
norm the Taylor score is degenerate, since the norm makes the loss blind to the filter's scale and
the sum of z * dC/dz vanishes. The same holds for any other norm: one of Keras's, over whatever
axes, or one that is made of operations, with the scale and shift that follow it; and for a scale
and shift without a norm, which are part of the filter as its bias is.

From there the reading place moves on for as long as sum(z * dC/dz) over each channel stays the
same. It does through every map that acts on each channel alone and is positively homogeneous of
degree one (Euler's theorem): ReLU, pooling, dropout, padding, cropping, up-sampling, and a
depthwise convolution that adds nothing. A score read after a 2x2 pooling costs a quarter of the
one before it.

Where a training step or loss may read maps in a way that is not seen, the score is read at the
first place.

Only the output of a layer can be read. After a raw operation, such as `tf.nn.relu`, the score is
read at a later layer if the sum is still the same there, else before it. Where the graph of the
training step shows that operation, its output is taken all the same, see `scoring/scored_part.py`.
"""

from __future__ import annotations

import dataclasses
import math

from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.operations import (
    HOMOGENEOUS,
    NORMS,
    activates,
    computes_as_keras,
    has_activation,
    is_homogeneous_activation,
    is_linear_by_channel,
    joins,
    shrinks,
    takes_as_channels,
)
from kerasrestart.network.raw_operations import PRODUCTS, SUMS, RawOperation

# Stands for a norm that is made of operations, of which no layer gives the result.
NORM = RawOperation("a norm", "Norm")
# Operations that keep the numbers of each channel together, in another place.
MOVES = ("Reshape", "Transpose", "StridedSlice", "GatherV2", "DepthwiseConv2dNative")


@dataclasses.dataclass(frozen=True)
class ReadingPlace:
    """Where one use of a layer with filters is read.

    Attributes:
        read: The call of a layer whose output is read.
        norm: The norm behind the filters, or None.
        activation: The call that makes the activation; where there is none or no layer gives it,
            that of the norm or of the layer itself.
        unread: The activation function, or `NORM`, behind all places that can be read; or None.
    """

    read: Call
    norm: layers.Layer | None
    activation: Call
    unread: RawOperation | None


def reading_place(graph: Graph, start: Call, uses: int) -> ReadingPlace:
    """Walks from a layer with filters to where its score is read, its norm and its activation.

    Args:
        graph: The graph of the model.
        start: A call of the layer.
        uses: How many calls of the layer there are.
    """
    axis = kernels.channel_axis_of(start.operation)
    walk, current = _Walk(graph, start, axis), start
    while (following := _following(graph, current)) is not None:
        if not walk.passes(current, following):
            break
        current = following
    walk.end()
    read, same = walk.best if walk.same else start, walk.same
    unread = walk.unread
    if unread is None and _is_normed_apart(graph, current):
        unread = NORM
    if graph.is_partial and walk.same:
        read, same = walk.same[0], walk.same[:1]
    elif not walk.changed:
        read, same = _cheapest(graph, read, axis, same)
    read = _unshared(graph, read, same, uses)
    return ReadingPlace(read, walk.norm, walk.activation or walk.best, unread)


class _Walk:
    """What is known on the way from a layer with filters to where its score is read.

    Attributes:
        same: The places of one sum, from the last map that changes it.
        best: The one of them to begin with.
        norm: The norm behind the filters, or None.
        activation: The call that makes the activation, or None.
        unread: The activation function, or `NORM`, that no place is behind yet; or None.
        changed: Whether the sum has changed since the last place, so that only a place further on
            can be read.
    """

    def __init__(self, graph: Graph, start: Call, axis: int):
        self.same, self.best = [start], start
        self.norm: layers.Layer | None = None
        self.activation = start if has_activation(start.operation) else None
        self.unread: RawOperation | None = None
        self.changed = False
        self._graph = graph
        self._layer = start.operation
        self._axis = axis
        self._is_normed = False
        # The places, the best and what is unread, before a norm over all channels.
        self._before_norm: tuple[list[Call], Call, RawOperation | None] | None = None
        self._is_activated = self.activation is not None

    def passes(self, current: Call, following: Call) -> bool:
        """Continues with the next call; returns False where the sum is lost there."""
        place, operation = _place(self._graph, following), following.operation
        if not self._is_normed and _is_norm(self._graph, current, following):
            self._pass_norm(place, _is_across(self._graph, current))
        elif not self._is_activated and activates(operation):
            self._pass_activation(operation, place)
        elif not self._is_activated and _is_shift(operation):
            self._pass_shift(place)
        elif passes_scores(self._graph, following, self._axis):
            self._pass_on(place)
        else:
            return False
        return True

    def end(self) -> None:
        """Reads before a norm whose result no layer gives, if it is one over all channels.

        There the sum of z * dC/dz vanishes over all filters, and not for each.
        """
        if self.unread is NORM and self._before_norm is not None:
            self.same, self.best, self.unread = self._before_norm
            self.changed = False

    def _pass_norm(self, place: Call | None, across: bool) -> None:
        self._is_normed = True
        self.norm = _own_norm(self._graph, place, self._layer)
        if place is None:
            if across and not self.changed:
                self._before_norm = self.same, self.best, self.unread
            self.same, self.changed, self.unread = [], True, NORM
        else:
            self._begin_at(place)

    def _pass_activation(self, function: layers.Layer | RawOperation, place: Call | None) -> None:
        self._is_activated = True
        keeps_sum = is_homogeneous_activation(function)
        if place is not None:
            self._begin_at(place, keeps_sum)
            self.activation = place
        elif self.unread is None:
            self.unread = function
            self.changed = self.changed or not keeps_sum

    def _pass_shift(self, place: Call | None) -> None:
        if place is None:
            self.changed = True
        else:
            self._begin_at(place)

    def _pass_on(self, place: Call | None) -> None:
        if place is None:
            return
        if self.changed:
            self._begin_at(place)
            self.activation = place
        else:
            self.same.append(place)

    def _begin_at(self, place: Call, keeps_sum: bool = False) -> None:
        """Reads at a place, and of those before it only where the sum is still the same."""
        self.same = [*self.same, place] if keeps_sum and not self.changed else [place]
        self.best, self.changed, self.unread = place, False, None


def _is_normed_apart(graph: Graph, call: Call, joined: bool = False) -> bool:
    """Whether channels of a call end in norms of each channel, behind a split or several readers.

    No place is behind such norms for all filters, and before them their scores are about zero.

    Args:
        graph: The graph of the call.
        call: The call.
        joined: Whether channels of other layers are beside them. Defaults to False.
    """
    if not (graph.outputs | graph.losses).isdisjoint(call.outputs):
        return False
    readers = [
        not joined or graph.normalized[tensor].by_channel
        if tensor in graph.normalized
        else _loses_scale(graph, reader, joined)
        for tensor in call.outputs
        for reader in graph.consumers.get(tensor, ())
    ]
    return any(readers) if _splits(call) else bool(readers) and all(readers)


def _loses_scale(graph: Graph, call: Call, joined: bool) -> bool:
    operation = call.operation
    if isinstance(operation, layers.GroupNormalization):
        return operation.groups in (-1, graph.shapes[call.outputs[0]][operation.axis])
    moves = joins(operation) or _splits(call) or _type_of(call) in MOVES
    return moves and _is_normed_apart(graph, call, joined or joins(operation))


def _splits(call: Call) -> bool:
    return _type_of(call) in ("Split", "SplitV")


def _type_of(call: Call) -> str | None:
    return call.operation.type if isinstance(call.operation, RawOperation) else None


def _following(graph: Graph, call: Call) -> Call | None:
    """The next call of the walk: the only reader, or the end of a norm that is made of several."""
    if len(call.outputs) != 1 or call.outputs[0] not in graph.normalized:
        return graph.only_consumer(call)
    end = graph.makers[graph.normalized[call.outputs[0]].result]
    while (behind := graph.only_consumer(end)) is not None:
        scale = behind.operation
        if not isinstance(scale, RawOperation):
            break
        of_each = scale.kind == "elementwise" and not scale.activates
        if not of_each and (_place(graph, end) or not _modulates(graph, behind, end)):
            break
        end = behind
    return end


def _modulates(graph: Graph, call: Call, norm: Call) -> bool:
    """Whether a call scales or shifts a norm's result by other data, as in AdaIN."""
    if call.operation.type in PRODUCTS:
        return True
    # One number for all positions: else it is a sum with another feature map.
    others = [graph.shapes[tensor] for tensor in call.inputs if tensor not in norm.outputs]
    size = graph.shapes[call.outputs[0]]
    return call.operation.type in SUMS and all(other != size for other in others)


def _is_norm(graph: Graph, current: Call, following: Call) -> bool:
    norm = following.operation
    is_layer = isinstance(norm, NORMS) and computes_as_keras(norm)
    return is_layer or not graph.normalized.keys().isdisjoint(current.outputs)


def _is_across(graph: Graph, call: Call) -> bool:
    norms = [graph.normalized[tensor] for tensor in call.outputs if tensor in graph.normalized]
    return any(norm.across_channels for norm in norms)


def _is_shift(operation: layers.Layer | RawOperation) -> bool:
    """Whether an operation scales and shifts each number, as a batch norm does in inference."""
    is_affine = isinstance(operation, RawOperation) and operation.kind == "elementwise"
    return is_affine and not operation.activates and not operation.homogeneous


def _own_norm(graph: Graph, place: Call | None, layer: layers.Layer) -> layers.Layer | None:
    """The layer of a norm, where that has a scale and shift for each channel of `layer`."""
    return place.operation if place is not None and _is_along(graph, place, layer) else None


def normalizes(graph: Graph, call: Call, layer: layers.Layer) -> bool:
    """Whether a call is that of a norm with a scale and shift for each channel of `layer`."""
    return computes_as_keras(call.operation) and _is_along(graph, call, layer)


def _is_along(graph: Graph, call: Call, layer: layers.Layer) -> bool:
    norm = call.operation
    if not isinstance(norm, NORMS):
        return False
    rank = len(graph.shapes[call.outputs[0]])
    axes = norm.axis if isinstance(norm.axis, list | tuple) else [norm.axis]
    return [axis % rank for axis in axes] == [kernels.channel_axis_of(layer) % rank]


def passes_scores(graph: Graph, call: Call, axis: int, linear: bool = False) -> bool:
    """Whether sum(z * dC/dz) over each channel is the same before and behind a call.

    Args:
        graph: The graph of the call.
        call: The call.
        axis: The channel axis of what it takes, -1 or 1.
        linear: Whether layers with filters of their own count too. Defaults to False.
    """
    operation = call.operation
    before, after = graph.shapes[call.inputs[0]], graph.shapes[call.outputs[0]]
    if isinstance(operation, RawOperation):
        if not before or not after or len(call.outputs) != 1:
            return False
        if operation.kind == "reshape":
            # [batch, 1, 1, channels] to [batch, channels]; no example is split.
            known = None not in (*before[1:], *after[1:])
            of_example = known and math.prod(before[1:]) == math.prod(after[1:])
            keeps_examples = of_example or operation.keeps_examples
            return axis == -1 and before[-1] == after[-1] and keeps_examples
        same_place = axis == -1 or len(before) == len(after) or len(after) == 2
        return same_place and operation.passes_scores(axis % len(before))
    if isinstance(operation, layers.Reshape):
        return axis == -1 and before[-1] == after[-1] is not None
    passes = isinstance(operation, HOMOGENEOUS) or (linear and is_linear_by_channel(operation))
    return passes and takes_as_channels(operation, axis)


def _place(graph: Graph, call: Call) -> Call | None:
    """The call of a layer that gives the output of a call."""
    return (
        call if not isinstance(call.operation, RawOperation) else graph.places.get(call.outputs[0])
    )


def _cheapest(graph: Graph, read: Call, axis: int, same: list[Call]) -> tuple[Call, list[Call]]:
    """The last place after `read` that holds fewer elements; and all of the same sum."""
    same, fewer, current = list(same), False, read
    while (following := graph.only_consumer(current)) is not None:
        is_raw = isinstance(following.operation, RawOperation)
        if not passes_scores(graph, following, axis, linear=True):
            break
        fewer = fewer or shrinks(following.operation)
        place = _place(graph, following)
        if place is not None and place not in same:
            same.append(place)
        if place is not None and fewer and (shrinks(following.operation) or is_raw):
            read, fewer = place, False
        current = following
    return read, same


def _unshared(graph: Graph, read: Call, same: list[Call], uses: int) -> Call:
    """A place that only this layer's filters pass; `read` if it is one, or if there is none."""

    def alone(place: Call) -> bool:
        return graph.uses_of(place.operation) == uses

    if alone(read):
        return read
    where = same.index(read)
    nearest = sorted(range(len(same)), key=lambda i: (abs(i - where), -i))
    return next((same[i] for i in nearest if alone(same[i])), read)

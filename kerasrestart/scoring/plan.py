"""Which calls of which layers are read to score the filters of a model."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import keras

from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.variable_reads import variable_ids
from kerasrestart.scoring.affine_weights import affine_weights
from kerasrestart.scoring.criteria import Criterion, Needs

CallKey = tuple[int, int]  # id of the operation, number of its call within one forward pass


@dataclasses.dataclass(frozen=True)
class Reading:
    """One use of a filter layer in a forward pass.

    Attributes:
        number: The number of the filter layer.
        own: The call of the layer itself, whose positions are counted.
        channel_axis: The axis of the filters.
        unread: Type of what is after the place that is read but before that of the score, as no
            layer gives its output: a norm or an activation function; else None.
    """

    number: int
    own: CallKey
    channel_axis: int
    unread: str | None = None


class ReadingPlan:
    """The calls whose outputs a criterion reads, and those whose positions it counts.

    Args:
        graph: The graph of the model.
        layers: The scored layers.
        criterion: The criterion.

    Attributes:
        operations: The operations to hook, by `id`.
        calls: For each of them, how many calls of it one forward pass makes. A training step that
            makes more passes than one repeats them in the same order.
        readings: For each call that is read, its uses.
        counted: For each call whose positions are counted, the axis of its filters.
        weights: For each layer the weights whose gradients are read; none without such a criterion.
        trained: For each layer, the ids of its weights that train, see
            `variable_ids`.
    """

    def __init__(self, graph: Graph, layers: Sequence[FilterLayer], criterion: Criterion):
        self.operations: dict[int, keras.Operation] = {}
        self.readings: dict[CallKey, list[Reading]] = defaultdict(list)
        self.counted: dict[CallKey, int] = {}
        self.weights: list[list[keras.Variable]] = []
        self.trained = [variable_ids(layer.layer.trainable_variables) for layer in layers]
        for number, layer in enumerate(layers):
            if criterion.needs is Needs.WEIGHT_GRADIENT:
                self.weights.append(affine_weights(layer, criterion))
            for own, read, function in _uses(layer, criterion):
                axis = layer.channel_axis
                unread = None if function is None else function.type
                self.readings[_key(read)].append(Reading(number, _key(own), axis, unread))
                self.counted[_key(own)] = axis
                for call in (own, read):
                    self.operations[id(call.operation)] = call.operation
        self.calls = {key: graph.uses_of(layer) for key, layer in self.operations.items()}


def _uses(
    layer: FilterLayer, criterion: Criterion
) -> Iterator[tuple[Call, Call, RawOperation | None]]:
    """For each use: the call whose positions are counted, the one that is read, what is unread."""
    if criterion.needs is Needs.CONTRIBUTION:
        for (own, read), unread in zip(layer.reads, layer.unread, strict=True):
            yield own, read, unread
    elif criterion.needs_maps:
        for call, unread in zip(layer.activations, layer.unread, strict=True):
            yield call, call, unread


def _key(call: Call) -> CallKey:
    return id(call.operation), call.occurrence

"""Kernels that are not one Keras layer's alone: a custom layer's own, and shared ones."""

from __future__ import annotations

from collections import defaultdict

import keras

from kerasrestart.network.graph import Call, Graph, OwnKernels
from kerasrestart.network.keras_internals import layers_inside
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.operation_words import words_of
from kerasrestart.network.raw_operations import CONVOLUTIONS, RawOperation
from kerasrestart.network.variable_reads import variable_ids


def mark_kernel_uses(graph: Graph, model: keras.Model) -> None:
    """Notes in a graph the kernels that are not read by one Keras layer alone.

    Args:
        graph: The graph; its notes on `own_kernels` and `shared_weights` are made.
        model: The model.
    """
    called = {id(call.operation): call.operation for call in graph.calls}
    keras_layers = [layer for layer in called.values() if isinstance(layer, keras.Layer)]
    _mark_own_kernels(graph, model, keras_layers)
    _mark_shared_weights(graph, keras_layers)


def _mark_own_kernels(graph: Graph, model: keras.Model, called: list[keras.Layer]) -> None:
    trained = variable_ids(model.trainable_variables)
    # Also where a Keras layer's call is out of sight, as in a vectorized_map.
    known = [layer for layer in layers_inside(model) if isinstance(layer, WITH_FILTERS)]
    of_keras = variable_ids([layer.weights for layer in called + known])
    seen: set[int] = set()
    found: dict[int, list[Call]] = defaultdict(list)
    makers: dict[int, keras.Layer] = {}
    # A kernel may also be read before its convolution, as for a norm of the kernel.
    for call in sorted(graph.calls, key=_convolves, reverse=True):
        operation = call.operation
        if isinstance(operation, RawOperation):
            new = (operation.kernels & trained) - of_keras - seen
            if new:
                seen |= new
                maker = model if operation.maker is None else operation.maker
                makers[id(maker)] = maker
                found[id(maker)].append(call)
    for number, calls in found.items():
        operations = [call.operation for call in calls]
        graph.notes_of(makers[number]).own_kernels = OwnKernels(
            makers[number],
            sum(operation.filters for operation in operations),
            any(operation.convolves for operation in operations),
            _unfollowed(operations),
            tuple(calls),
        )


def _convolves(call: Call) -> bool:
    return isinstance(call.operation, RawOperation) and call.operation.convolves


def _unfollowed(operations: list[RawOperation]) -> str | None:
    if any(operation.mixes_kernels for operation in operations):
        return "mixes kernels by the data, so that each example has other filters"
    for operation in operations:
        if operation.convolves and operation.type not in CONVOLUTIONS:
            return f"has a kernel of its own within {words_of(operation.type)}"
    return None


def _mark_shared_weights(graph: Graph, called: list[keras.Layer]) -> None:
    users: dict[int, set[str]] = defaultdict(set)
    for number, names in graph.readers.items():
        users[number] |= names
    for layer in called:
        for number in variable_ids(layer.weights):
            users[number].add(graph.name_of(layer))
    for layer in called:
        if isinstance(layer, WITH_FILTERS):
            of_weights = (users[number] for number in variable_ids(layer.weights))
            others = set().union(*of_weights) - {graph.name_of(layer)}
            if others:
                graph.notes_of(layer).shared_weights = tuple(sorted(others))

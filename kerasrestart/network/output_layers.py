"""What makes the outputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.operations import joins, makes_features
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.traced_graph import traced_graph
from kerasrestart.network.variable_reads import variable_ids


def output_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers that train and make an output of a model, with no other weights behind them.

    Norms and activations with weights, such as PReLU, are not among them. Several layers are where
    a model has several outputs, or adds features up.

    Raises:
        TypeError, ValueError: As `find_filter_layers`, of a model that cannot be traced.
    """
    graph = traced_graph(model)
    outputs = _output_calls(graph)
    layers = [
        _layer_of(call)
        for call in graph.calls
        if id(call) in outputs and makes_features(call.operation)
    ]
    found = {id(layer): layer for layer in layers if getattr(layer, "trainable_variables", ())}
    return list(found.values())


def output_layer_ids(graph: Graph) -> set[int]:
    """Ids of the layers that make an output; a loss may read more than the outputs of a call."""
    outputs = _output_calls(graph)
    found = {id(_layer_of(call)) for call in graph.calls if id(call) in outputs}
    as_data = _made_as_data(graph)
    if graph.of_call is not None:
        # What the call reads again is hidden, unless a network inside the model returns it, and
        # nothing but a loss reads it there.
        inside = {
            id(_layer_of(call))
            for call in graph.of_call.calls
            if graph.of_call.reaches_output(call)
        }
        returned = _calls_before(graph, graph.returned)
        ends = {id(_layer_of(call)) for call in returned if not _leads_on(graph, call)}
        return (found - (inside - ends)) | as_data | output_layer_ids(graph.of_call)
    if graph.trained is None:
        return found
    # Of a step alone it is not known what the model gives. A loss may read hidden features, too.
    hidden = {id(_layer_of(call)) for call in graph.calls if _is_hidden(graph, call)}
    return (found - hidden) | as_data


def _is_hidden(graph: Graph, call: Call) -> bool:
    """Whether a call makes hidden features: the model that holds it reads and keeps them."""
    holder = graph.holders.get(id(_layer_of(call)))
    stack, seen, leads_on = [call], {id(call)}, False
    while stack and holder is not None:
        for tensor in stack.pop().outputs:
            if tensor in graph.returned:
                return False
            for reader in graph.consumers.get(tensor, ()):
                if id(reader) in seen:
                    continue
                seen.add(id(reader))
                if not makes_features(reader.operation):
                    stack.append(reader)
                elif graph.holders.get(id(_layer_of(reader))) == holder:
                    same_pass = reader.occurrence == call.occurrence
                    leads_on |= same_pass and graph.reaches_loss(reader)
    return leads_on


def _made_as_data(graph: Graph) -> set[int]:
    """Ids of the layers that make what is read in place of data, such as a generator's image.

    Another layer reads it as it reads data in another call, or other examples of the same call, and
    no loss trains both.
    """
    found: set[int] = set()
    if not graph.trained_together:
        return found
    for reader in {id(call.operation): call for call in graph.calls}.values():
        inputs = {tensor for call in graph.calls_of(reader.operation) for tensor in call.inputs}
        if makes_features(reader.operation) and any(_holds_data(graph, one) for one in inputs):
            found.update(
                id(_layer_of(call))
                for call in _calls_before(graph, inputs)
                if makes_features(call.operation) and _train_apart(graph, call, reader)
            )
    return found


def _train_apart(graph: Graph, call: Call, reader: Call) -> bool:
    """Whether losses train the layer of a call, and none of these that of another call."""
    own, others = _weights_of(call), _weights_of(reader)
    losses = [trained for trained in graph.trained_together if not own.isdisjoint(trained)]
    return bool(losses and others) and all(others.isdisjoint(trained) for trained in losses)


def _holds_data(graph: Graph, tensor: int) -> bool:
    """Whether a tensor, or some of its examples, is made of data alone, by no weights."""
    if _is_data(graph, tensor):
        return True
    maker = graph.makers.get(tensor)
    if maker is None or makes_features(maker.operation):
        return False
    of_example = graph.shapes[tensor][1:]
    alike = [one for one in maker.inputs if graph.shapes[one][1:] == of_example]
    if len(maker.inputs) > 1 and not joins(maker.operation):
        return False
    return any(_holds_data(graph, one) for one in alike)


def _is_data(graph: Graph, tensor: int) -> bool:
    stack, seen = [tensor], {tensor}
    while stack:
        one = stack.pop()
        if one in graph.inputs:
            continue
        if one not in graph.makers or makes_features(graph.makers[one].operation):
            return False
        stack += [other for other in graph.makers[one].inputs if other not in seen]
        seen.update(graph.makers[one].inputs)
    return not seen.isdisjoint(graph.inputs)


def _leads_on(graph: Graph, call: Call) -> bool:
    """Whether an operation with weights reads what is made of the result of a call."""
    return next(_readers(graph, call), None) is not None


def _readers(graph: Graph, call: Call) -> Iterator[Call]:
    """The calls of operations with weights that read what is made of the result of a call."""
    stack, seen = [call], {id(call)}
    while stack:
        for tensor in stack.pop().outputs:
            for reader in graph.consumers.get(tensor, ()):
                if id(reader) in seen:
                    continue
                seen.add(id(reader))
                if makes_features(reader.operation):
                    yield reader
                else:
                    stack.append(reader)


def _weights_of(call: Call) -> set[int]:
    return set(variable_ids(getattr(_layer_of(call), "weights", ())))


def _layer_of(call: Call) -> Any:
    operation = call.operation
    return operation.maker if isinstance(operation, RawOperation) else operation


def _output_calls(graph: Graph) -> set[int]:
    """Ids of the calls whose result reaches an output of the model with no weights in between."""
    return {id(call) for call in _calls_before(graph, graph.outputs)}


def _calls_before(graph: Graph, tensors: Iterable[int]) -> list[Call]:
    """The calls whose result reaches some tensors with no weights in between."""
    found: dict[int, Call] = {}
    stack = [graph.makers[tensor] for tensor in tensors if tensor in graph.makers]
    while stack:
        call = stack.pop()
        if id(call) not in found:
            found[id(call)] = call
            if not makes_features(call.operation):
                stack += [graph.makers[t] for t in call.inputs if t in graph.makers]
    return list(found.values())

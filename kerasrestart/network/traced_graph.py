"""The graph of a model, from one traced pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.graph import Graph
from kerasrestart.network.graph_builder import GraphBuilder
from kerasrestart.network.input_specs import (
    has_input_layers,
    is_missing,
    known_inputs,
    specs_of,
)
from kerasrestart.network.keras_internals import layers_inside, own_variables
from kerasrestart.network.kernel_uses import mark_kernel_uses
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.names import holders, layer_keys
from kerasrestart.network.operations import UNFOLLOWED, is_known_by_shape, is_opaque
from kerasrestart.network.own_calls import mark_own_calls
from kerasrestart.network.own_training import has_own_loss, has_own_step, runs_eagerly
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.text import cause_of, shown
from kerasrestart.network.trace import Trace, trace_call, trace_loss, trace_step
from kerasrestart.network.variable_reads import variable_ids


class NotTracedError(ValueError):
    """A model cannot be traced."""


_LISTED = (*WITH_FILTERS, *UNFOLLOWED)


def traced_graph(
    model: keras.Model, x: Any = None, data: Any = None, training: bool = True
) -> Graph:
    """Traces a model and makes a graph of what it computes.

    Args:
        model: As `find_filter_layers` takes it.
        x: As `find_filter_layers` takes it.
        data: As `find_filter_layers` takes it.
        training: As `find_filter_layers` takes it.

    Raises:
        TypeError, ValueError: As `find_filter_layers` does.
    """
    check_model(model)
    trains = [] if data is None else _ways_to_train(model, data, training)
    if data is not None and not trains and not has_input_layers(model):
        x = keras.utils.unpack_x_y_sample_weight(_example(data))[0]
    calls = _ways_to_call(model, x, training)
    if not trains and not calls:
        raise TypeError(_what_to_pass(model))
    if not trains:
        return _graph_of_call(model, calls, training)
    try:
        trace = _first_that_works(model, trains)
    except NotTracedError:  # such as of a step that only runs eagerly
        if not calls:
            raise
        return _graph_of_call(model, calls, training)
    if calls and not trace.outputs:  # it trains within a function or loop, out of sight
        return _graph_of_call(model, calls, training)
    graph = _graph(model, trace)
    if calls:
        with contextlib.suppress(NotTracedError):
            graph.of_call = _graph(model, _first_that_works(model, calls))
    return graph


def _graph_of_call(
    model: keras.Model, calls: Sequence[Callable[[], Trace]], training: bool
) -> Graph:
    graph = _graph(model, _first_that_works(model, calls))
    trains_by_more = has_own_loss(model) or (training and has_own_step(model))
    # An eager call may take another way at each batch.
    graph.is_partial = trains_by_more or runs_eagerly(model)
    return graph


def _graph(model: keras.Model, trace: Trace) -> Graph:
    graph = GraphBuilder(trace, layer_keys(model, is_listed)).build()
    graph.holders = holders(model)
    graph.updates = trace.updates
    mark_own_calls(graph, trace, model)
    mark_kernel_uses(graph, model)
    return graph


def called_layers(graph: Graph) -> list[keras.Layer]:
    """The layers with filters, heads or recurrent units, in the order of their first calls."""
    found: dict[int, keras.Layer] = {}
    own = {id(call): own.layer for own in graph.own_kernels() for call in own.calls}
    for call in graph.calls:
        operation = call.operation
        layer = operation.maker if isinstance(operation, RawOperation) else operation
        if id(call) in own or isinstance(layer, _LISTED):
            layer = own.get(id(call), layer)
            found[id(layer)] = layer
    return list(found.values())


def layers_out_of_sight(graph: Graph, model: keras.Model) -> list[keras.Layer]:
    """The same of a model that no call was seen of, without those that make up another one."""
    inside, called = layers_inside(model), {id(layer) for layer in called_layers(graph)}
    parts = {
        id(part)
        for layer in inside
        if isinstance(layer, UNFOLLOWED) and is_opaque(layer)
        for part in layers_inside(layer)
    }
    for own in graph.own_kernels():  # such as a wrapper that normalizes a kernel
        parts |= {id(part) for part in applied_parts(graph, own.layer)}
    return [
        layer for layer in inside if isinstance(layer, _LISTED) and id(layer) not in called | parts
    ]


def applied_parts(graph: Graph, layer: keras.Layer) -> list[keras.Layer]:
    """The layers inside a layer of which it applies the kernels by operations of its own."""
    return [
        part
        for part in layers_inside(layer)
        if isinstance(part, WITH_FILTERS)
        and not graph.calls_of(part)
        and not variable_ids(part.trainable_variables).isdisjoint(graph.readers)
    ]


def is_listed(layer: keras.Layer) -> bool:
    """Whether a layer has filters, units, attention heads or recurrent units, or may have."""
    own_matrices = not is_opaque(layer) and any(len(v.shape) > 1 for v in own_variables(layer))
    return isinstance(layer, _LISTED) or own_matrices


def check_model(model: Any) -> None:
    """Checks that a model is one of Keras 3 on TensorFlow; TypeError, ValueError."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "KERAS_BACKEND must be 'tensorflow', set before Keras is imported, for filters to be "
            f"scored and restarted. Received: {keras.backend.backend()!r}"
        )
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise TypeError(
            "model must be a Keras 3 model (keras.Model, not tf_keras, not a layer). "
            f"Received: {'None' if model is None else kind}"
        )


def _ways_to_train(model: keras.Model, data: Any, training: bool) -> list[Callable[[], Trace]]:
    """Ways to trace what trains a model where that is more than its call; else none."""
    if training and has_own_step(model):
        trace = partial(trace_step, model, opaque=is_opaque)
    elif has_own_loss(model):
        trace = partial(trace_loss, model, training=training, opaque=is_opaque)
    else:
        return []
    return [partial(trace, specs_of(_example(data), batch)) for batch in (True, False)]


def _ways_to_call(model: keras.Model, x: Any, training: bool) -> list[Callable[[], Trace]]:
    """Ways to trace a model's call; none where it is not known what it takes."""
    if x is not None:
        x = keras.utils.unpack_x_y_sample_weight(_example(x))[0] if _is_dataset(x) else x
        _check_example(x)
        inputs: list[Any] = [((specs_of(x, batch),), {}) for batch in (True, False)]
    else:
        inputs = [known] if (known := known_inputs(model)) is not None else []
    trace = partial(trace_call, model, training=training, opaque=is_opaque)
    return [
        *(partial(trace, *given, shape_only=is_known_by_shape) for given in inputs[:1]),
        *(partial(trace, *given) for given in inputs),
    ]


def _check_example(x: Any) -> None:
    given = [leaf for leaf in keras.tree.flatten(x) if not is_missing(leaf)]
    if not given or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in given):
        raise TypeError(
            "x must be an example of what the model takes, batch first: arrays, as x[:1], or "
            f"keras.KerasTensor(shape). Received: {shown(x)}"
        )


def _what_to_pass(model: keras.Model) -> str:
    kind = type(model).__name__
    if has_own_step(model) and _module(model.call) == "keras":
        return (
            "model must have a call, as its parts have, or what it takes is not known; "
            "describe(model, data=batch) shows all parts, by a batch as train_step takes it. "
            f"Received: model '{model.name}' ({kind}) without a call"
        )
    return (
        "model must have been called once on a batch of its inputs, as model(x) or "
        "describe(model, x) do, or what it takes is not known. "
        f"Received: model '{model.name}' ({kind}), which is not built"
    )


def _first_that_works(model: keras.Model, tries: Sequence[Callable[[], Trace]]) -> Trace:
    """Traces in one of several ways: some models need all operations, or a known batch size."""
    errors = []
    for trace in tries:
        try:
            return trace()
        except Exception as error:
            errors.append(error)
    raise NotTracedError(
        f"Model '{model.name}' cannot be traced, so that its filters are not found: "
        f"{type(errors[0]).__name__}: {cause_of(errors[0])}"
    ) from errors[-1]


def _module(method: Any) -> str:
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    module = getattr(method, "__module__", None) or ""  # None in code run by `exec`
    return module.partition(".")[0]


def _is_dataset(x: Any) -> bool:
    return isinstance(x, tf.data.Dataset | keras.utils.PyDataset)


def _example(data: Any) -> Any:
    if isinstance(data, tf.data.Dataset):
        return data.element_spec
    return data[0] if isinstance(data, keras.utils.PyDataset) else data

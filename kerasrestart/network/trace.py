"""One traced forward pass of a model: which layers it calls, and on which tensors.

The pass is traced into a graph of its own, as `tf.function` does, and never runs: no variable
changes, no random number is drawn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network import keras_internals
from kerasrestart.network.compiled_functions import inlined, tracing_copies
from kerasrestart.network.gradient_calls import differentiation, tapes_heard
from kerasrestart.network.hooks import Hook, hooked
from kerasrestart.network.input_specs import placeholders, tensors_in
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.optimizers import Update, hearing_updates
from kerasrestart.network.tensorflow_internals import (
    FuncGraph,
    in_vectorized_map,
    is_of_branch,
    is_of_loop,
)
from kerasrestart.network.trace_contexts import (
    creating_variables,
    in_replica,
    python_state_kept,
    without_recomputing,
)
from kerasrestart.network.variable_reads import variable_ids


@dataclasses.dataclass(frozen=True, eq=False)
class TracedCall:
    """One call of a layer.

    Attributes:
        layer: The layer.
        occurrence: How many calls of this layer come before it.
        inputs: The tensors that go in, without masks.
        outputs: The tensors that come out.
        opaque: Whether the call is taken as a whole; else its operations are looked at one by one.
        begin: Number of operations in the graph when it begins.
        end: Number of operations in the graph when it ends.
    """

    layer: keras.Layer
    occurrence: int
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]
    opaque: bool
    begin: int
    end: int


@dataclasses.dataclass
class Trace:
    """A traced pass.

    Attributes:
        graph: TensorFlow's graph of it.
        inputs: The tensors of data.
        calls: The calls of layers, in the order in which they end.
        outputs: What the pass gives: the outputs of the model, or the losses of a training step.
        losses: What else the loss is computed from, where the outputs are the model's: what layers
            add to it on their own, or the loss itself.
        elsewhere: By id of a layer, why its call is out of sight.
        trained_together: For each loss of the step, the ids of the variables that it is
            differentiated by; None if that is not known.
        backward: Numbers of operations in the graph when each backward pass of the step begins and
            ends.
        updates: The optimizers that the step applies, with their variables, in this order.
    """

    graph: tf.Graph
    inputs: list[tf.Tensor] = dataclasses.field(default_factory=list)
    calls: list[TracedCall] = dataclasses.field(default_factory=list)
    outputs: list[tf.Tensor] = dataclasses.field(default_factory=list)
    losses: list[tf.Tensor] = dataclasses.field(default_factory=list)
    elsewhere: dict[int, str] = dataclasses.field(default_factory=dict)
    trained_together: list[set[int]] | None = None
    backward: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    updates: list[tuple[keras.optimizers.Optimizer, Sequence[Any]]] = dataclasses.field(
        default_factory=list
    )


def trace_call(
    model: keras.Model,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    training: bool,
    opaque: Callable[[keras.Layer], bool],
    shape_only: Callable[[keras.Layer], bool] = lambda layer: False,
) -> Trace:
    """Traces `model(*args, **kwargs, training=training)`.

    Args:
        model: The model; it is built if it is not yet.
        args: Specs of the positional arguments.
        kwargs: Specs of the keyword arguments.
        training: Whether in training mode.
        opaque: Tells for a layer whether its calls are taken as a whole.
        shape_only: Tells for such a layer whether its `compute_output_shape` is all there is to
            know, so that its own operations need not be traced, which takes most of the time.
    """

    def run(trace: Trace) -> None:
        given = placeholders((args, kwargs))
        trace.inputs = tensors_in(given)
        mode = {"training": training} if keras_internals.takes_training(model) else {}
        trace.outputs = tensors_in(model(*given[0], **given[1], **mode))
        trace.losses = tensors_in(keras_internals.added_losses(model))

    return _traced(model, run, opaque, shape_only)


def trace_step(model: keras.Model, data: Any, opaque: Callable[[keras.Layer], bool]) -> Trace:
    """Traces `model.train_step(data)`; the optimizers' part of it is left out.

    Args:
        model: A compiled model; it is built if it is not yet.
        data: Specs of a batch as `fit` gives it to `train_step`.
        opaque: As in `trace_call`.
    """

    def run(trace: Trace) -> None:
        given = placeholders(data)
        trace.inputs = tensors_in(given)
        with _noting_gradients(trace), _noting_updates(trace), in_replica():
            inlined(model.train_step)(given)

    return _traced(model, run, opaque)


def trace_loss(
    model: keras.Model, data: Any, *, training: bool, opaque: Callable[[keras.Layer], bool]
) -> Trace:
    """Traces a forward pass and the loss, which may read what the model's call does not give.

    Args:
        model: A compiled model; it is built if it is not yet.
        data: Specs of a batch: `x`, `(x, y)` or `(x, y, sample_weight)`.
        training: As in `trace_call`.
        opaque: As in `trace_call`.
    """

    def run(trace: Trace) -> None:
        given = placeholders(data)
        trace.inputs = tensors_in(given)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(given)
        mode = {"training": training} if keras_internals.takes_training(model) else {}
        with in_replica():
            y_pred = model(x, **mode)
            loss = keras_internals.compute_loss(
                model, x, y, y_pred, sample_weight, training=training
            )
        trace.outputs = tensors_in(y_pred)
        trace.losses = tensors_in((loss, keras_internals.added_losses(model)))

    return _traced(model, run, opaque)


def _traced(
    model: keras.Model,
    run: Callable[[Trace], None],
    opaque: Callable[[keras.Layer], bool],
    shape_only: Callable[[keras.Layer], bool] = lambda layer: False,
) -> Trace:
    def once(heard: bool) -> Trace:
        trace = Trace(FuncGraph("kerasrestart_trace"))
        layers = keras_internals.layers_inside(model) if heard else []
        try:
            with (
                model.distribute_strategy.scope(),
                trace.graph.as_default(),
                tracing_copies(),
                without_recomputing(),
                creating_variables(),
                _heard(layers, trace, opaque, shape_only),
            ):
                run(trace)
        finally:
            keras_internals.forget_losses(model)
        return trace

    if not all(layer.built for layer in [model, *keras_internals.layers_inside(model)]):
        once(heard=False)  # builds them: only then all layers are known
    with python_state_kept(model):
        return once(heard=True)


def _heard(
    layers: list[keras.Layer],
    trace: Trace,
    opaque: Callable[[keras.Layer], bool],
    shape_only: Callable[[keras.Layer], bool],
) -> contextlib.AbstractContextManager[None]:
    """Notes each call of some layers."""
    occurrences: dict[int, int] = defaultdict(int)
    inside: list[keras.Layer] = []

    def hearing(layer: keras.Layer) -> Hook:
        takes_whole = opaque(layer)
        has_known_shape = takes_whole and shape_only(layer)

        def heard(call, args, kwargs):
            occurrence = occurrences[id(layer)]
            occurrences[id(layer)] += 1
            if inside:
                if isinstance(layer, WITH_FILTERS):
                    within = f"called inside {inside[-1].name}"
                    trace.elsewhere.setdefault(id(layer), within)
                return call(*args, **kwargs)
            begin = trace.graph.version
            if takes_whole:
                inside.append(layer)
            try:
                compute = functools.partial(_placeholder_of, layer, call)
                outputs = (compute if has_known_shape else call)(*args, **kwargs)
            finally:
                if takes_whole:
                    inside.pop()
            given = {name: value for name, value in kwargs.items() if not name.endswith("mask")}
            traced = TracedCall(
                layer,
                occurrence,
                tensors_in((args, given)),
                tensors_in(outputs),
                takes_whole,
                begin,
                trace.graph.version,
            )
            if reason := _elsewhere(traced, trace.graph):
                trace.elsewhere.setdefault(id(layer), reason)
            else:
                trace.calls.append(traced)
            return outputs

        return heard

    return hooked([(layer, hearing(layer)) for layer in layers])


def _placeholder_of(
    layer: keras.Layer, own_call: Callable[..., Any], x: tf.Tensor, *args: Any, **kwargs: Any
) -> tf.Tensor:
    """What the call of a layer gives, without a value."""
    if in_vectorized_map() or x.shape.rank is None:
        return own_call(x, *args, **kwargs)  # a vectorized_map follows what its body computes
    shape = layer.compute_output_shape(tuple(x.shape))
    return tf.compat.v1.placeholder(layer.compute_dtype, shape)


def _elsewhere(call: TracedCall, graph: tf.Graph) -> str | None:
    """Why a call is out of sight; None if it is not."""
    for tensor in call.outputs:
        if tensor.graph is not graph:
            if is_of_loop(tensor.graph):
                return "called in a while_loop"
            if is_of_branch(tensor.graph):
                return "called in a condition"
            return "called in a tf.function of its own"
    return "called in a vectorized_map" if in_vectorized_map() else None


def _noting_gradients(trace: Trace) -> contextlib.AbstractContextManager[None]:
    """Notes what a step differentiates, by what, and which operations that makes."""
    together = trace.trained_together = []
    by_loss: dict[tuple[int, ...], set[int]] = {}
    inside: list[bool] = []

    def noting(call, args, kwargs):
        if inside:  # a gradient that a Jacobian takes
            return call(*args, **kwargs)
        target, sources, _ = differentiation(args, kwargs)
        targets = tensors_in(target)
        trace.outputs += [t for t in targets if t.graph is trace.graph]
        loss = tuple(map(id, targets))
        if loss not in by_loss:
            together.append(by_loss.setdefault(loss, set()))
        by_loss[loss].update(variable_ids(sources))
        begin = trace.graph.version
        inside.append(True)
        try:
            gradients = call(*args, **kwargs)
        finally:
            inside.pop()
        trace.backward.append((begin, trace.graph.version))
        return gradients

    return tapes_heard(noting, noting)


def _noting_updates(trace: Trace) -> contextlib.AbstractContextManager[None]:
    """Notes what optimizers update; they do nothing, or their slots would be made before `fit`."""

    def noting(_: Any, update: Update) -> None:
        if len(update.gradients) and len(update.variables):
            trace.updates.append((update.optimizer, update.variables))

    return hearing_updates(noting)

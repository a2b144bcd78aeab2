"""All uses of private TensorFlow names, in one place: what to check when TensorFlow changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl.api import autograph_artifact
from tensorflow.python.eager import record as tape_record
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.util import tf_decorator

FuncGraph = tf.__internal__.FuncGraph


def is_compiled(function: Any) -> bool:
    """Whether a function is a `tf.function`."""
    return isinstance(function, Function)


def clone(function: Any, python_function: Callable[..., Any] | None = None) -> Any:
    """A copy of a `tf.function` that has traced nothing, with another Python function if given."""
    return function._clone(python_function)


def decorated(function: Callable[..., Any], compiled: Any) -> Any:
    """A `tf.function` marked as that of a Python function, as `tf.function` itself does."""
    return tf_decorator.make_decorator(function, compiled)


def autograph_of(function: Any) -> contextlib.AbstractContextManager[Any]:
    """Turns AutoGraph on or off, as a `tf.function` has it."""
    status = ag_ctx.Status.ENABLED if function._autograph else ag_ctx.Status.DISABLED
    return ag_ctx.ControlStatusCtx(status)


def converted_as_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function converted by AutoGraph where the code that runs now is, else as it is."""
    context = tf.__internal__.autograph.control_status_ctx()
    if context.status is not ag_ctx.Status.ENABLED:
        return function
    return tf.__internal__.autograph.tf_convert(function, context)


def not_converted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a function as one whose code AutoGraph leaves alone."""
    return autograph_artifact(function)


def tape_records() -> bool:
    """Whether a tape may record the operations that are made now."""
    return tape_record.could_possibly_record()


def tape_paused() -> contextlib.AbstractContextManager[None]:
    """Hides the operations of the context from all tapes."""
    return tape_record.stop_recording()


def record_gradient(
    name: str, output: tf.Tensor, source: tf.Tensor, backward: Callable[[Any], list[Any]]
) -> None:
    """Records on the tapes that one tensor is made of another.

    Args:
        name: The name of the operation.
        output: The tensor that is made.
        source: The tensor that it is made of.
        backward: From the gradient by `output`, a list of one: that by `source`.
    """
    tape_record.record_operation(name, [output], [source], backward)


def captured(graph: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """What a `FuncGraph` takes from outside: each tensor there, and what it is inside."""
    return list(graph.captures)


def function_graph(op: tf.Operation, attribute: str) -> Any:
    """The graph of the function that an attribute of an operation names; None if it has none.

    Functions of TensorFlow 1, such as those in `tf.nn.ctc_loss`, have none.
    """
    return getattr(op.graph._get_function(op.get_attr(attribute).name), "graph", None)


def has_own_gradient(op: tf.Operation) -> bool:
    """Whether an identity stands for a function with a gradient of its own."""
    try:
        return bool(op.get_attr("_gradient_op_type"))
    except ValueError:
        return False


def is_of_loop(graph: tf.Graph) -> bool:
    """Whether a graph is the body or the condition of a `tf.while_loop`."""
    return type(graph).__name__.startswith("While")


def is_of_branch(graph: tf.Graph) -> bool:
    """Whether a graph is a branch of a `tf.cond`."""
    return type(graph).__name__.startswith("Cond")


def in_vectorized_map() -> bool:
    """Whether the operations that are made now are those of a function of `tf.vectorized_map`."""
    return "loop_body" in (tf.get_current_name_scope() or "")


def replica_specs(spec: Any) -> tuple[Any, ...]:
    """The specs of the replicas' parts of a distributed value; none for any other spec."""
    return tuple(getattr(spec, "_value_specs", None) or ())

"""Functions that `tf.function` made: the Python function inside, and copies of the function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl.api import autograph_artifact
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.util import tf_decorator

from kerasrestart.network.hooks import hooked


def is_compiled(function: Any) -> bool:
    """Whether a function is a `tf.function`."""
    return isinstance(function, Function)


def inlined(function: Any) -> Callable[..., Any]:
    """The Python function of a `tf.function`, converted by AutoGraph if that is; any other as is.

    It runs in the graph of the caller, so that its tensors are within reach there.
    """
    if not is_compiled(function):
        return function
    status = ag_ctx.Status.ENABLED if function._autograph else ag_ctx.Status.DISABLED

    def run(*args: Any, **kwargs: Any) -> Any:
        with ag_ctx.ControlStatusCtx(status):
            return as_called_here(function.python_function)(*args, **kwargs)

    return autograph_artifact(run)


def as_called_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function converted by AutoGraph where the code that runs now is, else as it is."""
    context = tf.__internal__.autograph.control_status_ctx()
    if context.status is not ag_ctx.Status.ENABLED:
        return function
    return tf.__internal__.autograph.tf_convert(function, context)


def compiled_like(function: Any, other: Callable[..., Any]) -> Callable[..., Any]:
    """Another function, compiled with the options of this one if this one is a `tf.function`.

    AutoGraph leaves its code alone; what it calls by `as_called_here` is converted.
    """
    other = autograph_artifact(other)
    if not is_compiled(function):
        return other
    # As tf.function does: else a strategy does not see that it is one, and cannot merge in it.
    return tf_decorator.make_decorator(other, function._clone(other))


def tracing_copies() -> contextlib.AbstractContextManager[None]:
    """Lets each `tf.function` that is called in the context trace and run a copy of itself.

    A function keeps what it traces for later calls. Where hooks change what is traced, as in a pass
    that never runs, it must not.
    """

    def call_copy(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        function, *others = args
        return call(function._clone(None), *others, **kwargs)

    return hooked([(Function, call_copy)], "__call__")

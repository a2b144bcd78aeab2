"""Functions that `tf.function` made: the Python function inside, and copies of the function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from kerasrestart.network import tensorflow_internals as internals
from kerasrestart.network.hooks import hooked


def inlined(function: Any) -> Callable[..., Any]:
    """The Python function of a `tf.function`, converted by AutoGraph if that is; any other as is.

    It runs in the graph of the caller, so that its tensors are within reach there.
    """
    if not internals.is_compiled(function):
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        with internals.autograph_of(function):
            return internals.converted_as_here(function.python_function)(*args, **kwargs)

    return internals.not_converted(run)


def compiled_like(function: Any, other: Callable[..., Any]) -> Callable[..., Any]:
    """Another function, compiled with the options of this one if this one is a `tf.function`.

    AutoGraph leaves its code alone; what it calls by `converted_as_here` is converted.
    """
    other = internals.not_converted(other)
    if not internals.is_compiled(function):
        return other
    # As tf.function does: else a strategy does not see that it is one, and cannot merge in it.
    return internals.decorated(other, internals.clone(function, other))


def tracing_copies() -> contextlib.AbstractContextManager[None]:
    """Lets each `tf.function` that is called in the context trace and run a copy of itself.

    A function keeps what it traces for later calls. Where hooks change what is traced, as in a pass
    that never runs, it must not.
    """

    def call_copy(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        function, *others = args
        return call(internals.clone(function), *others, **kwargs)

    return hooked([(internals.Function, call_copy)], "__call__")

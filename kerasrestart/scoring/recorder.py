"""Takes the outputs of chosen calls out of a running forward pass."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def record_outputs(operations: Iterable[keras.Operation]) -> Iterator[dict[int, list[Any]]]:
    """Records what `operations` return while the context is open.

    The operations stay as they are: their `call` is wrapped on the instance and unwrapped at the
    end. So this reaches layers at any depth, in models of any class, and adds no node to a graph.

    Args:
        operations: Keras layers or operations.

    Yields:
        For each operation, under its `id`, the list of its outputs in the order of its calls.
    """
    recorded: dict[int, list[Any]] = {}
    with contextlib.ExitStack() as wrapped:
        for operation in operations:
            if id(operation) not in recorded:
                recorded[id(operation)] = []
                wrapped.enter_context(_wrap(operation, recorded[id(operation)]))
        yield recorded


@contextlib.contextmanager
def _wrap(operation: keras.Operation, outputs: list[Any]) -> Iterator[None]:
    # A strategy runs each replica in a thread of its own, and may change threads amid a forward
    # pass: so each hears its own calls only, and the last to leave unwraps.
    listener = threading.get_ident(), outputs
    with _lock:
        call = vars(operation).get("call")
        if not hasattr(call, "listeners"):
            call = _recording_call(call, operation.call)
            # Past Keras's own __setattr__, which would look for state to track.
            object.__setattr__(operation, "call", call)
        call.listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            call.listeners[:] = [other for other in call.listeners if other is not listener]
            if call.listeners:
                pass
            elif call.own is None:
                object.__delattr__(operation, "call")
            else:
                object.__setattr__(operation, "call", call.own)


def _recording_call(own: Any, call: Callable[..., Any]) -> Any:
    """A `call` that tells its listeners; `own` is what the instance itself had, or None."""
    listeners: list[tuple[int, list[Any]]] = []

    @functools.wraps(call)
    def recording_call(*args, **kwargs):
        output = call(*args, **kwargs)
        for thread, outputs in listeners:
            if thread == threading.get_ident():
                outputs.append(output)
        return output

    # By name, as functions have no attributes that a type checker knows of.
    vars(recording_call).update(own=own, listeners=listeners)
    return recording_call


_lock = threading.Lock()

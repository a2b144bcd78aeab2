"""Takes the outputs of chosen calls out of a running forward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
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
    own, call = vars(operation).get("call"), operation.call

    @functools.wraps(call)
    def recording_call(*args, **kwargs):
        output = call(*args, **kwargs)
        outputs.append(output)
        return output

    # Past Keras's own __setattr__, which would look for state to track.
    object.__setattr__(operation, "call", recording_call)
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(operation, "call")
        else:
            object.__setattr__(operation, "call", own)

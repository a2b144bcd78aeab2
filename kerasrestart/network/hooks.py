"""Hooks on methods of chosen objects, for the length of a context."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kerasrestart.network.keras_internals import call_method

# Called in place of a method, with the method and the positional and keyword arguments of the call;
# returns what that call returns.
Hook = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def hooked(pairs: Iterable[tuple[Any, Hook]], method: str | None = None) -> Iterator[None]:
    """Runs hooks around each call of a method, as long as the context is open.

    A hook hears the calls of the thread that opened the context. Of several hooks on one object,
    the one that came last is the outermost.

    Args:
        pairs: Layers or other objects, each with its hook. The method of an object is wrapped on
            that instance, and its class is left alone; for a class it is wrapped on the class. It
            is unwrapped when the context ends, with or without an error.
        method: Name of the method. Defaults to None: that by which Keras calls a layer.
    """
    with contextlib.ExitStack() as stack:
        for owner, hook in pairs:
            stack.enter_context(_hooked(owner, method or call_method(owner), hook))
        yield


@contextlib.contextmanager
def _hooked(owner: Any, method: str, hook: Hook) -> Iterator[None]:
    # A strategy runs each replica in a thread of its own, and may switch threads in the middle of a
    # forward pass: a hook hears the calls of its own thread, and the last one to leave unwraps.
    listener = threading.get_ident(), hook
    # Past Keras's own __setattr__, which would look for state to track.
    kind = type if isinstance(owner, type) else object
    with _lock:
        wrapped = vars(owner).get(method)
        if not hasattr(wrapped, "listeners"):
            wrapped = _wrapped(wrapped, owner, method)
            kind.__setattr__(owner, method, wrapped)
        wrapped.listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            wrapped.listeners[:] = [other for other in wrapped.listeners if other is not listener]
            if not wrapped.listeners and vars(owner).get(method) is wrapped:
                if wrapped.own is None:
                    kind.__delattr__(owner, method)
                else:
                    kind.__setattr__(owner, method, wrapped.own)


def _wrapped(own: Any, owner: Any, method: str) -> Any:
    """A method that runs its listeners; `own` is what the owner itself had, or None."""
    bound: Callable[..., Any] = getattr(owner, method)
    listeners: list[tuple[int, Hook]] = []

    @functools.wraps(bound)
    def run(*args, **kwargs):
        own_thread, call = threading.get_ident(), bound
        # Where a function keeps this method and calls it again later, as `tf.recompute_grad` does,
        # those that listen then hear it.
        now = listeners or getattr(vars(owner).get(method), "listeners", [])
        for thread, hook in tuple(now):
            if thread == own_thread:
                call = functools.partial(_through, hook, call)
        return call(*args, **kwargs)

    # By name, as functions have no attributes that a type checker knows of.
    vars(run).update(own=own, listeners=listeners)
    return run


def _through(hook: Hook, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return hook(call, args, kwargs)


_lock = threading.Lock()

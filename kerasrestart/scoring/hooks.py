"""Hooks on methods of chosen objects, for the length of a context."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Arguments = tuple[Any, ...]
Options = dict[str, Any]


class Hook:
    """What is done before and after a call; each method does nothing unless it is overridden."""

    def before(self, args: Arguments, kwargs: Options) -> None:
        """Called with the arguments of the call."""

    def after(self, output: Any) -> Any:
        """Called with the output of the call; returns the output to use instead."""
        return output


@contextlib.contextmanager
def hooked(pairs: Iterable[tuple[Any, Hook]], method: str = "call") -> Iterator[None]:
    """Runs hooks around each call of a method, as long as the context is open.

    The objects' classes are left alone: the method is wrapped on the instance, and unwrapped when
    the context ends, with or without an error.

    Args:
        pairs: Layers or other objects, each with its hook.
        method: Name of the method. Defaults to `"call"`.
    """
    with contextlib.ExitStack() as stack:
        for owner, hook in pairs:
            stack.enter_context(_hooked(owner, method, hook))
        yield


@contextlib.contextmanager
def _hooked(owner: Any, method: str, hook: Hook) -> Iterator[None]:
    # A strategy runs each replica in a thread of its own, and may switch threads in the middle of a
    # forward pass: a hook hears the calls of its own thread, and the last one to leave unwraps.
    listener = threading.get_ident(), hook
    with _lock:
        wrapped = vars(owner).get(method)
        if not hasattr(wrapped, "listeners"):
            wrapped = _wrapped(wrapped, getattr(owner, method))
            # Past Keras's own __setattr__, which would look for state to track.
            object.__setattr__(owner, method, wrapped)
        wrapped.listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            wrapped.listeners[:] = [other for other in wrapped.listeners if other is not listener]
            if not wrapped.listeners and vars(owner).get(method) is wrapped:
                if wrapped.own is None:
                    object.__delattr__(owner, method)
                else:
                    object.__setattr__(owner, method, wrapped.own)


def _wrapped(own: Any, bound: Callable[..., Any]) -> Any:
    """A method that runs its listeners; `own` is what the instance itself had, or None."""
    listeners: list[tuple[int, Hook]] = []

    @functools.wraps(bound)
    def run(*args, **kwargs):
        own_thread = threading.get_ident()
        hooks = [hook for thread, hook in listeners if thread == own_thread]
        for hook in hooks:
            hook.before(args, kwargs)
        output = bound(*args, **kwargs)
        for hook in hooks:
            output = hook.after(output)
        return output

    # By name, as functions have no attributes that a type checker knows of.
    vars(run).update(own=own, listeners=listeners)
    return run


_lock = threading.Lock()

"""Calls of `tf.GradientTape` that differentiate: what, and by what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kerasrestart.network.hooks import Hook, hooked


@contextlib.contextmanager
def tapes_heard(gradient: Hook, jacobian: Hook) -> Iterator[None]:
    """Hears what all tapes differentiate while the context is open.

    Args:
        gradient: The hook of `GradientTape.gradient`, also of the calls that a Jacobian makes.
        jacobian: The hook of `GradientTape.jacobian` and `GradientTape.batch_jacobian`.
    """
    with (
        hooked([(tf.GradientTape, gradient)], "gradient"),
        hooked([(tf.GradientTape, jacobian)], "jacobian"),
        hooked([(tf.GradientTape, jacobian)], "batch_jacobian"),
    ):
        yield


def target_and_sources(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The target and the sources of a call, from its arguments."""
    given = dict(zip(("tape", "target", "sources"), args, strict=False)) | kwargs
    return given["target"], given.get("sources", given.get("source"))

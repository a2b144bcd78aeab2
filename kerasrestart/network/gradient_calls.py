"""Calls of `tf.GradientTape` that differentiate: what, and by what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Differentiation(NamedTuple):
    """What a tape differentiates.

    Attributes:
        target: What is differentiated.
        sources: By what.
        weights: Of `GradientTape.gradient` the `output_gradients`, that of a Jacobian None.
    """

    target: Any
    sources: Any
    weights: Any


def differentiation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Differentiation:
    """What a call that `tapes_heard` hears differentiates, from its arguments."""
    names = ("tape", "target", "sources", "output_gradients")
    given = dict(zip(names, args, strict=False)) | kwargs
    sources = given.get("sources", given.get("source"))
    return Differentiation(given["target"], sources, given.get("output_gradients"))

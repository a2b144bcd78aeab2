"""The names that `initializer=` takes; readable without TensorFlow."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

PAPER_INITIALIZERS = ("uniform", "he", "xavier", "minmax", "distribution")
# These compute new weights from the surviving filters of the same layer.
SURVIVOR_INITIALIZERS = ("orthogonal_to_survivors", "norm_matched", "clone")
OWN_INITIALIZER = "own"  # that of each layer
# Keras's own that can draw the kernel of a convolution and need no argument.
KERAS_INITIALIZERS = (
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "truncated_normal",
    "variance_scaling",
    "zeros",
)
INITIALIZERS = (
    *PAPER_INITIALIZERS,
    *SURVIVOR_INITIALIZERS,
    OWN_INITIALIZER,
    *KERAS_INITIALIZERS,
)

CONTROLS = ("none", "slots")  # values of `PartialRestart(control=)`, which draw no weights


def describe(initializer: Any) -> str:
    """Returns a name for messages and records.

    Args:
        initializer: A name, a Keras config, an object or a function.
    """
    if isinstance(initializer, str):
        return initializer
    if isinstance(initializer, dict):
        return str(initializer.get("class_name", initializer))
    if dataclasses.is_dataclass(initializer) and not inspect.isclass(initializer):
        return repr(initializer)
    return getattr(initializer, "__name__", type(initializer).__name__)

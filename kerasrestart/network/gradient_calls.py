"""What a call of `tf.GradientTape.gradient` differentiates, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def target_and_sources(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The target and the sources of a call, from its arguments."""
    given = dict(zip(("tape", "target", "sources"), args, strict=False)) | kwargs
    return given["target"], given["sources"]


def ids_of(sources: Any) -> Iterator[int]:
    """The ids of all sources; of a Keras variable also that of the TensorFlow variable in it."""
    for source in keras.tree.flatten(sources):
        yield id(source)
        if isinstance(source, keras.Variable):
            yield id(source.value)

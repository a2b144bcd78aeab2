"""Finds the optimizers that a model holds, and those inside an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras


def held_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers of a model, each once.

    The compiled one counts, and each that the model or a layer inside it keeps in an attribute,
    also in a list or dict.
    """
    return list(_search(model, set()))


def unwrap(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer inside a `LossScaleOptimizer`; any other as it is."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers that hold slots: one, or those of a `MultiOptimizer`."""
    inner = unwrap(optimizer)
    if isinstance(inner, keras_class("MultiOptimizer")):
        return list(inner.optimizers)
    return [inner]


def keras_class(name: str) -> Any:
    """Returns a class of `keras.optimizers` for `isinstance`; `()` if this Keras lacks it."""
    return getattr(keras.optimizers, name, ())


def _search(value: Any, seen: set[int]) -> Iterator[keras.optimizers.Optimizer]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.optimizers.Optimizer):
        # What a wrapper holds is reached through the wrapper, not a second time by itself.
        seen.update(id(leaf) for leaf in leaves(value))
        yield value
    elif isinstance(value, keras.layers.Layer):
        for inner in list(vars(value).values()):
            yield from _search(inner, seen)
    elif isinstance(value, Mapping):
        for inner in list(value.values()):
            yield from _search(inner, seen)
    elif isinstance(value, list | tuple):
        for inner in list(value):
            yield from _search(inner, seen)

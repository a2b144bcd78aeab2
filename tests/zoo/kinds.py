"""What the zoo is made of: kinds of model that people train, each at a tiny size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

LABELS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EXAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Example:
    """A compiled model, and data to train it on.

    Attributes:
        model: The model; it need not be built.
        x: Inputs, as `fit` takes them.
        y: Targets, or None.
        watched: How many filters must be watched, counted by hand.
        filters: How many filters the convolutions of the model have, counted by hand.
    """

    model: keras.Model
    x: Any
    y: Any
    watched: int
    filters: int


KINDS: dict[str, Callable[[], Example]] = {}


def kind(name: str) -> Callable[[Callable[[], Example]], Callable[[], Example]]:
    """Adds a builder to the zoo, under the name that the page of models shows."""

    def add(build: Callable[[], Example]) -> Callable[[], Example]:
        if name in KINDS:
            raise ValueError(f"Two kinds have one name. Received: {name!r}")
        KINDS[name] = build
        return build

    return add


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 numbers from 0 to 1, of shape `[examples, *shape]`."""
    return np.random.default_rng(seed).random((EXAMPLES, *shape), "float32")


def classes(count: int = 3) -> np.ndarray:
    """Class numbers, one per example."""
    return np.arange(EXAMPLES) % count


def classifier(
    model: keras.Model, watched: int, filters: int | None = None, shape: tuple = (12, 12, 3)
) -> Example:
    """Compiles a model that gives logits of three classes."""
    # One slot for each weight: the step is traced in less time than with Adam.
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), LABELS)
    return Example(model, noise(*shape), classes(), watched, filters or watched)

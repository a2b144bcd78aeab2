"""Reads and sets the learning rate of an optimizer."""

from __future__ import annotations

import keras
import numpy as np

from kerasrestart.network.keras_internals import given_learning_rate
from kerasrestart.network.optimizers import leaves


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The learning rate; None where a schedule or a function determines it.

    Of a `MultiOptimizer` it is the highest of its optimizers' rates; None before such an optimizer,
    where it was made with a function, is built and has its optimizers.
    """
    rates = [given_learning_rate(leaf) for leaf in leaves(optimizer)]
    if not rates or not all(isinstance(rate, keras.Variable) for rate in rates):
        return None
    return _decimal(max(float(rate.numpy()) for rate in rates))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Sets the learning rate of an optimizer for which `learning_rate_of` returns one.

    The optimizers of a `MultiOptimizer` keep the ratio of their rates, so that each gets its own
    rate again when `rate` is the former one.
    """
    parts, highest = leaves(optimizer), learning_rate_of(optimizer)
    if len(parts) == 1:
        parts[0].learning_rate = rate
    elif highest:
        for part in parts:
            own = float(given_learning_rate(part).numpy())
            part.learning_rate = float(f"{own * (rate / highest):.7g}")


def _decimal(rate: float) -> float:
    """A rate as it was written: 0.01, not 0.009999999776482582, its value in float32."""
    short = float(str(np.float32(rate)))
    return short if np.float32(rate) == rate else rate

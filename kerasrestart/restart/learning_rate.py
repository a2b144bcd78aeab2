"""Reads and sets the learning rate of an optimizer, where that can be done."""

from __future__ import annotations

import keras

from kerasrestart.restart.slots import unwrap


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The present learning rate; None where a schedule or a function rules it."""
    rate = unwrap(optimizer).get_config()["learning_rate"]
    if not isinstance(rate, int | float):
        return None
    return float(f"{rate:.7g}")  # it is held in float32: 0.01, not 0.009999999776482582


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Sets the learning rate of an optimizer that was made with a number."""
    unwrap(optimizer).learning_rate = rate

"""Reads and sets the learning rate of an optimizer, where that can be done."""

from __future__ import annotations

import keras
import numpy as np

from kerasrestart.restart.slots import leaves


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The present learning rate; None where a schedule or a function rules it.

    That of a `MultiOptimizer` is the highest of its optimizers'; None where it does not know these
    yet, since it is made with a function and not built.
    """
    rates = [leaf.get_config().get("learning_rate") for leaf in leaves(optimizer)]
    if not rates or not all(isinstance(rate, int | float) for rate in rates):
        return None
    return _plain(max(rates))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Sets the learning rate of an optimizer for which `learning_rate_of` has one.

    The optimizers of a `MultiOptimizer` keep the ratio of their rates, so that each has its own
    again when `rate` is what it was.
    """
    parts, highest = leaves(optimizer), learning_rate_of(optimizer)
    if len(parts) == 1:
        parts[0].learning_rate = rate
    elif highest:
        for part in parts:
            own = part.get_config()["learning_rate"]
            part.learning_rate = float(f"{own * (rate / highest):.7g}")


def _plain(rate: float) -> float:
    """A rate as it was written: 0.01, not 0.009999999776482582, as float32 holds it."""
    short = float(str(np.float32(rate)))
    return short if np.float32(rate) == rate else rate

"""Writes new numbers into variables, within each variable's constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Replacement(NamedTuple):
    """New numbers for a part of a variable.

    Attributes:
        variable: The variable.
        new: New values of the variable's shape.
        mask: Bool, broadcastable to the variable's shape, true for the numbers that are replaced.
    """

    variable: keras.Variable
    new: tf.Tensor
    mask: np.ndarray


class Write(NamedTuple):
    """The values that a variable gets.

    Attributes:
        variable: The variable.
        places: Its value on each replica: the statistics of a batch norm may differ between
            replicas. Without a distribution strategy there is one.
        values: The new value of each place.
    """

    variable: keras.Variable
    places: Sequence[tf.Variable]
    values: list[tf.Tensor]

    def apply(self) -> None:
        """Writes the values."""
        for place, value in zip(self.places, self.values, strict=True):
            place.assign(value)


def plan_writes(
    replacements: Sequence[Replacement],
    strategy: tf.distribute.Strategy,
    shifts: Sequence[tuple[keras.Variable, np.ndarray]] = (),
) -> list[Write]:
    """Computes the final value of each variable, and writes nothing.

    Args:
        replacements: In order: of two that replace the same number, the later one counts.
        strategy: The model's `distribute_strategy`.
        shifts: Variables, and what is added to each before numbers are replaced. Defaults to none.

    Returns:
        One write for each variable.
    """
    changes: dict[int, _Changes] = {}
    for variable, shift in shifts:
        changes.setdefault(id(variable), _Changes(variable, [], [])).shifts.append(shift)
    for part in replacements:
        variable = part.variable
        changes.setdefault(id(variable), _Changes(variable, [], [])).replacements.append(part)
    return [_plan(each, strategy) for each in changes.values()]


class _Changes(NamedTuple):
    variable: keras.Variable
    shifts: list[np.ndarray]
    replacements: list[Replacement]


def _plan(changes: _Changes, strategy: tf.distribute.Strategy) -> Write:
    variable = changes.variable
    mask = np.zeros(variable.shape, bool)
    for shift in changes.shifts:
        mask |= np.asarray(shift) != 0
    for part in changes.replacements:
        mask |= part.mask
    places, values = strategy.experimental_local_results(variable.value), []
    for place in places:
        value = tf.convert_to_tensor(place)
        for shift in changes.shifts:
            value += tf.cast(shift, value.dtype)
        for part in changes.replacements:
            value = tf.where(part.mask, tf.cast(part.new, value.dtype), value)
        values.append(constrained(variable, value, mask))
    return Write(variable, places, values)


def constrained(variable: keras.Variable, value: tf.Tensor, mask: np.ndarray) -> tf.Tensor:
    """Applies a variable's constraint to a value that was changed where a mask is true.

    Constraints that act on each filter alone leave the other numbers bit for bit as they are, even
    where they are exact only up to rounding (as `MaxNorm` is). A constraint that needs other
    numbers to change too (a norm over all filters) changes these.

    Args:
        variable: The variable, for its constraint.
        value: The new value.
        mask: Bool of the variable's shape.
    """
    if variable.constraint is None:
        return value
    whole = tf.cast(tf.convert_to_tensor(variable.constraint(value)), value.dtype)
    # Keras's norms add 1e-7 to what they divide by, so that they move what obeys them already.
    tolerance = 1e-6 + (1e-5 if value.dtype.size >= 4 else 1e-2) * tf.abs(value)
    moved = tf.abs(whole - value) > tolerance
    moves_others = bool(tf.reduce_any(tf.logical_and(moved, ~mask)))
    return whole if moves_others else tf.where(mask, whole, value)

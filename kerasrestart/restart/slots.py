"""Resets the optimizer state of restarted filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check_choice
from kerasrestart.network.keras_internals import (
    index_in,
    layers_inside,
    slot_of,
    trained_by,
    unused_slots,
)
from kerasrestart.network.optimizers import keras_class, leaves, unwrap
from kerasrestart.restart.reset import SECOND_MOMENTS


class Rule(NamedTuple):
    """The initial value of one kind of slot.

    Attributes:
        fresh: Function of the optimizer and the weight, with its new values, that returns the
            slot's initial value: a tensor of the weight's shape, or a number.
        second_moment: Whether the slot is a running mean (or maximum) of squares or magnitudes, by
            whose root steps are divided: `second_moment="survivors"` fills it.
        averaged: The axis of the weight over which the slot is averaged, missing in the slot's
            shape; None for a slot of the weight's shape.
    """

    fresh: Callable[[keras.optimizers.Optimizer, keras.Variable], tf.Tensor | float]
    second_moment: bool = False
    averaged: int | None = None


def _zero(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> float:  # noqa: ARG001
    return 0.0


def _weight(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> tf.Tensor:  # noqa: ARG001
    return tf.convert_to_tensor(weight.value)


def _initial(optimizer: keras.optimizers.Optimizer, weight: keras.Variable) -> float:  # noqa: ARG001
    return optimizer.initial_accumulator_value


ZERO, WEIGHT, INITIAL = Rule(_zero), Rule(_weight), Rule(_initial)
SECOND_MOMENT = Rule(_zero, second_moment=True)
ROWS = Rule(_zero, second_moment=True, averaged=-1)
COLUMNS = Rule(_zero, second_moment=True, averaged=-2)

# For each class in `keras.optimizers`, and classes derived from it: the attributes that hold its
# slots. One attribute name means different things in different classes: the "momentum" of
# ScheduleFreeAdamW is a copy of the weight.
SLOTS: Mapping[str, Mapping[str, Rule]] = {
    # Keras creates an average as zero, but sets it to the weight at the first step.
    "Optimizer": {"_model_variables_moving_average": WEIGHT, "_accumulated_gradients": ZERO},
    # A sum of squares over the whole training is not a mean that a new weight could borrow: it
    # shrinks the steps of Adagrad and Ftrl, and their first step is bounded without it.
    "Adagrad": {"_accumulators": INITIAL},
    "Ftrl": {"_accumulators": INITIAL, "_linears": ZERO},
    # Both or neither: a step is the root of their ratio.
    "Adadelta": {"_accumulated_grads": SECOND_MOMENT, "_accumulated_delta_vars": SECOND_MOMENT},
    # Only 1e-30 keeps Adafactor from 0 / 0: where a filter's first gradient is exactly zero
    # (outgoing weights of zero) and an input's is tiny, it underflows and the whole kernel becomes
    # NaN. Filled from the survivors it does not.
    "Adafactor": {"_r": ROWS, "_c": COLUMNS, "_v": SECOND_MOMENT},
    "Adam": {"_momentums": ZERO, "_velocities": SECOND_MOMENT, "_velocity_hats": SECOND_MOMENT},
    "Adamax": {"_m": ZERO, "_u": SECOND_MOMENT},
    "Lamb": {"_momentums": ZERO, "_velocities": SECOND_MOMENT},
    "Lion": {"_momentums": ZERO},
    "Muon": {
        "momentums": ZERO,
        "adam_momentums": ZERO,  # their name in Keras 3.10
        "adam_velocities": SECOND_MOMENT,
    },
    "Nadam": {"_momentums": ZERO, "_velocities": SECOND_MOMENT},
    # The velocity is at least the square of the average gradient, under the root of their
    # difference: with an average of zero any velocity will do.
    "RMSprop": {"_velocities": SECOND_MOMENT, "_momentums": ZERO, "_average_gradients": ZERO},
    "SGD": {"momentums": ZERO},
    "ScheduleFreeAdamW": {"_momentums": WEIGHT, "_velocities": SECOND_MOMENT},
}


def check_slots(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that the layout of an optimizer's slots is known.

    Args:
        optimizer: A built optimizer.

    Raises:
        ValueError: It keeps variables that are not known here, or one of unexpected shape.
    """
    known = set()
    for leaf in leaves(optimizer):
        for variable in trained_by(leaf) if leaf.built else ():
            for slot, rule, _ in _find(leaf, variable):
                _check_shape(leaf, variable, slot, rule)
                known.add(id(slot))
        known.update(id(slot) for name, _ in _rules(leaf) for slot in unused_slots(leaf, name))
    # Scalars (steps, scales, Nadam's product, Adafactor's placeholders for vectors) are shared by
    # all filters and stay.
    unknown = [v.path for v in optimizer.variables if len(v.shape) and id(v) not in known]
    if unknown:
        raise ValueError(
            f"The slots of {type(unwrap(optimizer)).__name__} are not known, so restarted filters "
            "would keep the old filters' state. The optimizer must be one of keras.optimizers "
            f"({', '.join(name for name in SLOTS if name != 'Optimizer')}), or one derived from "
            f"these that adds no slots. Received: one with {', '.join(unknown[:3])}"
            f"{' …' if len(unknown) > 3 else ''}"
        )


def build_optimizer(model: keras.Model) -> None:
    """Builds the optimizer of a compiled model now instead of at the first step.

    A model with layers that are not built is left to its first step: an optimizer that is built
    without their variables never trains them.
    """
    if not model.optimizer.built and all(layer.built for layer in layers_inside(model)):
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def build_applied(model: keras.Model, updates: Iterable[tuple[Any, Sequence[Any]]]) -> None:
    """Builds optimizers as `apply` does at the first step, where `may_be_built` says so.

    Args:
        model: The model.
        updates: The optimizers that the first step applies, with the variables, in this order.
    """
    for optimizer, variables in updates:
        if not optimizer.built and may_be_built(optimizer):
            scope = keras.name_scope(optimizer.name, caller=optimizer)
            with model.distribute_strategy.scope(), scope:
                optimizer.build(list(variables))


def may_be_built(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer is the same if it is built before the first step as if in it.

    An optimizer of a user's own may build itself in another way. What `build` assigns in a step is
    lost, as TensorFlow traces a step that makes variables twice and runs the second trace: so the
    momentum of `ScheduleFreeAdamW` begins at zero in a step, and at the weights before one.
    """
    for one in (optimizer, *leaves(optimizer)):
        methods = type(one).apply, type(one).build
        if any(method.__module__.partition(".")[0] != "keras" for method in methods):
            return False
        if isinstance(one, keras_class("ScheduleFreeAdamW")):
            return False
    return True


def reset_slots(
    optimizer: keras.optimizers.Optimizer | None,
    variable: keras.Variable,
    mask: np.ndarray,
    second_moment: str = "zero",
) -> None:
    """Sets the slots of numbers that were replaced to their initial values.

    All other numbers of the slots stay bit for bit.

    Args:
        optimizer: An optimizer that passes `check_slots`. None, or one that is not built or does
            not train the variable, has nothing to reset.
        variable: A weight of the model, with its new values.
        mask: Bool, broadcastable to the variable's shape, true for the numbers that were replaced.
        second_moment: New values of the means of squares by which Adam and similar optimizers
            divide. `"zero"`: zero, as at the start of training. The optimizer's bias correction
            counts the steps of the whole training, so that Adam's first step after a late restart
            is `0.1 g / sqrt(0.001 g**2)`, about 3 learning rates. `"survivors"`: the mean over the
            surviving filters, see `survivors_mean`. Defaults to `"zero"`.

    Raises:
        ValueError: `second_moment` is not known.
    """
    check_choice("second_moment", second_moment, SECOND_MOMENTS)
    if optimizer is None or not optimizer.built:
        return
    for slot, rule, leaf in _slots(optimizer, variable):
        touched: np.ndarray = mask
        fresh = rule.fresh(leaf, variable)
        if rule.averaged is not None:
            # An entry is the mean over one axis. Where that is the axis of the filters, survivors
            # contribute to it, and it stays: a reset would change their steps too.
            touched = np.asarray(np.broadcast_to(mask, variable.shape).all(rule.averaged))
        if rule.second_moment and second_moment == "survivors":
            fresh = survivors_mean(slot.value, touched)
        slot.assign(tf.where(touched, tf.cast(fresh, slot.dtype), slot.value))


def shift_copies(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, shift: np.ndarray
) -> None:
    """Adds a change of a weight to the copies of the weight that an optimizer keeps.

    Args:
        optimizer: As in `reset_slots`.
        variable: A weight of the model.
        shift: What was added to the weight, of its shape.
    """
    if optimizer.built:
        for slot, rule, _ in _slots(optimizer, variable):
            if rule is WEIGHT:
                slot.assign_add(tf.cast(shift, slot.dtype))


def survivors_mean(values: tf.Tensor, mask: np.ndarray) -> tf.Tensor:
    """Returns the mean of the numbers outside a mask, position by position.

    A restarted filter reads the same inputs as its neighbours, and the mean square of a gradient is
    about that of the input times that of the filter's error. So the mean is over the surviving
    filters, for each position of the kernel and each input. In general: over all axes along which
    the mask varies.

    Args:
        values: A float tensor.
        mask: Bool, broadcastable to `values`.

    Returns:
        float64, broadcastable to `values`; zero if nothing survives.
    """
    survives = ~np.broadcast_to(mask, values.shape)
    axes = [a for a in range(survives.ndim) if (survives != survives.take([0], a)).any()]
    count = np.maximum(survives.sum(tuple(axes), keepdims=True), 1)
    values = tf.where(survives, tf.cast(values, tf.float64), tf.zeros((), tf.float64))
    return tf.reduce_sum(values, axes, keepdims=True) / count


def trains(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether an optimizer is built and trains a variable."""
    return any(leaf.built and index_in(leaf, variable) is not None for leaf in leaves(optimizer))


def _slots(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> Iterator[tuple[keras.Variable, Rule, keras.optimizers.Optimizer]]:
    """Yields the slots of one variable, each with its rule and its optimizer."""
    for leaf in leaves(optimizer):
        if leaf.built:
            yield from _find(leaf, variable)


def _find(
    leaf: keras.optimizers.Optimizer, variable: keras.Variable
) -> Iterator[tuple[keras.Variable, Rule, keras.optimizers.Optimizer]]:
    if index_in(leaf, variable) is None:
        return
    for name, rule in _rules(leaf):
        slot = slot_of(leaf, name, variable)
        # Adafactor has a placeholder for weights of fewer than two axes.
        placeholder = rule.averaged is not None and len(variable.shape) < 2
        if slot is not None and not placeholder:
            yield slot, rule, leaf


def _rules(leaf: keras.optimizers.Optimizer) -> Iterator[tuple[str, Rule]]:
    """Yields the attributes that hold the slots of an optimizer, each with its rule."""
    for class_name, rules in SLOTS.items():
        if isinstance(leaf, keras_class(class_name)):
            yield from rules.items()


def _check_shape(
    leaf: keras.optimizers.Optimizer, variable: keras.Variable, slot: keras.Variable, rule: Rule
) -> None:
    expected = list(variable.shape)
    if rule.averaged is not None:
        del expected[rule.averaged]
    if list(slot.shape) != expected:
        raise ValueError(
            f"The slots of {type(leaf).__name__} are not known: {slot.path} belongs to "
            f"{variable.path} and must have the shape {tuple(expected)}. Received: shape "
            f"{tuple(slot.shape)}"
        )

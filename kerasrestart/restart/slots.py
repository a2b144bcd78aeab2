"""Resets the optimizer's memory of restarted filters."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

# What a slot holds for a weight that has just been drawn anew, by the name of the optimizer's
# attribute: zero, as for a weight that training has not touched yet, or the weight itself.
ZERO, WEIGHT = "zero", "weight"
SLOTS = {
    "_accumulated_gradients": ZERO,
    "_model_variables_moving_average": WEIGHT,
    "momentums": ZERO,  # SGD
    "_momentums": ZERO,  # Adam, AdamW, RMSprop
    "_velocities": ZERO,  # Adam, AdamW, RMSprop
    "_velocity_hats": ZERO,  # Adam and AdamW with amsgrad
    "_average_gradients": ZERO,  # RMSprop, centered
}


def check_slots(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that the layout of an optimizer's slots is known.

    Args:
        optimizer: A built optimizer.

    Raises:
        ValueError: It keeps variables that are not known here.
    """
    inner = unwrap(optimizer)
    known = {id(slot) for name in SLOTS for slot in getattr(inner, name, None) or ()}
    unknown = [v.path for v in inner.variables if len(v.shape) and id(v) not in known]
    if unknown:
        raise ValueError(
            f"The slots of {type(inner).__name__} are not known, so restarted filters would keep "
            f"the old filters' memory. Received variables: {', '.join(unknown[:3])}"
            f"{' …' if len(unknown) > 3 else ''}. Expected SGD, Adam, AdamW or RMSprop."
        )


def slots_of(
    optimizer: keras.optimizers.Optimizer | None, variable: keras.Variable
) -> Iterator[tuple[keras.Variable, str]]:
    """Finds the slots of one variable, by its identity.

    Args:
        optimizer: An optimizer; None, or one that is not built, has no slots.
        variable: A weight of the model.

    Yields:
        Each slot, of the weight's shape, with what it is reset to: `ZERO` or `WEIGHT`.
    """
    if optimizer is None or not optimizer.built:
        return
    inner = unwrap(optimizer)
    index = next((i for i, v in enumerate(inner._trainable_variables) if v is variable), None)
    if index is None:
        return
    for name, fresh in SLOTS.items():
        of_all = getattr(inner, name, None)
        if of_all and of_all[index] is not None:
            yield of_all[index], fresh


def unwrap(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that holds the slots, out of a `LossScaleOptimizer`."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def fresh_value(fresh: str, slot: keras.Variable, weight: tf.Tensor) -> tf.Tensor:
    """What a slot holds for the new `weight`, of its shape."""
    return tf.cast(weight, slot.dtype) if fresh == WEIGHT else tf.zeros(slot.shape, slot.dtype)

"""Lets some variables of a model train at a lower learning rate than the others."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from kerasrestart.restart.slots import unwrap


def scale_learning_rate(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable], factor: float
) -> None:
    """Makes some variables train at a lower learning rate than the others.

    Keras has one learning rate for all. A factor on the gradients would do it for plain gradient
    descent, but Adam and its like divide it out again: it is the rate itself that is multiplied, in
    each step and in decoupled weight decay. The optimizer stays what it is and is saved as such,
    without the factor.

    Args:
        optimizer: An optimizer of Keras; before its first step.
        variables: What the factor is for.
        factor: Of the learning rate, whatever that is at each step.
    """
    optimizer = unwrap(optimizer)
    keys = {optimizer._var_key(variable) for variable in variables}
    update_step, apply_weight_decay = optimizer.update_step, optimizer._apply_weight_decay

    def scaled_update_step(gradient, variable, learning_rate):
        if optimizer._var_key(variable) in keys:
            learning_rate = learning_rate * factor
        return update_step(gradient, variable, learning_rate)

    optimizer.update_step = scaled_update_step
    # Read here and not at each step: under a strategy several replicas are in the middle of one.
    decay = optimizer.weight_decay
    if decay is None:
        return

    def scaled_weight_decay(variables):
        apply_weight_decay([v for v in variables if optimizer._var_key(v) not in keys])
        # Decay takes the learning rate from the optimizer itself: its other factor will do.
        optimizer.weight_decay = decay * factor
        try:
            apply_weight_decay([v for v in variables if optimizer._var_key(v) in keys])
        finally:
            optimizer.weight_decay = decay

    optimizer._apply_weight_decay = scaled_weight_decay

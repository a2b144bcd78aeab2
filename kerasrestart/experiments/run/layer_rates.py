"""Trains some variables of a model at a lower learning rate than the others."""

from __future__ import annotations

from collections.abc import Iterable

import keras


def with_two_rates(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable], factor: float
) -> keras.optimizers.Optimizer:
    """Returns an optimizer that trains some variables at a lower learning rate.

    It is a `keras.optimizers.MultiOptimizer` of two optimizers that differ in the learning rate
    alone. (A factor on the gradients has no effect with Adam and its like, which divide by it.)

    Args:
        optimizer: Trains all other variables; before its first step, and not a
            `LossScaleOptimizer`, which Keras puts around the result where precision needs it.
        variables: The variables to train at the lower rate.
        factor: The ratio of the lower rate to the learning rate of `optimizer`. `PartialRestart`
            keeps that ratio when it lowers the rate and sets it back.

    Raises:
        ValueError: This version of Keras has no `MultiOptimizer`.
    """
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        raise ValueError(
            "pretrained_learning_rate_factor needs keras.optimizers.MultiOptimizer: Keras must be "
            f"3.15 or newer. Received: Keras {keras.__version__}"
        )
    config = optimizer.get_config()
    config |= {
        "learning_rate": config["learning_rate"] * factor,
        "name": f"{config['name']}_pretrained",
    }
    lower = type(optimizer).from_config(config)
    paths = {variable.path: lower for variable in variables}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer, paths))

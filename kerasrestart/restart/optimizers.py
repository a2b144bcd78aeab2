"""Finds the optimizers that train a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kerasrestart.network.optimizers import known_optimizers, leaves
from kerasrestart.restart import slots


def optimizers_of(model: keras.Model, optimizer: Any = None) -> list[keras.optimizers.Optimizer]:
    """Finds the optimizers that may train the weights of a model.

    ```python
    from kerasrestart.restart.optimizers import optimizers_of

    model.generator_optimizer = keras.optimizers.Adam(1e-4)
    model.discriminator_optimizer = keras.optimizers.Adam(4e-4)
    optimizers_of(model)  # both, and model.optimizer if the model is compiled with one
    ```

    Args:
        model: The model. Its own optimizer counts, each optimizer that it or a layer inside it
            keeps in an attribute, also in a list or dict, and each that was seen in a training
            step of `fit` with `PartialRestart`.
        optimizer: An optimizer, or several, to use instead. Defaults to None: they are searched.

    Returns:
        The optimizers, each once.

    Raises:
        TypeError: `optimizer` is not a Keras optimizer, or a list of these.
    """
    if optimizer is None:
        return known_optimizers(model)
    given = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    wrong = [one for one in given if not isinstance(one, keras.optimizers.Optimizer)]
    if wrong or not given:
        raise TypeError(
            "optimizer must be a Keras optimizer or a list of Keras optimizers. "
            f"Received: {optimizer!r}"
        )
    return list({id(one): one for one in given}.values())


def owners(
    optimizers: Iterable[keras.optimizers.Optimizer], variables: Iterable[keras.Variable]
) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers that keep state of at least one of some variables."""
    variables = list(variables)
    return [one for one in optimizers if any(slots.trains(one, v) for v in variables)]


def check_optimizers(model: keras.Model, optimizer: Any = None) -> None:
    """Checks that the state of every optimizer of a model can be reset.

    An optimizer that is not built is checked by a copy, which is built on one small variable.

    Args:
        model: The model.
        optimizer: As in `optimizers_of`.

    Raises:
        TypeError: As in `optimizers_of`.
        ValueError: The layout of an optimizer's slots is not known.
    """
    for found in optimizers_of(model, optimizer):
        for leaf in leaves(found):
            if leaf.built:
                slots.check_slots(leaf)
            else:
                slots.check_slots(_built_copy(leaf) or leaf)


def warn_without_optimizer(model: keras.Model) -> None:
    """Warns where a model that has been trained has no optimizer that could have trained it."""
    if not any(optimizer.built for optimizer in optimizers_of(model)):
        warnings.warn(
            f"No Keras optimizer was found that trains '{model.name}': the optimizer state of "
            "restarted filters, if there is any, is not reset.",
            stacklevel=3,
        )


def _built_copy(leaf: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer | None:
    try:
        copy = type(leaf).from_config(leaf.get_config())
        copy.build([keras.Variable(np.zeros((3, 2)), name="trial")])
    except Exception:  # an optimizer without a config is checked when it has its slots
        return None
    return copy

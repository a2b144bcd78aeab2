"""Regularisation to the initial weights."""

from __future__ import annotations

import keras
from keras import ops


def regularize_to_initial_weights(model: keras.Model, strength: float) -> None:
    """Adds `strength * sum (weight - initial weight)^2` over all weights that train to the loss.

    It replaces regularizers that these weights have. A weight that is re-initialised later is
    still drawn to its first value.

    Source: Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via
    Regenerative Regularization" (2024), section 3.

    Example:
    ```python
    regularize_to_initial_weights(model, 0.01)
    model.compile("adam", "mse")
    ```

    Args:
        model: A built model with its initial weights.
        strength: The factor, above 0.
    """
    for variable in model.trainable_variables:
        # Through NumPy: convert_to_tensor returns a variable as it is, not a copy.
        initial = ops.convert_to_tensor(ops.convert_to_numpy(variable))
        variable.regularizer = _distance(initial, strength)


def _distance(initial: keras.KerasTensor, strength: float) -> keras.regularizers.Regularizer:
    def distance(weight: keras.KerasTensor) -> keras.KerasTensor:
        # A captured tensor, not a constant: a graph holds no second copy of the weights.
        return strength * ops.sum(ops.square(ops.cast(weight, "float32") - initial))

    return distance

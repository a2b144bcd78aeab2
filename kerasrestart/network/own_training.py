"""What of a model's training is not Keras's own."""

from __future__ import annotations

import keras


def has_own_step(model: keras.Model) -> bool:
    """Whether a model trains by another `train_step` than Keras's own."""
    return not _is_keras_own(model, "train_step")


def has_own_loss(model: keras.Model) -> bool:
    """Whether the loss of a model is more than what it is compiled with: its own `compute_loss`."""
    return not _is_keras_own(model, "compute_loss")


def trains_by_call(model: keras.Model) -> bool:
    """Whether all that trains is in the model's call, and the loss reads its outputs alone."""
    return not (has_own_step(model) or has_own_loss(model))


def _is_keras_own(model: keras.Model, method: str) -> bool:
    own = vars(model).get(method, getattr(type(model), method))
    return own is getattr(keras.Model, method)

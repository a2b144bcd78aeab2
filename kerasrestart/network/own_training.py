"""What of a model's training is not Keras's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def has_own_step(model: keras.Model) -> bool:
    """Whether a model trains by another `train_step` than Keras's own."""
    return not _is_keras_own(model, "train_step")


def has_own_loss(model: keras.Model) -> bool:
    """Whether the loss of a model is more than what it is compiled with: its own `compute_loss`."""
    return not _is_keras_own(model, "compute_loss")


def trains_by_call(model: keras.Model) -> bool:
    """Whether all that trains is in the model's call, and the loss reads its outputs alone."""
    return not (has_own_step(model) or has_own_loss(model))


def runs_eagerly(model: keras.Model) -> bool:
    """Whether `fit` runs the Python code of the step at each batch."""
    return bool(model.run_eagerly or tf.config.functions_run_eagerly())


def stands_for(step: Callable[[Any], Any], model: keras.Model) -> Callable[[Any], Any]:
    """Marks a step that is put in place of the model's, whose kind stays what it is."""
    # By name, as functions have no attributes that a type checker knows of.
    vars(step).update(in_place_of=_method(model, "train_step"))
    return step


def _is_keras_own(model: keras.Model, method: str) -> bool:
    return _method(model, method) is getattr(keras.Model, method)


def _method(model: keras.Model, name: str) -> Any:
    method = vars(model).get(name, getattr(type(model), name))
    return getattr(method, "in_place_of", method)

"""The loss scale of a pass over examples that trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.keras_internals import compute_loss
from kerasrestart.scoring.batches import naming_data
from kerasrestart.scoring.reduction import loss_to_example_scale


class LossScale:
    """Scales the loss as the model's optimizer does, and less where gradients overflow.

    In training an optimizer that scales the loss (mixed_float16) lowers its scale at each step
    whose gradients overflow, and begins at 2**15. A pass that trains nothing cannot wait for that.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        with model.distribute_strategy.scope():
            self._value = tf.Variable(self._of_optimizer(), trainable=False, name="loss_scale")

    def scaled_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        """The compiled loss of a batch in inference mode, scaled.

        Raises:
            ValueError: The loss raised an error.
        """
        with naming_data(self._model):
            loss = compute_loss(self._model, x, y, y_pred, sample_weight, training=False)
        return loss * tf.cast(self._value, loss.dtype)

    def to_example_scale(self, batch_size: int | tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """What turns gradients of the scaled loss into those of the cost of one example."""
        scale = loss_to_example_scale(self._model, batch_size, sample_weight)
        return tf.cast(scale, tf.float32) / self._value

    def run(self, examples_pass: Callable[[], bool]) -> None:
        """Runs a pass, again with a lower scale as long as its results are not finite.

        Args:
            examples_pass: Runs the pass from its beginning, and returns whether all is finite.
        """
        self._value.assign(self._of_optimizer())
        while not examples_pass() and self._value.read_value() > 1:
            self._value.assign(tf.maximum(self._value.read_value() / 16, 1))

    def _of_optimizer(self) -> tf.Tensor:
        return tf.cast(self._model.optimizer.scale_loss(1.0), tf.float32)

"""Keeps the class order of validation and test in step with training."""

from __future__ import annotations

import keras
import tensorflow as tf

from kerasrestart.experiments.data.regimes import Regime


class ClassOrderCallback(keras.callbacks.Callback):
    """Sets the class order of the current epoch for validation and test.

    Example:
    ```python
    callback = ClassOrderCallback(regime)
    validation = evaluation_batches(split, 500, mean=m, std=s, class_order=callback.class_order)
    model.fit(train, validation_data=validation, callbacks=[callback])
    ```

    Args:
        regime: The regime that training uses.

    Attributes:
        class_order: int32 variable `[classes]`, the label of each class in the current epoch.
    """

    def __init__(self, regime: Regime):
        super().__init__()
        self.regime = regime
        self.class_order = tf.Variable(regime.class_order(0), trainable=False)

    def on_epoch_begin(self, epoch, logs=None):
        """Assigns the class order of this epoch."""
        self.class_order.assign(self.regime.class_order(epoch))

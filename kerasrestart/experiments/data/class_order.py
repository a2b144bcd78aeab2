"""Tells validation and test which regime an epoch is trained in."""

from __future__ import annotations

import keras
import tensorflow as tf

from kerasrestart.experiments.data.regimes import Regime


class ClassOrderCallback(keras.callbacks.Callback):
    """Lets validation and test call the classes as training does.

    Args:
        regime: What each epoch is trained on.

    Attributes:
        class_order: Variable with the names of the present epoch.
    """

    def __init__(self, regime: Regime):
        super().__init__()
        self.regime = regime
        self.class_order = tf.Variable(regime.class_order(0), trainable=False)

    def on_epoch_begin(self, epoch, logs=None):
        """Takes the names of this epoch."""
        self.class_order.assign(self.regime.class_order(epoch))

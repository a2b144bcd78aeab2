"""A training step of a model's own, in parts that subclasses replace."""

import keras
import tensorflow as tf


class OneTape(keras.Model):
    """Trains as Keras's own step does, by one tape."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y, self(x, training=True))
        self.update(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}

    def loss_of(self, x, y, y_pred):
        return self.compute_loss(x, y, y_pred)

    def update(self, gradients, weights):
        self.optimizer.apply(gradients, weights)

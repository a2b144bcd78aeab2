"""A model with its own `train_step`: mixup (Zhang et al., ICLR 2018).

python examples/own_training_step.py
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from keras import layers

import kerasrestart
from kerasrestart.experiments import data


class MixupModel(kerasrestart.RestartModel):
    """Trains on mixtures of two images and of their labels, which are one-hot."""

    def train_step(self, data):
        """Trains on a batch; scores the filters while `PartialRestart` is used."""
        x, y = data
        share = tf.random.uniform(())  # Beta(1, 1)
        x = share * x + (1 - share) * tf.reverse(x, axis=[0])
        y = share * y + (1 - share) * tf.reverse(y, axis=[0])
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = self.scored_gradients(tape, scaled_loss, batch_size=tf.shape(x)[0])
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
        return self.compute_metrics(x, y, y_pred)


def main(arguments: list[str] | None = None) -> kerasrestart.PartialRestart:
    """Trains with restarts; returns the callback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4000, help="images to draw")
    parser.add_argument("--epochs", type=int, default=9, help="epochs; a round has three")
    chosen = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    images = data.load("shapes", shapes_examples=chosen.examples)
    classes = len(images.classes)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv2")(x)
    x = layers.Flatten(name="flatten")(x)
    model = MixupModel(inputs, layers.Dense(classes, name="logits")(x))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    restart = kerasrestart.PartialRestart(when=kerasrestart.EveryEpochs(3), max_restarts=2)

    def prepared(split):
        return split.images.astype("float32") / 255, keras.utils.to_categorical(
            split.labels, classes
        )

    model.fit(
        *prepared(images.train),
        batch_size=64,
        epochs=chosen.epochs,
        validation_data=prepared(images.validation),
        verbose=2,
        callbacks=[restart],
    )
    return restart


if __name__ == "__main__":
    main()

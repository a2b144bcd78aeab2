"""Networks written as people write their own: subclasses, and a training step of its own."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers


class Residual(layers.Layer):
    """Two convolutions and a shortcut."""

    def __init__(self, filters: int, strides: int = 1):
        super().__init__()
        options = {"padding": "same", "use_bias": False}
        self.first = layers.Conv2D(filters, 3, strides=strides, **options)
        self.first_norm = layers.BatchNormalization()
        self.second = layers.Conv2D(filters, 3, **options)
        self.second_norm = layers.BatchNormalization()
        self.shortcut = layers.Conv2D(filters, 1, strides=strides, **options)

    def call(self, x, training=None):
        """Adds the convolutions to the shortcut."""
        y = tf.nn.relu(self.first_norm(self.first(x), training=training))
        y = self.second_norm(self.second(y), training=training)
        return tf.nn.relu(self.shortcut(x) + y)


class SubclassedResNet(keras.Model):
    """Stages of 16, 32 and 64 filters, two blocks each."""

    def __init__(self, classes: int):
        super().__init__()
        self.stem = layers.Conv2D(16, 3, padding="same", use_bias=False)
        self.stem_norm = layers.BatchNormalization()
        self.blocks = [
            Residual(filters, strides=2 if first and filters > 16 else 1)
            for filters in (16, 32, 64)
            for first in (True, False)
        ]
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(classes)

    def call(self, x, training=None):
        """Gives logits."""
        x = tf.nn.relu(self.stem_norm(self.stem(x), training=training))
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.pool(x))


class VariationalAutoEncoder(keras.Model):
    """Two convolutions down, two up, and a training step that takes its own loss."""

    def __init__(self, side: int, channels: int, size: int = 16):
        super().__init__()
        options = {"strides": 2, "padding": "same", "activation": "relu"}
        self.encoder = keras.Sequential(
            [
                layers.Conv2D(32, 3, **options),
                layers.Conv2D(64, 3, **options),
                layers.Flatten(),
                layers.Dense(2 * size),
            ]
        )
        self.decoder = keras.Sequential(
            [
                layers.Dense(side * side * 4, activation="relu"),
                layers.Reshape((side // 4, side // 4, 64)),
                layers.Conv2DTranspose(64, 3, **options),
                layers.Conv2DTranspose(32, 3, **options),
                layers.Conv2DTranspose(channels, 3, padding="same"),
            ]
        )
        self.noise = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        """Gives the image that is decoded."""
        return self.with_divergence(x)[0]

    def with_divergence(self, x):
        """Gives that image, and the divergence of the code."""
        mean, spread = tf.split(self.encoder(x), 2, axis=-1)
        code = mean + tf.exp(spread / 2) * keras.random.normal(tf.shape(mean), seed=self.noise)
        divergence = -0.5 * tf.reduce_sum(1 + spread - mean**2 - tf.exp(spread), axis=-1)
        return self.decoder(code), tf.reduce_mean(divergence)

    def train_step(self, data):
        """Trains on the error of the image and the divergence."""
        x, _ = data
        with tf.GradientTape() as tape:
            image, divergence = self.with_divergence(x)
            error = tf.reduce_sum((x - image) ** 2, axis=(1, 2, 3))
            loss = tf.reduce_mean(error) + divergence
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


def subclassed_resnet(input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Builds a `SubclassedResNet`."""
    model = SubclassedResNet(classes)
    model(tf.zeros((1, *input_shape)))
    return model


def vae(input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Builds a `VariationalAutoEncoder`; it has no classes."""
    del classes
    model = VariationalAutoEncoder(input_shape[0], input_shape[2])
    model(tf.zeros((1, *input_shape)))
    return model

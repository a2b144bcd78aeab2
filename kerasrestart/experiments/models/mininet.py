"""MiniNet: the small plain network."""

from __future__ import annotations

import functools

import keras
from keras import layers

from kerasrestart.experiments.models.hidden_layer import hidden_layer


def mininet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    name: str = "mininet",
    *,
    width: float = 1.0,
    activation: str = "relu",
    norm: str = "none",
) -> keras.Model:
    """Builds MiniNet: three 5x5 convolutions of 32, 32 and 64 filters and a dense layer of 64.

    The paper's figure of its MiniNet is lost. This is the shape of Caffe's "CIFAR-10 quick"
    network, with its 145,578 weights: each convolution is followed by 3x3 pooling of stride 2
    (maximum first, then twice average) whose windows are cut at the lower and right border as Caffe
    cuts them. Unlike Caffe's, the dense layer has a ReLU, and weights are initialised with Keras's
    defaults.

    Example:
    ```python
    model = kerasrestart.models.mininet((32, 32, 3), classes=10)
    ```

    Args:
        input_shape: Height, width and channels of an image. Defaults to `(32, 32, 3)`.
        classes: Number of classes. Defaults to 10.
        name: Name of the model. Defaults to `"mininet"`.
        width: Factor on the filters and units of the hidden layers, rounded. Defaults to 1.
        activation: `"relu"`, `"leaky_relu"` or `"crelu"`, see `hidden_layer`. Defaults to `"relu"`.
        norm: `"none"`, `"batch"` or `"layer"`. Defaults to `"none"`.

    Returns:
        A Functional model from float32 `[batch, *input_shape]` to logits `[batch, classes]`.
    """
    hidden = functools.partial(hidden_layer, activation=activation, norm=norm)
    few, many = (max(1, round(width * count)) for count in (32, 64))
    pooling = {"pool_size": 3, "strides": 2, "padding": "same"}
    inputs = keras.Input(input_shape, name="image")
    x = hidden(layers.Conv2D, inputs, few, 5, padding="same", name="conv1")
    x = layers.MaxPooling2D(**pooling, name="pool1")(x)
    x = hidden(layers.Conv2D, x, few, 5, padding="same", name="conv2")
    x = layers.AveragePooling2D(**pooling, name="pool2")(x)
    x = hidden(layers.Conv2D, x, many, 5, padding="same", name="conv3")
    x = layers.AveragePooling2D(**pooling, name="pool3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = hidden(layers.Dense, x, many, name="dense1")
    # float32 under mixed precision too: the loss is computed from these.
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)

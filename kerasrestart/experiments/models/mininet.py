"""MiniNet: the small plain network."""

from __future__ import annotations

import keras
from keras import layers


def mininet(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, name: str = "mininet"
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

    Returns:
        A Functional model from float32 `[batch, *input_shape]` to logits `[batch, classes]`.
    """
    pooling = {"pool_size": 3, "strides": 2, "padding": "same"}
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(32, 5, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling2D(**pooling, name="pool1")(x)
    x = layers.Conv2D(32, 5, padding="same", activation="relu", name="conv2")(x)
    x = layers.AveragePooling2D(**pooling, name="pool2")(x)
    x = layers.Conv2D(64, 5, padding="same", activation="relu", name="conv3")(x)
    x = layers.AveragePooling2D(**pooling, name="pool3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="dense1")(x)
    # float32 under mixed precision too: the loss is computed from these.
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)

"""ResNet-20, the residual network for CIFAR-10."""

from __future__ import annotations

import keras
from keras import layers

from kerasrestart.experiments.models.hidden_layer import NORM_LAYERS


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    name: str = "resnet20",
    *,
    activation: str = "relu",
    norm: str = "batch",
) -> keras.Model:
    """Builds the 20-layer network of He et al. 2016 ("Deep residual learning", section 4.2).

    A 3x3 convolution, three stages of three blocks with 16, 32 and 64 filters, the average over
    all positions, and a dense layer: 269,722 trainable weights for 10 classes. A block is two
    3x3 convolutions, each with its batch norm, added to the block's input. Where a stage begins,
    positions are halved by a stride of 2 and the shortcut has no weights (option A of the paper):
    it takes every other position, and zeros for the channels that are new.

    A convolution has no bias, since a batch norm follows, and He's normal initial weights.

    Example:
    ```python
    model = kerasrestart.models.resnet20((32, 32, 3), classes=10)
    ```

    Args:
        input_shape: Height, width and channels of an image. Defaults to `(32, 32, 3)`.
        classes: Number of classes. Defaults to 10.
        name: Name of the model. Defaults to `"resnet20"`.
        activation: `"relu"` or `"leaky_relu"`, of slope 0.2. Defaults to `"relu"`.
        norm: `"batch"`, `"layer"` or `"none"`; without a norm the convolutions have a bias.
            Defaults to `"batch"`.

    Returns:
        A Functional model from float32 `[batch, *input_shape]` to logits `[batch, classes]`.
    """
    inputs = keras.Input(input_shape, name="image")
    x = _convolution(inputs, 16, 1, "conv1", "bn1", norm)
    x = _activation(activation, "relu1")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in (1, 2, 3):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, stride, f"stage{stage}_block{block}", activation, norm)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    # float32 under mixed precision too: the loss is computed from these.
    logits = layers.Dense(classes, kernel_initializer="he_normal", dtype="float32", name="logits")(
        x
    )
    return keras.Model(inputs, logits, name=name)


def _block(
    x: keras.KerasTensor, filters: int, stride: int, name: str, activation: str, norm: str
) -> keras.KerasTensor:
    shortcut = x
    if stride > 1:
        # Pooling one position at a stride of 2 takes every other position.
        shortcut = layers.AveragePooling2D(1, strides=stride, name=f"{name}_subsample")(x)
        zeros = layers.Rescaling(0.0, name=f"{name}_zeros")(shortcut)
        shortcut = layers.Concatenate(name=f"{name}_widen")([shortcut, zeros])
    y = _convolution(x, filters, stride, f"{name}_conv1", f"{name}_bn1", norm)
    y = _activation(activation, f"{name}_relu1")(y)
    y = _convolution(y, filters, 1, f"{name}_conv2", f"{name}_bn2", norm)
    y = layers.Add(name=f"{name}_add")([y, shortcut])
    return _activation(activation, f"{name}_relu2")(y)


def _activation(activation: str, name: str) -> keras.Layer:
    if activation == "relu":
        return layers.ReLU(name=name)
    return layers.Activation(activation, name=name)


def _convolution(
    x: keras.KerasTensor, filters: int, stride: int, name: str, norm_name: str, norm: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        3,
        strides=stride,
        padding="same",
        use_bias=norm == "none",
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return x if norm == "none" else NORM_LAYERS[norm](name=norm_name)(x)

"""AlexNet as in torchvision."""

from __future__ import annotations

import functools
import os

import keras
from keras import layers

from kerasrestart.experiments.combinations import ALEXNET_MIN_SIDE
from kerasrestart.experiments.models.alexnet_weights import POOLED_SIDE, load_alexnet_weights
from kerasrestart.experiments.models.hidden_layer import hidden_layer


def alexnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 10,
    weights: str | os.PathLike | None = None,
    units: int = 4096,
    dropout: float = 0.5,
    name: str = "alexnet",
    *,
    activation: str = "relu",
    norm: str = "none",
) -> keras.Model:
    """Builds AlexNet with 64, 192, 384, 256 and 256 filters (Krizhevsky 2014, section 5).

    Example:
    ```python
    model = kerasrestart.models.alexnet((64, 64, 3), classes=10)
    ```

    It is torchvision's network layer for layer, so that weights trained there fit. Between the
    convolutions and the dense layers torchvision average-pools the map to 6x6, whatever its
    size. An image of 224x224 pixels gives 6x6 already. A larger map is pooled as in torchvision.
    A smaller one (1x1 for 64x64 pixels) would be enlarged to 6x6 by repeating its values, which
    adds no information: here it is flattened unchanged, and `dense1` has fewer inputs; weights from
    a file are summed accordingly, so that the network computes the same function.

    Weights are initialised with Keras's default, Glorot uniform. (With He's, which are larger, and
    no norm, the units died within an epoch in the one trial that was made.)

    Args:
        input_shape: Height, width (at least 63 each) and channels of an image. Defaults to
            `(224, 224, 3)`.
        classes: Number of classes. Defaults to 10.
        weights: A file of weights under torchvision's names, `.safetensors` or `.pth`, the whole
            network or the convolutions alone; or `"imagenet"`: torchvision's own file, downloaded
            once. See `load_alexnet_weights`. Images must then be RGB in 0..1, minus `IMAGENET_MEAN`
            and divided by `IMAGENET_STD`. Defaults to None: random weights.
        units: Units of the two hidden dense layers. Defaults to 4096.
        dropout: Dropout rate before each of them. Defaults to 0.5.
        name: Name of the model. Defaults to `"alexnet"`.
        activation: `"relu"`, `"leaky_relu"` or `"crelu"`, see `hidden_layer`. Defaults to `"relu"`.
        norm: `"none"`, `"batch"` or `"layer"`. Defaults to `"none"`.

    Returns:
        A Functional model from float32 `[batch, *input_shape]` to logits `[batch, classes]`.

    Raises:
        ValueError: The images are too small, or too large for this version of Keras to pool their
            map to 6x6; or a file of weights cannot be used.
        OSError: The file cannot be read or downloaded.
    """
    if min(input_shape[:2]) < ALEXNET_MIN_SIDE:
        raise ValueError(
            f"AlexNet must have images of at least {ALEXNET_MIN_SIDE} x {ALEXNET_MIN_SIDE} pixels. "
            f"Received: {input_shape[0]} x {input_shape[1]}"
        )

    hidden = functools.partial(hidden_layer, activation=activation, norm=norm)
    pooling = {"pool_size": 3, "strides": 2}
    inputs = keras.Input(input_shape, name="image")
    # Two pixels on each side: "same" pads differently where the stride is 4.
    x = layers.ZeroPadding2D(2, name="pad1")(inputs)
    x = hidden(layers.Conv2D, x, 64, 11, strides=4, name="conv1")
    x = layers.MaxPooling2D(**pooling, name="pool1")(x)
    x = hidden(layers.Conv2D, x, 192, 5, padding="same", name="conv2")
    x = layers.MaxPooling2D(**pooling, name="pool2")(x)
    x = hidden(layers.Conv2D, x, 384, 3, padding="same", name="conv3")
    x = hidden(layers.Conv2D, x, 256, 3, padding="same", name="conv4")
    x = hidden(layers.Conv2D, x, 256, 3, padding="same", name="conv5")
    x = layers.MaxPooling2D(**pooling, name="pool5")(x)
    x = _at_most_6x6(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(dropout, name="dropout1")(x)
    x = hidden(layers.Dense, x, units, name="dense1")
    x = layers.Dropout(dropout, name="dropout2")(x)
    x = hidden(layers.Dense, x, units, name="dense2")
    # float32 under mixed precision too: the loss is computed from these.
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    model = keras.Model(inputs, logits, name=name)
    if weights is not None:
        print(load_alexnet_weights(model, weights).summary(), flush=True)
    return model


def _at_most_6x6(x: keras.KerasTensor) -> keras.KerasTensor:
    sides = tuple(x.shape[1:3])
    pooled = tuple(min(side, POOLED_SIDE) for side in sides)
    if pooled == sides:
        return x
    if not hasattr(layers, "AdaptiveAveragePooling2D"):
        raise ValueError(
            f"AlexNet's last map has {sides[0]} x {sides[1]} positions for these images, and "
            f"Keras {keras.__version__} has no AdaptiveAveragePooling2D to pool it to 6 x 6: "
            "use images of 63 to 254 pixels each way, or a newer Keras."
        )
    return layers.AdaptiveAveragePooling2D(pooled, name="pool_to_6x6")(x)

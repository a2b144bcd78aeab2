"""A hidden layer with the norm and the activation that a study compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

NORM_LAYERS: dict[str, type[keras.Layer]] = {
    "batch": layers.BatchNormalization,
    "layer": layers.LayerNormalization,
}
"""By the name that `--norm` takes, the norm; `layer` normalises over the channels of a position."""


def hidden_layer(
    make: Callable[..., keras.Layer],
    inputs: keras.KerasTensor,
    *arguments: Any,
    name: str,
    activation: str = "relu",
    norm: str = "none",
    **options: Any,
) -> keras.KerasTensor:
    """Applies a layer with weights, then its norm, then its activation.

    Example:
    ```python
    x = hidden_layer(keras.layers.Dense, x, 64, name="dense1", activation="crelu", norm="layer")
    ```

    Sources: of the concatenated ReLU, Shang et al., "Understanding and Improving Convolutional
    Neural Networks via Concatenated Rectified Linear Units" (ICML 2016); of its use against loss of
    plasticity, Abbas et al., "Loss of Plasticity in Continual Deep Reinforcement Learning" (2023).

    Args:
        make: Class of the layer, such as `keras.layers.Conv2D`.
        inputs: What it reads.
        *arguments: Its arguments.
        name: Its name.
        activation: `"relu"`; `"leaky_relu"`, of slope 0.2, Keras's default; or `"crelu"`, ReLU of
            the features and of their negatives: twice the channels. Defaults to `"relu"`.
        norm: `"none"`, or a name of `NORM_LAYERS`. Defaults to `"none"`.
        **options: More of its arguments.

    Returns:
        The activations.
    """
    if norm == "none" and activation != "crelu":
        return make(*arguments, activation=activation, name=name, **options)(inputs)
    x = make(*arguments, name=name, **options)(inputs)
    if norm != "none":
        x = NORM_LAYERS[norm](name=f"{name}_norm")(x)
    if activation != "crelu":
        return layers.Activation(activation, name=f"{name}_{activation}")(x)
    negative = layers.Rescaling(-1.0, name=f"{name}_negative")(x)
    halves = [
        layers.ReLU(name=f"{name}_relu")(x),
        layers.ReLU(name=f"{name}_negative_relu")(negative),
    ]
    return layers.Concatenate(name=f"{name}_crelu")(halves)

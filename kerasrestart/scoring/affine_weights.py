"""The weights that scale a filter's feature map, and their saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.scoring.criteria import Criterion

ValueAndGradient = tuple[tf.Tensor, tf.Tensor]


def affine_weights(filter_layer: FilterLayer, criterion: Criterion) -> list[keras.Variable]:
    """The weights of the last affine map before a filter's activation.

    These are the scale and shift of its norm where that is trained, else its kernel and bias.
    """
    norm = filter_layer.norm
    if norm is not None and norm.trainable:
        gamma, beta = getattr(norm, "gamma", None), getattr(norm, "beta", None)
        if gamma is None:
            raise ValueError(
                f"Criterion '{criterion.name}' needs the scale of norm '{norm.name}' behind "
                f"layer '{filter_layer.name}', which has none: make it with scale=True, or score "
                "by 'taylor'."
            )
        variables = [gamma, beta]
    else:
        variables = [kernels.incoming_kernel(filter_layer.layer), filter_layer.layer.bias]
    return [variable for variable in variables if variable is not None]


def weight_saliencies(
    criterion: Criterion,
    filter_layer: FilterLayer,
    variables: Sequence[keras.Variable],
    gradients: Mapping[int, Sequence[ValueAndGradient]],
    scale: tf.Tensor,
) -> list[tf.Tensor]:
    """The saliency of a layer's filters for each time that its gradients were applied.

    Args:
        criterion: One that needs the gradients of weights.
        filter_layer: The layer.
        variables: Its `affine_weights`.
        gradients: By the `id` of a variable, its values and the gradients of the loss by it.
        scale: What turns these into gradients of the mean cost.

    Returns:
        float32 `[filters]` each; none where no gradient came.
    """
    found = [list(gradients.get(id(variable), ())) for variable in variables]
    saliencies = []
    for call in range(max(map(len, found))):
        rows = []
        for variable, of_calls in zip(variables, found, strict=True):
            zeros = tf.zeros(variable.shape)
            value, gradient = of_calls[call] if call < len(of_calls) else (zeros, zeros)
            rows.append(
                [filter_columns(tf.cast(t, tf.float32), filter_layer) for t in (value, gradient)]
            )
        weights, of_weights = (tf.concat(part, axis=0) for part in zip(*rows, strict=True))
        saliencies.append(criterion.call(weights, of_weights * scale))
    return saliencies


def filter_columns(values: tf.Tensor, filter_layer: FilterLayer) -> tf.Tensor:
    """Brings a kernel, or one number for each filter, into the form `[weights, filters]`."""
    if len(values.shape) > 1 and filter_layer.filter_axis == -2:
        values = tf.linalg.matrix_transpose(values)
    return tf.reshape(values, [-1, filter_layer.filters])

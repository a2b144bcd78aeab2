"""The weights that scale a filter's feature map, and what a criterion makes of their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.scoring.criteria import Criterion


def affine_weights(filter_layer: FilterLayer, criterion: Criterion) -> list[keras.Variable]:
    """The weights that scale a filter's feature map as one: those of the last affine map."""
    norm = filter_layer.norm
    if norm is not None and norm.trainable:
        gamma, beta = getattr(norm, "gamma", None), getattr(norm, "beta", None)
        if gamma is None:
            raise ValueError(
                f"Criterion '{criterion.name}' needs the scale of norm '{norm.name}' behind "
                f"layer '{filter_layer.name}', which has none: make it with scale=True, or score by "
                "'taylor'."
            )
        variables = [gamma, beta]
    else:
        variables = [kernels.incoming_kernel(filter_layer.layer), filter_layer.layer.bias]
    return [variable for variable in variables if variable is not None]


def saliencies_of_weights(
    criterion: Criterion,
    filter_layers: Sequence[FilterLayer],
    gates: Sequence[Sequence[keras.Variable]],
    by_weight: Mapping[int, tf.Tensor | None],
    factor: tf.Tensor,
) -> tf.Tensor:
    """Saliencies of one batch, all filters of all layers end to end.

    Args:
        criterion: One that needs the gradients of weights.
        filter_layers: The scored layers.
        gates: For each, its `affine_weights`.
        by_weight: By the `id` of a variable, the gradient of the loss by it.
        factor: What turns that into the gradient of the mean cost.
    """
    saliencies = []
    for filter_layer, variables in zip(filter_layers, gates, strict=True):
        rows = []
        for variable in variables:
            weight = tf.cast(variable.value, tf.float32)
            gradient = by_weight[id(variable)]
            gradient = tf.zeros_like(weight) if gradient is None else gradient
            rows.append([filter_columns(tensor, filter_layer) for tensor in (weight, gradient)])
        weights, gradients = (tf.concat(part, axis=0) for part in zip(*rows, strict=True))
        saliency = criterion.saliency(weights, tf.cast(gradients, tf.float32) * factor)
        criterion.check(saliency.shape, filter_layer.name, filter_layer.filters)
        saliencies.append(saliency)
    return tf.concat(saliencies, axis=0)


def filter_columns(values: tf.Tensor, filter_layer: FilterLayer) -> tf.Tensor:
    """Brings a kernel, or one number a filter, into the form `[weights, filters]`."""
    if len(values.shape) > 1 and filter_layer.filter_axis == -2:
        values = tf.linalg.matrix_transpose(values)
    return tf.reshape(values, [-1, filter_layer.filters])

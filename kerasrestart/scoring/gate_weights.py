"""The weights that scale a filter's feature map, and what a criterion makes of their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.sites import Site
from kerasrestart.scoring.criteria import Criterion


def gate_weights(site: Site, criterion: Criterion) -> list[keras.Variable]:
    """The weights that scale a filter's feature map as one: those of the last affine map."""
    norm = site.norm
    if norm is not None and norm.trainable:
        gamma, beta = getattr(norm, "gamma", None), getattr(norm, "beta", None)
        if gamma is None:
            raise ValueError(
                f"Criterion '{criterion.name}' needs the scale of norm '{norm.name}' behind "
                f"layer '{site.name}', which has none: make it with scale=True, or score by "
                "'taylor'."
            )
        variables = [gamma, beta]
    else:
        variables = [kernels.incoming_kernel(site.layer), site.layer.bias]
    return [variable for variable in variables if variable is not None]


def saliencies_of_weights(
    criterion: Criterion,
    sites: Sequence[Site],
    gates: Sequence[Sequence[keras.Variable]],
    by_weight: Mapping[int, tf.Tensor | None],
    factor: tf.Tensor,
) -> tf.Tensor:
    """Saliencies of one batch, all filters of all layers end to end.

    Args:
        criterion: One that needs the gradients of weights.
        sites: The scored layers.
        gates: For each, its `gate_weights`.
        by_weight: By the `id` of a variable, the gradient of the loss by it.
        factor: What turns that into the gradient of the mean cost.
    """
    saliencies = []
    for site, variables in zip(sites, gates, strict=True):
        rows = []
        for variable in variables:
            weight = tf.cast(variable.value, tf.float32)
            gradient = by_weight[id(variable)]
            gradient = tf.zeros_like(weight) if gradient is None else gradient
            rows.append([filter_columns(tensor, site) for tensor in (weight, gradient)])
        weights, gradients = (tf.concat(part, axis=0) for part in zip(*rows, strict=True))
        saliency = criterion.saliency(weights, tf.cast(gradients, tf.float32) * factor)
        criterion.check(saliency.shape, site.name, site.filters)
        saliencies.append(saliency)
    return tf.concat(saliencies, axis=0)


def filter_columns(values: tf.Tensor, site: Site) -> tf.Tensor:
    """Brings a kernel, or one number a filter, into the form `[weights, filters]`."""
    if len(values.shape) > 1 and site.filter_axis == -2:
        values = tf.linalg.matrix_transpose(values)
    return tf.reshape(values, [-1, site.filters])

"""From what a batch leaves to its part of the scores."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.scoring.affine_weights import weight_saliencies
from kerasrestart.scoring.criteria import Criterion, Needs
from kerasrestart.scoring.step_record import StepRecord


def batch_sums(
    criterion: Criterion,
    layers: Sequence[FilterLayer],
    weights: Sequence[Sequence[keras.Variable]],
    record: StepRecord,
    batch_size: tf.Tensor,
    loss_to_example_scale: tf.Tensor,
) -> tf.Tensor:
    """Sums over a batch of the normalized saliencies; a score is their mean over examples.

    For each filter of each layer, with the saliency s summed over the M positions of each of the
    layer's n calls, the examples of a batch of B and the factor F:

    - a contribution: F * sum over calls of (sum over examples of s) / M
    - a gradient by the activation: F * mean over calls of (sum over examples of s) / M
    - an activation: B * mean over calls of (mean over the rows of s) / M
    - a gradient by weights: B * s(weights, gradients * F / B), summed over calls of the optimizer

    Args:
        criterion: One that needs the batches.
        layers: The scored layers.
        weights: For each, its affine weights; not used without a criterion that needs them.
        record: What the step left.
        batch_size: B, float32 scalar.
        loss_to_example_scale: F, float32 scalar: what turns a gradient of the differentiated loss
            into one of the cost of one example.

    Returns:
        float32 `[filters of all layers]`; zeros for a layer of which nothing was read.

    Raises:
        ValueError: The criterion does not give one number for each filter.
    """
    filters = [layer.filters for layer in layers]
    # What is common to all layers is applied once, after the concatenation: in a network of
    # hundreds of layers each operation of a layer counts.
    divisors = np.ones(len(layers), np.float32)
    parts = []
    for number, layer in enumerate(layers):
        if criterion.needs is Needs.WEIGHT_GRADIENT:
            # The gradient of the mean cost first: the criterion is not linear in it. A replica's
            # part of a batch may be empty.
            of_mean = tf.math.divide_no_nan(loss_to_example_scale, batch_size)
            found = weight_saliencies(criterion, layer, weights[number], record.gradients, of_mean)
            calls = [(saliency, 1) for saliency in found]
        else:
            calls = record.saliencies.get(number, [])
        if not calls:
            parts.append(tf.zeros(layer.filters))
            continue
        for saliency, _ in calls:
            criterion.check(saliency.shape, layer.name, layer.filters)
        sizes = {positions if isinstance(positions, int) else None for _, positions in calls}
        if len(sizes) == 1 and None not in sizes:
            (divisors[number],) = sizes
            terms = [saliency for saliency, _ in calls]
        else:
            terms = [saliency / tf.cast(positions, tf.float32) for saliency, positions in calls]
        if criterion.needs in (Needs.ACTIVATION, Needs.ACTIVATION_GRADIENT):
            divisors[number] *= len(calls)
        parts.append(terms[0] if len(terms) == 1 else tf.add_n(terms))
    by_gradient = criterion.needs in (Needs.CONTRIBUTION, Needs.ACTIVATION_GRADIENT)
    factor = loss_to_example_scale if by_gradient else batch_size
    return tf.concat(parts, axis=0) / np.repeat(divisors, filters) * factor

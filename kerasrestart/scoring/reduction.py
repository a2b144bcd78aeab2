"""How the loss that is differentiated relates to the cost of one example."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.own_training import has_own_step
from kerasrestart.scoring import replicas

# The values of `keras.losses.Loss(reduction=...)` other than "mean_with_sample_weight".
MEANS = ("sum_over_batch_size", "mean")
SUMS = ("sum", "none", None)


def loss_to_example_scale(
    model: keras.Model, batch_size: tf.Tensor, sample_weight: Any
) -> tf.Tensor:
    """The factor between the gradient of a batch's loss and that of one example's cost.

    With the usual mean over the batch it is the batch size, with `reduction="sum"` it is one, with
    `reduction="mean_with_sample_weight"` the sum of the weights, of which an example with a weight
    for each position has their mean. The division by the number of replicas that Keras makes is
    undone; the loss scale of the optimizer is left to the caller.

    Args:
        model: A compiled model.
        batch_size: int32 scalar, the examples of one replica.
        sample_weight: The batch's weights, or None.

    Returns:
        float32 scalar.

    Raises:
        ValueError: The losses of a model with several outputs mix means and sums, so that there is
            no such factor.
    """
    divisor = _divisor(model, batch_size, sample_weight)
    # Keras divides means by the number of replicas, and sums not.
    return tf.ones(()) if divisor is None else replicas.over_replicas(divisor)


def check_reductions(model: keras.Model) -> None:
    """Checks that the losses of a compiled model have one reduction in common.

    A training step of the model's own may do anything with its losses, and is not checked.

    Raises:
        ValueError: As `loss_to_example_scale` does.
    """
    reductions = _reductions(model)
    if has_own_step(model) or reductions <= set(MEANS) or reductions <= set(SUMS):
        return
    if reductions != {"mean_with_sample_weight"}:
        raise ValueError(
            "All losses must have one reduction: all 'sum_over_batch_size', all 'sum', or all "
            f"'mean_with_sample_weight'. Received: {sorted(map(str, reductions))}"
        )


def replica_loss_weight(model: keras.Model, batch_size: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    """The factor that makes a replica's loss its part of the whole batch's loss.

    Keras takes the mean over replicas of their means, in which an example of a smaller part weighs
    more. Multiplied by this, the sum over replicas is what one device would have computed.

    Args:
        model: A compiled model; called in a replica's step.
        batch_size: int32 scalar, the examples of this replica.
        sample_weight: Their weights, or None.

    Returns:
        float32 scalar: 1 where all replicas have equal parts, or where losses are sums.

    Raises:
        ValueError: As `loss_to_example_scale` does.
    """
    if replicas.count() == 1:
        return tf.ones(())
    divisor = _divisor(model, batch_size, sample_weight)
    return tf.ones(()) if divisor is None else replicas.share_of_sum(divisor)


def _divisor(model: keras.Model, batch_size: tf.Tensor, sample_weight: Any) -> tf.Tensor | None:
    """What the sum over the examples is divided by in the loss; None: by nothing."""
    reductions = _reductions(model)
    size = tf.cast(batch_size, tf.float32)
    if reductions <= set(MEANS):
        return size
    if reductions <= set(SUMS):
        return None
    check_reductions(model)
    if keras.tree.is_nested(sample_weight):
        raise ValueError(
            "sample_weight must be one weight for each example with 'mean_with_sample_weight'. "
            "Received: weights of each output"
        )
    if sample_weight is None:
        return size
    weights = tf.cast(sample_weight, tf.float32)
    # Such as one for each pixel: the cost of an example is a mean over its positions.
    of_examples = tf.reduce_mean(weights, axis=list(range(1, weights.shape.rank)))
    return tf.reduce_sum(of_examples)


def _reductions(model: keras.Model) -> set[str | None]:
    """Reductions of the compiled losses; names and plain functions become a mean over the batch."""
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    return {getattr(loss, "reduction", "sum_over_batch_size") for loss in losses}

"""How the loss that is differentiated relates to the cost of one example."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# What `keras.losses.Loss(reduction=...)` may be, but for "mean_with_sample_weight".
MEANS = ("sum_over_batch_size", "mean")
SUMS = ("sum", "none", None)


def costs_per_loss(model: keras.Model, batch_size: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    """The factor between the gradient of a batch's loss and that of one example's cost.

    With the usual mean over the batch it is the batch size, with `reduction="sum"` it is one, with
    `reduction="mean_with_sample_weight"` the sum of the weights. The loss scale of the optimizer is
    divided out, and the division by the number of replicas that Keras makes is undone.

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
    reductions = _reductions(model)
    size = tf.cast(batch_size, tf.float32)
    if reductions <= set(MEANS):
        factor = size
    elif reductions <= set(SUMS):
        factor = tf.ones(())
    elif reductions == {"mean_with_sample_weight"} and not keras.tree.is_nested(sample_weight):
        factor = size if sample_weight is None else tf.reduce_sum(tf.cast(sample_weight, "float32"))
    else:
        raise ValueError(
            "Scores need one reduction for all losses: expected all of 'sum_over_batch_size', all "
            f"of 'sum', or one 'mean_with_sample_weight'; received {sorted(map(str, reductions))}."
        )
    return over_replicas(factor) / model.optimizer.scale_loss(1.0)


def over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Undoes the division by the number of replicas that a Keras loss carries under a strategy."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return value * replicas if replicas > 1 else value


def _reductions(model: keras.Model) -> set[str | None]:
    """Reductions of the compiled losses; names and plain functions become a mean over the batch."""
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    return {getattr(loss, "reduction", "sum_over_batch_size") for loss in losses}

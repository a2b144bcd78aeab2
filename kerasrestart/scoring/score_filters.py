"""Scores of a network as it stands, without training it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.scoring import criteria
from kerasrestart.scoring.criteria import Criterion, Saliency
from kerasrestart.scoring.reduction import costs_per_loss
from kerasrestart.scoring.replicas import split_batches
from kerasrestart.scoring.scorer import Scorer


def score_filters(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    criterion: str | Criterion | Saliency = "taylor",
    batch_size: int = 128,
    seed: int = 0,
    layers: str | Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Scores every filter of a model over a set of examples, in inference mode.

    Weights, batch norm statistics and optimizer stay as they are. The cost is the compiled loss.

    Args:
        model: A built Functional or Sequential model, compiled if the criterion needs gradients.
        x: Inputs: arrays, or a `tf.data.Dataset` of batches `(x, y)` or `(x, y, sample_weight)`.
            Not looked at where the criterion needs no examples. Defaults to None.
        y: Targets, where `x` is arrays. Not needed where the criterion needs no gradients.
        sample_weight: Weights of the examples, where `x` is arrays. Defaults to None.
        criterion: A name or a function, see `kerasrestart.scoring.criteria.get`. Defaults to
            `"taylor"`.
        batch_size: Examples in a batch, where `x` is arrays. Does not change the result but for
            rounding, save that of `"taylor_weight"`, which is a mean over batches. Defaults to 128.
        seed: Seed of the criterion `"random"`. Defaults to 0.
        layers: Which layers are scored: their names, or a regular expression that a whole name
            matches. Defaults to None: all convolutions.

    Returns:
        By layer name, float32 `[filters]`: the mean over the examples of the saliency of a filter,
        in units of the loss with the criterion `"taylor"`.

    Raises:
        ValueError: The model is not compiled, has no filters, there is no example, `criterion` is
            not known, or `y` or `sample_weight` stand beside a data set, which holds its own.
        TypeError: The model has no graph.
    """
    criterion = criteria.get(criterion)
    uncompiled = not model.compiled or model.loss is None or model.optimizer is None
    if criterion.needs_gradient and uncompiled:
        raise ValueError(
            f"Model '{model.name}' has no loss or no optimizer: call compile with both before."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")
    scorer = Scorer(model, criterion, seed=seed, layers=layers)
    if not criterion.needs_step:
        return scorer.result()
    if x is None:
        raise ValueError(f"Criterion '{criterion.name}' needs examples to score by: x is None.")

    @tf.function(reduce_retracing=True)
    def score_batch(x: Any, y: Any, sample_weight: Any) -> None:
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        if not criterion.needs_gradient:
            with scorer.record() as maps:
                model(x, training=False)
            scorer.add(maps, batch_size=size)
            return
        with tf.GradientTape() as tape, scorer.record() as maps:
            y_pred = model(x, training=False)
            loss = model.compute_loss(x, y, y_pred, sample_weight, training=False)
            loss = model.optimizer.scale_loss(loss)
        factor = costs_per_loss(model, size, sample_weight)
        scorer.gradients(tape, loss, (), maps, batch_size=size, costs_per_loss=factor)

    if not isinstance(x, tf.data.Dataset):
        # As tuples: tf.data would stack a list of inputs into one.
        arrays: tuple[Any, ...] = (x, y) if sample_weight is None else (x, y, sample_weight)
        if y is None and not criterion.needs_gradient:
            arrays = (x,)
        slices = tf.data.Dataset.from_tensor_slices(keras.tree.lists_to_tuples(arrays))
        x = slices.batch(batch_size)
    elif y is not None or sample_weight is not None:
        raise ValueError(
            "y and sample_weight go with arrays: a data set holds its own. Received both."
        )
    strategy = model.distribute_strategy
    for batch in split_batches(x, strategy):
        strategy.run(score_batch, keras.utils.unpack_x_y_sample_weight(batch))
    if not scorer.examples:
        raise ValueError("There is no example to score filters by: x is empty.")
    return scorer.result()

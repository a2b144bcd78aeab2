"""Scores of a network without training it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check_whole
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.own_training import has_own_loss
from kerasrestart.network.text import listed_reasons
from kerasrestart.network.traced_graph import check_model
from kerasrestart.scoring import criteria
from kerasrestart.scoring.batches import (
    as_batches,
    batch_runner,
    call_in_inference,
    has_targets,
    metrics_kept,
)
from kerasrestart.scoring.criteria import Criterion, Saliency
from kerasrestart.scoring.loss_scale import LossScale
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_step import batch_size_of


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

    Weights, batch norm statistics, metrics and optimizer stay as they are. The cost is the compiled
    loss, with what layers add to it. Layers that no gradient of it reaches, or that the model calls
    in training only, have no score: a warning names them.

    Example:
    ```python
    scores = kerasrestart.score_filters(model, x, y)
    ```

    Args:
        model: A model with a `call`, compiled if the criterion needs gradients. One that is not
            built is built by the first batch.
        x: Inputs: arrays, or batches `(x, y)` or `(x, y, sample_weight)` as a `tf.data.Dataset` or
            a `keras.utils.PyDataset`. Not looked at where the criterion needs no examples. Defaults
            to None.
        y: Targets, where `x` is arrays. Not needed where the criterion needs no gradients.
        sample_weight: Weights of the examples, where `x` is arrays. Defaults to None.
        criterion: A name or a function, see `kerasrestart.scoring.criteria.get`. Defaults to
            `"taylor"`.
        batch_size: Examples in a batch, where `x` is arrays. Changes the result by rounding
            only, except that of `"taylor_weight"`, which is a mean over batches. Defaults to 128.
        seed: Seed of the criterion `"random"`, 0 or more. Defaults to 0.
        layers: Which layers are scored: their names, or a regular expression that a whole name
            matches. Defaults to None: all convolutions.

    Returns:
        By layer name, float32 `[filters]`: the mean over the examples of the saliency of a filter,
        in units of the loss with the criterion `"taylor"`.

    Raises:
        ValueError: The model is not compiled, has no filters, there is no example, the criterion
            needs targets and there are none, `criterion` is not known, or `y` or `sample_weight`
            are given beside a data set, which holds its own; or no layer can be scored.
        TypeError: `model` is not a Keras model; or `x` is neither arrays nor a data set.
    """
    check_model(model)
    criterion = criteria.get(criterion)
    if criterion.needs_gradient and (not model.compiled or model.optimizer is None):
        raise ValueError(
            f"Model '{model.name}' has no loss or no optimizer: call compile with both before."
        )
    check_whole("seed", seed, 0)
    if not criterion.needs_step:
        return Scorer(model, criterion, seed=seed, layers=layers).result()
    if x is None:
        raise ValueError(
            f"Criterion '{criterion.name}' needs examples: x must be given. Received: x=None"
        )
    batches = as_batches(x, y, sample_weight, size=batch_size)
    if criterion.needs_gradient and model.loss is not None and not has_targets(batches):
        raise ValueError(
            f"Criterion '{criterion.name}' needs targets, for it looks at the loss: y must be "
            "given, or x a data set of batches (x, y). Received: y=None"
        )
    found = find_filter_layers(model, layers, data=batches.element_spec, training=False)
    scorer = Scorer(model, criterion, seed=seed, found=found)
    loss_scale = LossScale(model) if criterion.needs_gradient else None

    def score_batch(x: Any, y: Any, sample_weight: Any) -> None:
        size = batch_size_of(x)
        if loss_scale is None:
            with scorer.record() as record:
                call_in_inference(model, x)
            scorer.add(record, batch_size=size)
            return
        with tf.GradientTape() as tape, scorer.record() as record:
            y_pred = call_in_inference(model, x)
            if model.loss is None and not model.losses and not has_own_loss(model):
                raise ValueError(
                    f"Model '{model.name}' has no loss: pass one to compile, or call add_loss in "
                    "its layers."
                )
            loss = loss_scale.scaled_loss(x, y, y_pred, sample_weight)
        factor = loss_scale.to_example_scale(size, sample_weight)
        scorer.gradients(tape, loss, (), record, batch_size=size, loss_to_example_scale=factor)

    run = batch_runner(model, score_batch, batches)

    def all_examples() -> bool:
        scorer.reset()
        run()
        return scorer.is_finite

    with metrics_kept(model):
        if loss_scale is None:
            run()
        else:
            loss_scale.run(all_examples)
    if not scorer.examples:
        raise ValueError("There is no example to score filters by: x is empty.")
    scores = scorer.result()
    if left_out := found.unreached | scorer.left_out:
        warnings.warn(
            f"Layers without a score in inference mode: {listed_reasons(left_out)}.", stacklevel=2
        )
    return scores

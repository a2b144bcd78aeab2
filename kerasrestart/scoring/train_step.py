"""The training step that scores filters in the backward pass that training makes anyway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.scoring.feature_maps import FeatureMaps
from kerasrestart.scoring.reduction import loss_to_example_scale, replica_loss_weight
from kerasrestart.scoring.replicas import over_replicas
from kerasrestart.scoring.scorer import Scorer


def scored_train_step(model: keras.Model, scorer: Scorer | None, data: Any) -> dict[str, Any]:
    """One step of training that does all that `keras.Model.train_step` does, and scores.

    The weights come out as they do without scoring: the gradients by feature maps are taken by the
    same tape in the same pass, and nothing else is changed. But where a strategy has several
    replicas, the loss is that of the whole batch, see `replica_loss_weight`, so that weights and scores
    come out as on one device, also where the replicas' parts of a batch are not equal.

    Args:
        model: A compiled model.
        scorer: A scorer of this model; the batch is added to it. None: it is not scored.
        data: A batch: `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        The logs of the step: metric names to scalar tensors.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    batch_size = tf.shape(next(i for i in keras.tree.flatten(x) if i is not None))[0]
    recording = contextlib.nullcontext() if scorer is None else scorer.record()
    with tf.GradientTape() as tape, recording as maps:
        y_pred = model(x, training=True) if model._call_has_training_arg else model(x)
        loss = model._compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )
        model._loss_tracker.update_state(over_replicas(loss), sample_weight=batch_size)
        share = replica_loss_weight(model, batch_size, sample_weight)
        loss = model.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
    weights = model.trainable_weights
    if scorer is None:
        gradients = tape.gradient(loss, weights)
    else:
        factor = _costs_per_loss(model, scorer, batch_size, sample_weight)
        gradients = scorer.gradients(
            tape,
            loss,
            weights,
            maps,
            batch_size=batch_size,
            loss_to_example_scale=None if factor is None else tf.math.divide_no_nan(factor, share),
            skip_if_not_finite=_scales_loss(model.optimizer),
        )
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


class RestartModel(keras.Model):
    """A `keras.Model` whose training step scores filters while a scorer is attached.

    `PartialRestart` attaches one for the length of `fit`; without one this trains as `keras.Model`
    does. Plain Functional and Sequential models need no such class, the callback brings the step to
    them. It is for those who write their own training step, and is built from inputs and outputs
    as a Functional model is:

    ```python
    class MyModel(kerasrestart.RestartModel):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape, self.record_feature_maps() as maps:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred)
                scaled_loss = self.optimizer.scale_loss(loss)
            gradients = self.scored_gradients(tape, scaled_loss, maps, batch_size=tf.shape(x)[0])
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
            return self.compute_metrics(x, y, y_pred)


    model = MyModel(inputs, outputs)
    ```

    Attributes:
        scorer: The attached `Scorer`, or None.
    """

    scorer: Scorer | None = None

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of training; scores where a scorer is attached."""
        if self.scorer is None:
            return super().train_step(data)
        return scored_train_step(self, self.scorer, data)

    @contextlib.contextmanager
    def record_feature_maps(self) -> Iterator[FeatureMaps]:
        """Records the feature maps of the one forward pass made inside, if a scorer is attached."""
        if self.scorer is None:
            yield FeatureMaps()
        else:
            with self.scorer.record() as maps:
                yield maps

    def scored_gradients(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        maps: FeatureMaps,
        *,
        batch_size: int | tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor | None]:
        """Gradients of the loss by the trainable weights; scores if a scorer is attached.

        Args:
            tape: The tape that watched the forward pass.
            loss: Scalar loss after `self.optimizer.scale_loss`: with the reduction of the compiled
                loss, or a mean over the batch where none is compiled.
            maps: What `record_feature_maps` yielded around the forward pass, after that has ended.
            batch_size: Number of examples in the batch.
            sample_weight: Their weights, if the loss has them. Defaults to None.

        Returns:
            The gradients, in the order of `self.trainable_weights`.
        """
        if self.scorer is None:
            return tape.gradient(loss, self.trainable_weights)
        return self.scorer.gradients(
            tape,
            loss,
            self.trainable_weights,
            maps,
            batch_size=batch_size,
            loss_to_example_scale=_costs_per_loss(self, self.scorer, batch_size, sample_weight),
            skip_if_not_finite=_scales_loss(self.optimizer),
        )


def _costs_per_loss(
    model: keras.Model, scorer: Scorer, batch_size: int | tf.Tensor, sample_weight: Any
) -> tf.Tensor | None:
    """As `loss_to_example_scale`; None for a criterion to which the loss is nothing, whatever it is."""
    if not scorer.criterion.needs_gradient:
        return None
    return loss_to_example_scale(model, batch_size, sample_weight)


def _scales_loss(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

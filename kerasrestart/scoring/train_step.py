"""Scores filters in the backward passes that a training step makes anyway."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.compiled_functions import compiled_like, inlined
from kerasrestart.network.keras_internals import compute_loss, record_loss, takes_training
from kerasrestart.network.optimizers import known_optimizers, note_used
from kerasrestart.network.own_training import has_own_step, stands_for
from kerasrestart.network.tensorflow_internals import converted_as_here
from kerasrestart.scoring import replicas
from kerasrestart.scoring.reduction import loss_to_example_scale, replica_loss_weight
from kerasrestart.scoring.scorer import Scorer

Step = Callable[[Any], Any]


def step_in_place(model: keras.Model, scorers: Sequence[Scorer]) -> Step:
    """A step to put in place of `model.train_step`, which scores each batch.

    Where the model's step is a `tf.function`, so is this one, with the same options: the scores are
    taken inside it.

    Args:
        model: A compiled model.
        scorers: Scorers of this model; may be none.
    """
    own = model.train_step

    def own_step(data: Any) -> Any:
        return converted_as_here(inlined(own))(data)

    step: Step = own_step
    if model.distribute_strategy.num_replicas_in_sync > 1 and not has_own_step(model):
        # Weights come out the same whether or not a batch is scored.
        step = functools.partial(replicated_step, model)
    for scorer in scorers:
        step = functools.partial(scored_step, model, scorer, step)

    def run(data: Any) -> Any:
        return step(data)

    return stands_for(compiled_like(own, run), model)


def scored_step(model: keras.Model, scorer: Scorer, step: Step, data: Any) -> Any:
    """Runs a training step unchanged, and scores the batch.

    The step may make any number of forward and backward passes. Where it is Keras's own, scores are
    in the units of the cost of one example, whatever the reduction of the losses; so they are where
    a step takes its gradients by `RestartModel.scored_gradients`. For any other step the loss is
    taken as a mean over the batch: if it is not, all scores are off by one common factor.

    Args:
        model: A compiled model.
        scorer: A scorer of this model; the batch is added to it.
        step: The training step, or one that already scores for another scorer.
        data: A batch.

    Returns:
        What the step returns.
    """
    units = _Units(model, scorer, data)
    record = scorer.new_record()
    with _active(units), record.listening(hears_updates=True):
        logs = step(data)
    if has_own_step(model):  # Keras's own uses the compiled one
        note_used(model, record.optimizers)
    scorer.add_record(
        record,
        batch_size=units.batch_size,
        loss_to_example_scale=units.factor,
        skip_if_not_finite=any(map(_scales_loss, known_optimizers(model))),
    )
    return logs


def replicated_step(model: keras.Model, data: Any) -> dict[str, Any]:
    """Keras's own training step, for several replicas with parts of a batch that may differ.

    Keras takes the mean over replicas of their means. Here the loss is that of the whole batch, see
    `replica_loss_weight`, so that weights come out as on one device.

    Args:
        model: A compiled model.
        data: A replica's part of a batch: `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        The logs of the step: metric names to scalar tensors.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    batch_size = batch_size_of(x)
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True) if takes_training(model) else model(x)
        loss = compute_loss(model, x, y, y_pred, sample_weight, training=True)
        record_loss(model, replicas.over_replicas(loss), batch_size)
        weight = replica_loss_weight(model, batch_size, sample_weight)
        loss = model.optimizer.scale_loss(loss * tf.cast(weight, loss.dtype))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, weights)
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


class RestartModel(keras.Model):
    """A `keras.Model` for those who write their own training step and want exact units.

    `PartialRestart` scores any training step, up to one factor for the whole model where it does
    not know how the loss depends on the batch. A step that takes its gradients by
    `scored_gradients` says so, and its scores are in the units of the cost of one example. The
    model is built from inputs and outputs as a Functional model is, or has a `call`:

    ```python
    class MyModel(kerasrestart.RestartModel):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred)
                scaled_loss = self.optimizer.scale_loss(loss)
            gradients = self.scored_gradients(tape, scaled_loss, batch_size=tf.shape(x)[0])
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
            return self.compute_metrics(x, y, y_pred)


    model = MyModel(model.inputs, model.outputs)
    ```
    """

    def scored_gradients(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        *,
        batch_size: int | tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> list[tf.Tensor | None]:
        """Gradients of the loss by the trainable weights; says in what units its scores are.

        Args:
            tape: The tape that watched the forward pass.
            loss: Scalar loss after `self.optimizer.scale_loss`: with the reduction of the compiled
                loss, or a mean over the batch where none is compiled.
            batch_size: Number of examples in the batch.
            sample_weight: Their weights, if the loss has them. Defaults to None.

        Returns:
            The gradients, in the order of `self.trainable_weights`.
        """
        for units in _active_units():
            units.set(batch_size, sample_weight)
        return tape.gradient(loss, self.trainable_weights)


def batch_size_of(x: Any) -> tf.Tensor:
    """The number of examples of a batch, int32: the length of its first array, or 1."""
    # A step outside fit may also take a model, an epoch or an iterator.
    leaves = (leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape"))
    arrays = (leaf for leaf in leaves if tf.TensorShape(leaf.shape).rank != 0)
    first = next(arrays, None)
    return tf.ones((), tf.int32) if first is None else tf.shape(first)[0]


class _Units:
    """What turns gradients of the loss that a step differentiates into those of one example."""

    def __init__(self, model: keras.Model, scorer: Scorer, data: Any):
        self._model = model
        self._by_gradient = scorer.criterion.needs_gradient
        # Read before the step, which may change it.
        self._loss_scale = 1.0
        if self._by_gradient and isinstance(model.optimizer, keras.optimizers.Optimizer):
            self._loss_scale = model.optimizer.scale_loss(1.0)
        self.factor: tf.Tensor | None = None
        if not has_own_step(model):
            x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            self.set(batch_size_of(x), sample_weight)
            if self.factor is not None:
                self.factor = _replica_factor(model, self.factor, self.batch_size, sample_weight)
        else:
            self.batch_size = batch_size_of(data)
            if self._by_gradient:
                size = tf.cast(self.batch_size, tf.float32)
                self.factor = replicas.over_replicas(size) / self._loss_scale

    def set(self, batch_size: int | tf.Tensor, sample_weight: Any) -> None:
        """Takes the losses of the step to be those that the model was compiled with."""
        self.batch_size = batch_size
        if self._by_gradient:
            scale = loss_to_example_scale(self._model, batch_size, sample_weight)
            self.factor = scale / self._loss_scale


def _replica_factor(
    model: keras.Model, factor: tf.Tensor, batch_size: int | tf.Tensor, sample_weight: Any
) -> tf.Tensor:
    """A factor for gradients of a loss that is weighed as `replicated_step` weighs it."""
    if replicas.count() == 1:
        return factor
    return tf.math.divide_no_nan(factor, replica_loss_weight(model, batch_size, sample_weight))


_running = threading.local()


def _active_units() -> tuple[_Units, ...]:
    """Those of the step that runs in this thread, one for each scorer."""
    return getattr(_running, "units", ())


@contextlib.contextmanager
def _active(units: _Units) -> Iterator[None]:
    before = _active_units()
    _running.units = (*before, units)
    try:
        yield
    finally:
        _running.units = before


def _scales_loss(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

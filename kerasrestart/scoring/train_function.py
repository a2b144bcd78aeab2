"""Puts the scored step under `fit`, and chooses which of its batches are scored."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_step import RestartModel, scored_train_step


class ScoringFunction:
    """A model's `train_function` that scores every n-th batch of an epoch, from the first.

    It chooses between two functions of Keras's own making, one of the scored step and one of the
    plain. Each is traced when it first runs. The choice is made outside of the graph, so that a
    batch that is not scored costs what it costs without a scorer. With `steps_per_execution` the
    batches that Keras runs as one are scored as one: every n-th group.

    Args:
        model: A compiled model, as `attach` takes it.
        scorer: A scorer of this model.
        plain: Trains on a batch that an iterator gives, without scores.
        scored: Does the same, with scores.
        every: n. Defaults to 1: every batch is scored.

    Attributes:
        batches: How many batches of this epoch were trained on, or groups that run as one.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        plain: Callable[[Any], Any],
        scored: Callable[[Any], Any],
        every: int = 1,
    ):
        self._model = model
        self._scorer = scorer
        self._plain = plain
        self._scored = scored
        self._every = every
        self._scores = True
        self.batches = 0

    def begin_epoch(self, scores: bool = True) -> None:
        """Counts batches from the first again.

        Args:
            scores: Whether any batch of this epoch is scored. Defaults to True.
        """
        self.batches, self._scores = 0, scores

    def __call__(self, iterator: Any) -> Any:
        """Trains on the next batch; returns its logs."""
        score = self._scores and self.batches % self._every == 0
        if isinstance(self._model, RestartModel):
            # Its step looks for the scorer when it is traced, or runs eagerly.
            self._model.scorer = self._scorer if score else None
        try:
            logs = (self._scored if score else self._plain)(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # the end of the data
        except BaseException:
            detach(self._model)  # Keras calls no on_train_end after an error, or Ctrl-C
            raise
        finally:
            if isinstance(self._model, RestartModel):
                self._model.scorer = None
        self.batches += 1
        return logs


def attach(model: keras.Model, scorer: Scorer, every: int = 1) -> ScoringFunction:
    """Makes `fit` train with the scored step, from the next batch on, until `detach`.

    Args:
        model: A compiled model whose training step is `keras.Model`'s own or a `RestartModel`'s.
        scorer: A scorer of this model.
        every: See `ScoringFunction`. Defaults to 1.

    Returns:
        What is now the model's `train_function`.

    Raises:
        TypeError: The model's class has a training step of its own, or the instance has.
    """
    detach(model)
    is_own = isinstance(model, RestartModel)
    if not is_own and not trains_as_keras(model):
        raise TypeError(
            f"{type(model).__name__} has a train_step of its own, which scores no filters. "
            "Derive the class from kerasrestart.RestartModel instead of keras.Model, and take "
            "the gradients by its scored_gradients method."
        )
    # fit makes its function before it calls on_train_begin, and a function keeps the step that it
    # was made of: so the model need not keep it.
    if is_own:
        plain, scored = _train_function(model), _train_function(model)
    else:
        several = model.distribute_strategy.num_replicas_in_sync > 1
        # Weights are to come out the same whether or not a batch is scored.
        unscored = functools.partial(scored_train_step, model, None) if several else None
        plain = _train_function(model, unscored)
        scored = _train_function(model, functools.partial(scored_train_step, model, scorer))
    model.train_function = ScoringFunction(model, scorer, plain, scored, every)
    return model.train_function


def trains_as_keras(model: keras.Model) -> bool:
    """Whether a model has no training step of its own, but Keras's."""
    return vars(model).get("train_step", type(model).train_step) is keras.Model.train_step


def detach(model: keras.Model) -> None:
    """Lets the model train by its own step again; does nothing where none was attached."""
    if isinstance(model.train_function, ScoringFunction):
        model.train_function = None


def _train_function(
    model: keras.Model, step: Callable[[Any], Any] | None = None
) -> Callable[[Any], Any]:
    """What Keras makes of a training step; None: of the model's own."""
    if step is not None:
        model.train_step = step
    try:
        model.make_train_function(force=True)
    finally:
        if step is not None:
            del model.train_step
    return model.train_function

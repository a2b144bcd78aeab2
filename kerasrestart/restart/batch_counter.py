"""Counts the batches of an epoch, also where several run as one."""

from __future__ import annotations

import keras


class BatchCounter:
    """How many batches of an epoch a model was trained on.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._counted = 0  # batches of this epoch
        self._steps_before = 0  # steps of the optimizer before it

    def begin_epoch(self) -> None:
        """Counts from zero; the optimizer is built by now, if it ever is."""
        self._counted, self._steps_before = 0, self._optimizer_steps()

    def new_batches(self, groups: int, of_epoch: int | None) -> int:
        """How many batches came since the last call, or since the epoch began.

        Args:
            groups: How many times the train function ran in this epoch: once for each
                `steps_per_execution` batches.
            of_epoch: How many batches an epoch has, where that is known: the last group may have
                fewer than the others.
        """
        size = self._model.steps_per_execution
        batches = groups * size
        if of_epoch is not None:
            batches = min(batches, of_epoch)
        elif size > 1:
            # Keras does not say how many were left for the last group. The optimizer does, where it
            # makes a step for each batch.
            steps = self._optimizer_steps() - self._steps_before
            batches = steps if batches - size < steps < batches else batches
        new, self._counted = batches - self._counted, batches
        return new

    def _optimizer_steps(self) -> int:
        optimizer = self._model.optimizer
        return 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations))

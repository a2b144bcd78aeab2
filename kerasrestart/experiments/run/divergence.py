"""A loss or weight that is not finite: detected at once, and undone where asked to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.experiments.run.state_folder import SavedState
from kerasrestart.restart.records import RestartEvent

MAX_ROLLBACKS = 3
"""Largest number of rollbacks of a run; the next divergence stops it."""


class DivergedError(ArithmeticError):
    """The loss or a weight is infinite or not a number.

    Attributes:
        epoch: The epoch, counted from 0.
        batch: The batch in it, counted from 0.
    """

    def __init__(self, message: str, epoch: int, batch: int):
        super().__init__(message)
        self.epoch, self.batch = epoch, batch


class DivergenceCheck(keras.callbacks.Callback):
    """Raises `DivergedError` at the first loss or weight that is not finite.

    The training loss is checked after each batch, validation losses and weights after each epoch: a
    ReLU can hide a NaN weight from the loss.

    `keras.callbacks.TerminateOnNaN` ends the training as if it were over: the last epoch, with
    weights that are not finite, would be saved over the good ones.
    """

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch."""
        self._epoch, self._batch = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        """Checks the loss."""
        self._batch = batch
        self._check({"loss": (logs or {}).get("loss", 0.0)})

    def on_epoch_end(self, epoch, logs=None):
        """Checks all losses and weights, so that no diverged state is saved."""
        self._check({name: value for name, value in (logs or {}).items() if "loss" in name})
        if layers := layers_not_finite(self.model):
            raise DivergedError(
                f"Weights of {', '.join(layers)} are not finite at the end of epoch {epoch + 1}",
                self._epoch,
                self._batch,
            )

    def _check(self, losses: Mapping[str, Any]) -> None:
        for name, value in losses.items():
            if math.isfinite(float(value)):
                continue
            layers = layers_not_finite(self.model)
            where = f"weights of {', '.join(layers)} are not" if layers else "all weights are still"
            raise DivergedError(
                f"The {name} is {float(value)} in epoch {self._epoch + 1}, batch "
                f"{self._batch + 1}; {where} finite",
                self._epoch,
                self._batch,
            )


def layers_not_finite(model: keras.Model) -> list[str]:
    """The layers with a weight that is infinite or not a number, in the order of the model."""
    own = {id(weight): layer.name for layer in model.layers for weight in layer.weights}
    found = (
        own.get(id(weight), weight.path)
        for weight in model.weights
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()
    )
    return list(dict.fromkeys(found))


def divergence_context(events: Sequence[RestartEvent], state: SavedState) -> str:
    """Describes the last restart before a divergence and the largest weight then.

    Args:
        events: The restarts so far.
        state: The last good state.

    Returns:
        One sentence.
    """
    weights = [
        (float(np.abs(array.astype("float64")).max()), path)
        for array, path in zip(state.variables, state.content["variables"], strict=True)
        if array.size and path.endswith(("kernel", "bias", "gamma", "beta"))
    ]
    restart = "no restart"
    if events:
        last = events[-1]
        filters = ", ".join(f"{name} {layer.filters}" for name, layer in last.layers.items())
        restart = f"restart {last.restart} at the end of epoch {last.epoch + 1}"
        restart += f", of {filters}" if filters else ", of no filter"
    if not weights:  # layers of your own can name them otherwise
        return f"Before it came {restart}"
    largest, where = max(weights)
    return f"Before it came {restart}; the largest weight was {largest:.3g}, in {where}"


def with_lower_rate(state: SavedState, factor: float) -> SavedState:
    """Returns a state with a lower learning rate, that of the rounds to come included.

    Args:
        state: The state; it is not changed.
        factor: What the learning rate is multiplied by.
    """
    variables = [
        (value * factor).astype(value.dtype) if path.endswith("/learning_rate") else value
        for value, path in zip(state.variables, state.content["variables"], strict=True)
    ]
    restart = dict(state.content["restart"])
    if restart["learning_rate"] is not None:
        restart["learning_rate"] *= factor
    content = {**state.content, "restart": restart}
    return dataclasses.replace(state, content=content, variables=variables)

"""A loss that is no number any more: seen at once, told of, and undone where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.restart.records import RestartEvent

MOST_ROLLBACKS = 3
"""How often a run is rolled back before it ends all the same."""


class DivergedError(ArithmeticError):
    """The loss is infinite or not a number.

    Attributes:
        epoch: The epoch, counted from 0.
        batch: The batch in it, counted from 0.
    """

    def __init__(self, message: str, epoch: int, batch: int):
        super().__init__(message)
        self.epoch, self.batch = epoch, batch


class DivergenceCheck(keras.callbacks.Callback):
    """Raises `DivergedError` at the first loss, of training or validation, that is not finite.

    `keras.callbacks.TerminateOnNaN` ends the training as if it were over: the last epoch, with
    weights that are no numbers, would be saved over the good ones.
    """

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss."""
        self._batch = batch
        self._look({"loss": (logs or {}).get("loss", 0.0)})

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the losses, so that no state is saved as good of which validation fails."""
        self._look({name: value for name, value in (logs or {}).items() if "loss" in name})

    def _look(self, losses: Mapping[str, Any]) -> None:
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
    return [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if not list(layer._flatten_layers(include_self=False))
        and any(not np.isfinite(weight.numpy()).all() for weight in layer.weights)
    ]


def divergence_context(
    events: Sequence[RestartEvent], arrays: Mapping[str, np.ndarray], paths: Sequence[str]
) -> str:
    """The last restart before a divergence and the largest weight then, in one sentence.

    Args:
        events: The restarts so far.
        arrays: Arrays of the last good state, and
        paths: the paths of its variables, as `RunCheckpoint` writes both.
    """
    largest, where = max(
        (float(np.abs(arrays[f"variable/{n}"].astype("float64")).max()), path)
        for n, path in enumerate(paths)
        if path.endswith(("kernel", "bias", "gamma", "beta"))
    )
    restart = "no restart"
    if events:
        last = events[-1]
        filters = ", ".join(f"{name} {layer.filters}" for name, layer in last.layers.items())
        restart = f"restart {last.restart} at the end of epoch {last.epoch + 1}"
        restart += f", of {filters}" if filters else ", of no filter"
    return f"Before it came {restart}; the largest weight was {largest:.3g}, in {where}"


def with_lower_rate(
    arrays: Mapping[str, np.ndarray], content: Mapping[str, Any], factor: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A state as it was, but for the learning rate, that of the rounds to come included.

    Args:
        arrays: Arrays of the state, and
        content: its content, as `RunCheckpoint` writes both; they are left as they are.
        factor: What the learning rate is multiplied by.
    """
    arrays, content = dict(arrays), dict(content)
    for number, path in enumerate(content["variables"]):
        if path.endswith("/learning_rate"):
            rate = arrays[f"variable/{number}"]
            arrays[f"variable/{number}"] = (rate * factor).astype(rate.dtype)
    rate = content["restart"]["learning_rate"]
    content["restart"] = {
        **content["restart"],
        "learning_rate": None if rate is None else rate * factor,
    }
    return arrays, content

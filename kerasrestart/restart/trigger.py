"""When a round of training is over: pure rules over a state that they are given."""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

from kerasrestart.restart.when import RoundProgress as TriggerState


class Action(enum.Enum):
    """What is to be done at the end of an epoch."""

    TRAIN_ON = "train on"
    LOWER_LEARNING_RATE = "lower learning rate"
    END_ROUND = "end round"


class Trigger(Protocol):
    """A rule for the end of a round."""

    def step(self, state: TriggerState, value: float) -> tuple[TriggerState, Action]:
        """Takes the state and the metric at the end of an epoch; returns state and action."""
        ...

    def min_epochs_to_end(self, state: TriggerState) -> int:
        """In how many epochs the round can end at the earliest, 1 or more."""
        ...

    def describe(self, monitor: str) -> str:
        """Why a round ended, as part of a sentence."""
        ...


@dataclasses.dataclass(frozen=True)
class PlateauTrigger:
    """Ends a round when the metric has stopped improving, and lowering the rate helps no more.

    After `patience` epochs without an improvement of more than `min_delta` the learning rate falls,
    up to `drops` times; the next such plateau is convergence.

    Args:
        higher_is_better: Whether the metric is to rise.
        patience: Epochs, 1 or more. Defaults to 5.
        min_delta: A change up to this, in the metric's unit, is no improvement. Defaults to 0.
        drops: Falls of the learning rate before a plateau ends the round. Defaults to 0.
    """

    higher_is_better: bool
    patience: int = 5
    min_delta: float = 0.0
    drops: int = 0

    def step(self, state: TriggerState, value: float) -> tuple[TriggerState, Action]:
        """See `Trigger.step`. A value that is not a number is never an improvement."""
        gain = None
        if state.best is not None:
            gain = value - state.best if self.higher_is_better else state.best - value
        improved = gain > self.min_delta if gain is not None else value == value
        state = dataclasses.replace(
            state,
            epochs=state.epochs + 1,
            best=value if improved else state.best,
            wait=0 if improved else state.wait + 1,
        )
        if state.wait < self.patience:
            return state, Action.TRAIN_ON
        if state.drops < self.drops:
            state = dataclasses.replace(state, wait=0, drops=state.drops + 1)
            return state, Action.LOWER_LEARNING_RATE
        return state, Action.END_ROUND

    def min_epochs_to_end(self, state: TriggerState) -> int:
        """See `Trigger.min_epochs_to_end`: when no epoch from now on is an improvement."""
        plateaus = self.drops - state.drops + 1
        return max(1, plateaus * self.patience - state.wait)

    def describe(self, monitor: str) -> str:
        """See `Trigger.describe`."""
        return f"{monitor} has not improved for {self.patience} epoch{'s' * (self.patience > 1)}"


@dataclasses.dataclass(frozen=True)
class EpochsTrigger:
    """Ends a round after a fixed number of epochs, so that all arms of a comparison train as long.

    Args:
        epochs: Length of a round, more than `drops`.
        drops: Falls of the learning rate, evenly spread over the round: with one, half of the
            round is trained at the high rate. Defaults to 0.
    """

    epochs: int
    drops: int = 0

    def step(self, state: TriggerState, value: float) -> tuple[TriggerState, Action]:
        """See `Trigger.step`."""
        del value
        state = dataclasses.replace(state, epochs=state.epochs + 1)
        if state.epochs >= self.epochs:
            return state, Action.END_ROUND
        if state.drops < self.drops and state.epochs >= self._drop_after(state.drops):
            return dataclasses.replace(state, drops=state.drops + 1), Action.LOWER_LEARNING_RATE
        return state, Action.TRAIN_ON

    def _drop_after(self, drops: int) -> int:
        return round(self.epochs * (drops + 1) / (self.drops + 1))

    def min_epochs_to_end(self, state: TriggerState) -> int:
        """See `Trigger.min_epochs_to_end`."""
        return max(1, self.epochs - state.epochs)

    def describe(self, monitor: str) -> str:
        """See `Trigger.describe`."""
        del monitor
        return f"the round's {self.epochs} epochs are over"


def higher_is_better(monitor: str, mode: str = "auto") -> bool:
    """Whether a metric is to rise.

    Args:
        monitor: Name of the metric as it stands in the logs.
        mode: `"min"`, `"max"`, or `"auto"` (the default): from the name, as far as it tells.

    Raises:
        ValueError: `mode` is none of these, or is `"auto"` and the name does not tell.
    """
    if mode in ("min", "max"):
        return mode == "max"
    if mode != "auto":
        raise ValueError(f"mode must be 'auto', 'min' or 'max'. Received: {mode!r}")
    name = monitor.removeprefix("val_").lower()
    if any(word in name for word in ("loss", "error", "mse", "mae", "crossentropy")):
        return False
    if any(word in name for word in ("acc", "auc", "precision", "recall", "f1", "iou")):
        return True
    raise ValueError(
        f"Whether '{monitor}' is to rise or to fall cannot be told from its name: "
        "pass mode='max' or mode='min'."
    )

"""When a round of training ends: rules that take a state and return the next, and keep none.

Readable without TensorFlow. To write your own, derive a class from `When`.
"""

from __future__ import annotations

import dataclasses
import enum

from kerasrestart.network.arguments import check, check_choice, check_share, check_whole, is_number
from kerasrestart.network.own_functions import check_function, naming
from kerasrestart.network.text import did_you_mean, shown

MODES = ("auto", "min", "max")
_COMMON_METRICS = [
    prefix + name
    for name in ("loss", "accuracy", "auc", "precision", "recall", "mean_absolute_error")
    for prefix in ("", "val_")
]


class Action(enum.Enum):
    """What follows from the end of an epoch; see `When.step`.

    Example:
    ```python
    when = kerasrestart.EveryEpochs(1)
    progress, action = when.step(kerasrestart.RoundProgress(), 0.5)
    assert action is kerasrestart.Action.END_ROUND
    ```

    Attributes:
        TRAIN: The round continues.
        LOWER_LEARNING_RATE: The round continues, and the next epoch begins with a lower learning
            rate.
        END_ROUND: The round is over.
    """

    TRAIN = "train"
    LOWER_LEARNING_RATE = "lower learning rate"
    END_ROUND = "end round"


@dataclasses.dataclass(frozen=True)
class RoundProgress:
    """How far a round has come; a round begins with `RoundProgress()`.

    Example:
    ```python
    when = kerasrestart.OnPlateau(patience=5)
    progress, action = when.step(kerasrestart.RoundProgress(), 0.5)
    progress  # RoundProgress(epochs=1, best=0.5, wait=0, drops=0)
    ```

    Attributes:
        epochs: Epochs of this round.
        best: Best value of the monitored metric in this round, where the rule needs it; None before
            the first epoch.
        wait: Epochs since the last improvement or the last drop of the learning rate.
        drops: How many times the learning rate was lowered in this round.
    """

    epochs: int = 0
    best: float | None = None
    wait: int = 0
    drops: int = 0


class When:
    """What `PartialRestart(when=)` takes: the end of a round, and what belongs to it.

    A class derived from this one defines `step`, and may set any attribute.

    Example:
    ```python
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class BelowLoss(kerasrestart.When):
        loss: float
        monitor: str = "loss"

        def step(self, progress, value):
            progress = dataclasses.replace(progress, epochs=progress.epochs + 1)
            ends = value < self.loss
            return progress, kerasrestart.Action.END_ROUND if ends else kerasrestart.Action.TRAIN

        def describe(self):
            return f"{self.monitor} is below {self.loss:g}"

    restart = kerasrestart.PartialRestart(when=BelowLoss(0.5))
    ```

    Attributes:
        monitor: Metric that `step` gets and by which the best epoch of a round is chosen, as it is
            named in the logs of every epoch. A validation metric needs `fit` with
            `validation_freq=1`. Defaults to `"val_loss"`.
        mode: `"min"`, `"max"` or `"auto"`: whether lower or higher is better. Defaults to `"auto"`:
            from the metric's name.
        learning_rate_drops: How many times a round lowers the learning rate. Defaults to 0.
        learning_rate_factor: What the learning rate is multiplied by each time, between 0 and 1.
            Defaults to 0.1.
        target: Value of the metric at which training ends. Defaults to None.
        recovery_epochs: A restart is left out where fewer epochs than this remain in `fit`. 0
            for a loop of `fit` calls, each of which continues the last. Defaults to
            None: the length of a round or the patience.
        stop_when_done: Whether training ends with the round that follows the last restart. Defaults
            to True.
    """

    monitor: str = "val_loss"
    mode: str = "auto"
    learning_rate_drops: int = 0
    learning_rate_factor: float = 0.1
    target: float | None = None
    recovery_epochs: int | None = None
    stop_when_done: bool = True

    def step(self, progress: RoundProgress, value: float) -> tuple[RoundProgress, Action]:
        """Follows one epoch.

        Args:
            progress: How far the round had come before this epoch.
            value: The metric of this epoch.

        Returns:
            How far the round has come, and what follows. After `Action.END_ROUND` a new round
            begins with `RoundProgress()`, unless there are no more restarts.
        """
        raise NotImplementedError

    def min_epochs_to_end(self, progress: RoundProgress) -> int:
        """In how many epochs the round can end at the earliest, 1 or more."""
        return 1

    def describe(self) -> str:
        """Why a round ended, as part of a sentence."""
        return f"{type(self).__name__} has ended the round"

    @property
    def min_epochs_after_restart(self) -> int:
        """How many epochs follow a restart at least."""
        return 1 if self.recovery_epochs is None else self.recovery_epochs

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of the metric is better."""
        return higher_is_better(self.monitor, self.mode)

    def check(self) -> None:
        """Checks the attributes; ValueError."""
        check("monitor", self.monitor, isinstance(self.monitor, str), "the name of a metric")
        check_choice("mode", self.mode, MODES)
        higher_is_better(self.monitor, self.mode)
        check_whole("learning_rate_drops", self.learning_rate_drops, 0)
        check_share("learning_rate_factor", self.learning_rate_factor)
        if self.target is not None:
            check("target", self.target, is_number(self.target), "a finite number")
        if self.recovery_epochs is not None:
            check_whole("recovery_epochs", self.recovery_epochs, 0)

    def reaches_target(self, value: float) -> bool:
        """Whether a value of the metric is as good as `target`."""
        if self.target is None:
            return False
        return value >= self.target if self.higher_is_better else value <= self.target


@dataclasses.dataclass(frozen=True)
class OnPlateau(When):
    """Ends a round when the metric has stopped improving.

    After `patience` epochs without an improvement of more than `min_delta` the learning rate is
    lowered, up to `learning_rate_drops` times; the next such plateau ends the round.

    Example:
    ```python
    when = kerasrestart.OnPlateau("val_accuracy", patience=3, learning_rate_drops=1)
    restart = kerasrestart.PartialRestart(when=when)
    ```

    Args:
        monitor: Metric to monitor, as it is named in the logs. Defaults to `"val_loss"`.
        patience: Epochs without improvement that make a plateau, 1 or more. Defaults to 5.
        min_delta: An improvement is a larger change of the metric than this, 0 or more. Defaults to
            0.
        mode: `"min"`, `"max"` or `"auto"`: whether lower or higher is better. Defaults to `"auto"`:
            from the metric's name.
        learning_rate_drops: How many plateaus of a round lower the learning rate. Defaults to 0.
        learning_rate_factor: Factor on the learning rate at each drop, between 0 and 1. Defaults to
            0.1.
        target: Value of the metric at which training ends. Defaults to None.
        recovery_epochs: A restart is left out where fewer epochs than this remain in `fit`. 0
            for a loop of `fit` calls, each of which continues the last. Defaults to
            None: `patience`.
        stop_when_done: Whether training ends with the round after the last restart. Defaults to
            True.

    Raises:
        ValueError: An argument is out of range, or `mode` is `"auto"` and the metric's name does
            not say whether lower or higher is better.
    """

    monitor: str = "val_loss"
    patience: int = 5
    min_delta: float = 0.0
    mode: str = "auto"
    learning_rate_drops: int = 0
    learning_rate_factor: float = 0.1
    target: float | None = None
    recovery_epochs: int | None = None
    stop_when_done: bool = True

    def __post_init__(self):
        self.check()
        check_whole("patience", self.patience, 1)
        right = is_number(self.min_delta) and self.min_delta >= 0
        check("min_delta", self.min_delta, right, "a finite number, 0 or more")

    def step(self, progress: RoundProgress, value: float) -> tuple[RoundProgress, Action]:
        """See `When.step`. A value that is not a number is never an improvement."""
        gain = None
        if progress.best is not None:
            gain = value - progress.best if self.higher_is_better else progress.best - value
        improved = gain > self.min_delta if gain is not None else value == value
        progress = dataclasses.replace(
            progress,
            epochs=progress.epochs + 1,
            best=value if improved else progress.best,
            wait=0 if improved else progress.wait + 1,
        )
        if progress.wait < self.patience:
            return progress, Action.TRAIN
        if progress.drops < self.learning_rate_drops:
            progress = dataclasses.replace(progress, wait=0, drops=progress.drops + 1)
            return progress, Action.LOWER_LEARNING_RATE
        return progress, Action.END_ROUND

    def min_epochs_to_end(self, progress: RoundProgress) -> int:
        """See `When.min_epochs_to_end`: where no epoch from now on is an improvement."""
        plateaus = self.learning_rate_drops - progress.drops + 1
        return max(1, plateaus * self.patience - progress.wait)

    def describe(self) -> str:
        """See `When.describe`."""
        epochs = f"{self.patience} epoch{'s' * (self.patience > 1)}"
        return f"{self.monitor} has not improved for {epochs}"

    @property
    def min_epochs_after_restart(self) -> int:
        """How many epochs follow a restart at least."""
        return self.patience if self.recovery_epochs is None else self.recovery_epochs


@dataclasses.dataclass(frozen=True)
class EveryEpochs(When):
    """Ends a round after a fixed number of epochs, so that compared runs train equally long.

    Example:
    ```python
    when = kerasrestart.EveryEpochs(15, monitor="val_accuracy")
    restart = kerasrestart.PartialRestart(when=when, stop_on_repeat=False)
    ```

    Args:
        epochs: Length of a round, more than `learning_rate_drops`.
        monitor: Metric by which the best epoch of a round is chosen, as it is named in the logs.
            Defaults to `"val_loss"`.
        mode: `"min"`, `"max"` or `"auto"`: whether lower or higher is better. Defaults to `"auto"`:
            from the metric's name.
        learning_rate_drops: How many times a round lowers the learning rate, evenly spread over the
            round: with 1, half of the round trains at the initial rate. Defaults to 0.
        learning_rate_factor: Factor on the learning rate at each drop, between 0 and 1. Defaults to
            0.1.
        target: Value of the metric at which training ends. Defaults to None.
        recovery_epochs: A restart is left out where fewer epochs than this remain in `fit`. 0
            for a loop of `fit` calls, each of which continues the last. Defaults to
            None: `epochs`.
        stop_when_done: Whether training ends with the round after the last restart. Defaults to
            True.

    Raises:
        ValueError: As `OnPlateau`.
    """

    epochs: int
    monitor: str = "val_loss"
    mode: str = "auto"
    learning_rate_drops: int = 0
    learning_rate_factor: float = 0.1
    target: float | None = None
    recovery_epochs: int | None = None
    stop_when_done: bool = True

    def __post_init__(self):
        self.check()
        check_whole("epochs", self.epochs, 1)
        expected = f"more than learning_rate_drops={self.learning_rate_drops}"
        check("epochs", self.epochs, self.epochs > self.learning_rate_drops, expected)

    def step(self, progress: RoundProgress, value: float) -> tuple[RoundProgress, Action]:
        """See `When.step`."""
        del value
        progress = dataclasses.replace(progress, epochs=progress.epochs + 1)
        if progress.epochs >= self.epochs:
            return progress, Action.END_ROUND
        next_drop = round(self.epochs * (progress.drops + 1) / (self.learning_rate_drops + 1))
        if progress.drops < self.learning_rate_drops and progress.epochs >= next_drop:
            progress = dataclasses.replace(progress, drops=progress.drops + 1)
            return progress, Action.LOWER_LEARNING_RATE
        return progress, Action.TRAIN

    def min_epochs_to_end(self, progress: RoundProgress) -> int:
        """See `When.min_epochs_to_end`."""
        return max(1, self.epochs - progress.epochs)

    def describe(self) -> str:
        """See `When.describe`."""
        if self.epochs == 1:
            return "the round's epoch is over"
        return f"the round's {self.epochs} epochs are over"

    @property
    def min_epochs_after_restart(self) -> int:
        """How many epochs follow a restart at least."""
        return self.epochs if self.recovery_epochs is None else self.recovery_epochs


_METHODS = {
    "step": ("progress", "value"),
    "min_epochs_to_end": ("progress",),
    "reaches_target": ("value",),
    "describe": (),
    "check": (),
}


def check_methods(when: When) -> None:
    """Checks that the methods of a class of the user's can be called; ValueError."""
    check("when", when, type(when).step is not When.step, "a When of a class that defines step")
    for method, arguments in _METHODS.items():
        form = f"a When with the method {method}({', '.join(arguments)})"
        check_function("when", getattr(when, method), form, *arguments)


def checked_step(when: When, progress: RoundProgress, value: float) -> tuple[RoundProgress, Action]:
    """Calls `step`, and checks what it returns; ValueError."""
    step = f"{type(when).__name__}.step"
    with naming(step, when):
        found = when.step(progress, value)
    kinds = (RoundProgress, Action)
    pair = isinstance(found, tuple | list) and len(found) == 2
    if not pair or not all(map(isinstance, found, kinds)):
        received = shown(found)
        raise ValueError(f"{step} must return a RoundProgress and an Action. Received: {received}")
    progress, action = found
    return progress, action


def higher_is_better(monitor: str, mode: str = "auto") -> bool:
    """Whether a higher value of a metric is better.

    Args:
        monitor: The metric, as it is named in the logs.
        mode: `"min"`, `"max"`, or `"auto"` (the default): from the name.

    Raises:
        ValueError: `mode` is `"auto"` and the name does not say.
    """
    if mode != "auto":
        return mode == "max"
    name = monitor.removeprefix("val_").lower()
    if any(word in name for word in ("loss", "error", "mse", "mae", "crossentropy")):
        return False
    if any(word in name for word in ("acc", "auc", "precision", "recall", "f1", "iou")):
        return True
    hint = did_you_mean(monitor, _COMMON_METRICS, cutoff=0.8)
    raise ValueError(
        "monitor must be a metric whose name says whether lower or higher is better, such as "
        "'val_loss' or 'val_accuracy'; for another, mode must be 'min' or 'max'. Received: "
        f"monitor={monitor!r}, mode='auto'{hint}"
    )

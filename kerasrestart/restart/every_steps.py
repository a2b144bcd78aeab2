"""Restarts between batches: when filters are old enough, and how many of them are restarted.

Readable without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kerasrestart.network.arguments import check_share, check_whole
from kerasrestart.restart.when import Action, RoundProgress, When


@dataclasses.dataclass(frozen=True)
class EverySteps(When):
    """Restarts filters between batches, for training without epochs that mean anything.

    Every `steps` batches the filters of lowest running score are restarted. The score is an
    exponential mean over batches, and a new filter is not selected before it has trained for
    `maturity` batches. The learning rate stays as it is, and training continues after the last
    restart.

    Example:
    ```python
    # As many filters as the selection says, every 1,000 batches.
    restart = kerasrestart.PartialRestart(
        select=kerasrestart.BelowMean(0.1), when=kerasrestart.EverySteps(1000)
    )
    # One filter at a time, on average each once in 10,000 batches: continual backpropagation.
    restart = kerasrestart.PartialRestart(
        when=kerasrestart.EverySteps(1, replacement_rate=1e-4, maturity=100)
    )
    ```

    A `fit` with the same callback and model continues with the ages and scores of the last one,
    whatever its epochs. For a loop without `fit` see `RestartController`.

    Source: Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024),
    algorithm 1, and the authors' code, for `replacement_rate`, `maturity` and `decay`.

    Args:
        steps: How many batches lie between two restarts at least, 1 or more. Batches that run as
            one (`steps_per_execution`) are not divided; if the length of the data is unknown, they
            are counted by the steps of the optimizer.
        replacement_rate: Fraction of a layer's mature filters that is restarted in each batch,
            above 0 and at most 1. Fractions of filters add up until there is a whole one. It
            replaces `select`, and the filters of lowest score are restarted. Defaults to None: as
            many as `select` selects.
        maturity: A filter can be selected when more batches than this have passed since training
            began or since it was restarted, 0 or more. Defaults to None: `steps`, so that it is
            left out once.
        decay: Decay of the running score per scored batch, from 0 (the last batch alone) to below
            1. Defaults to 0.99.
        monitor: Metric by which the best epoch is reported. Defaults to `"loss"`.
        mode: As in `EveryEpochs`. Defaults to `"auto"`.
        target: Value of the metric, at the end of an epoch, at which training ends. Defaults to
            None.

    Raises:
        ValueError: An argument is out of range.
    """

    steps: int
    replacement_rate: float | None = None
    maturity: int | None = None
    decay: float = 0.99
    monitor: str = "loss"
    mode: str = "auto"
    target: float | None = None

    # Of `When`: a loop of fit calls is one training, and nothing ends it.
    recovery_epochs = 0
    stop_when_done = False

    def __post_init__(self):
        self.check()
        check_whole("steps", self.steps, 1)
        if self.replacement_rate is not None:
            check_share("replacement_rate", self.replacement_rate, high=True)
        if self.maturity is not None:
            check_whole("maturity", self.maturity, 0)
        check_share("decay", self.decay, low=True)

    @property
    def min_age(self) -> int:
        """The age in batches that a filter must exceed to be selected."""
        return self.steps if self.maturity is None else self.maturity

    def step(self, progress: RoundProgress, value: float) -> tuple[RoundProgress, Action]:
        """See `When.step`: no epoch ends a round."""
        del value
        return dataclasses.replace(progress, epochs=progress.epochs + 1), Action.TRAIN

    def describe(self) -> str:
        """See `When.describe`."""
        if self.replacement_rate is not None:
            return f"a filter is due at replacement_rate={self.replacement_rate:g} per batch"
        return "1 batch has passed" if self.steps == 1 else f"{self.steps} batches have passed"


@dataclasses.dataclass
class StepState:
    """All that changes between batches, except the model.

    Attributes:
        step: How many batches the model was trained on.
        checked: At which of them it was last decided whether filters are restarted.
        since: By layer, int64 `[filters]`: after how many batches each filter was restarted; 0 for
            the first ones.
        due: By layer, how many filters are due to be restarted, as a fraction.
        running: The running scores, as `RunningScorer.state`; None where that needs none.
    """

    step: int = 0
    checked: int = 0
    since: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    due: dict[str, float] = dataclasses.field(default_factory=dict)
    running: tuple[np.ndarray, np.ndarray] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The state as plain data for JSON."""
        running = self.running
        return {
            "step": self.step,
            "checked": self.checked,
            "since": {name: since.tolist() for name, since in self.since.items()},
            "due": dict(self.due),
            "running": None if running is None else [part.tolist() for part in running],
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> StepState:
        """The state that `to_dict` wrote.

        Raises:
            TypeError, KeyError, ValueError: `written` is something else.
        """
        running = written["running"]
        if running is not None:
            sums, shares = (np.array(part, np.float32) for part in running)
            running = sums, shares
        since = {name: np.array(of_layer, int) for name, of_layer in written["since"].items()}
        rest = {name: written[name] for name in ("step", "checked", "due")}
        return cls(**rest, since=since, running=running)

    def follow(self, filters: Mapping[str, int]) -> None:
        """Begins to follow layers; those that are followed already stay.

        Args:
            filters: By layer, the number of filters.
        """
        for name, count in filters.items():
            if len(self.since.get(name, ())) != count:
                self.since[name], self.due[name] = np.full(count, self.step), 0.0

    def unfollow(self, names: Iterable[str]) -> None:
        """Ends following layers, of which no filter can be restarted."""
        for name in list(names):
            del self.since[name], self.due[name]

    def advance(self, when: EverySteps, steps: int = 1) -> None:
        """Counts batches, one after the other: filters come of age in between."""
        for _ in range(steps):
            self.step += 1
            if when.replacement_rate is not None:
                for name in self.since:
                    self.due[name] += when.replacement_rate * int(self.mature(when, name).sum())

    def mature(self, when: EverySteps, name: str) -> np.ndarray:
        """Which filters of a layer can be selected, bool `[filters]`."""
        return self.step - self.since[name] > when.min_age

    def excluded(self, when: EverySteps) -> dict[str, np.ndarray]:
        """By layer, the indices of the filters that cannot be selected."""
        return {name: np.flatnonzero(~self.mature(when, name)) for name in self.since}

    def interval_is_over(self, when: EverySteps) -> bool:
        """Whether `steps` batches have passed; the next call is about later batches."""
        over = self.step // when.steps > self.checked // when.steps
        if over:
            self.checked = self.step
        return over

    def is_due(self, when: EverySteps) -> bool:
        """Whether there are filters that can be restarted now."""
        if when.replacement_rate is not None:
            return any(self.whole(when).values())
        return any(self.mature(when, name).any() for name in self.since)

    def whole(self, when: EverySteps) -> dict[str, int]:
        """By layer, how many filters to restart now by `replacement_rate`: one stays at least."""
        counts = {}
        for name, since in self.since.items():
            most = min(int(self.mature(when, name).sum()), len(since) - 1)
            counts[name] = min(int(self.due[name]), most)
        return counts

    def first_restart(self, when: EverySteps) -> int:
        """After how many batches of a training the first restart can come at the earliest."""
        begin = StepState()
        begin.follow({name: len(since) for name, since in self.since.items()})
        return begin.min_steps_to_restart(when)

    def min_steps_to_restart(self, when: EverySteps) -> int:
        """In how many batches filters can be restarted at the earliest, 1 or more."""
        earliest = []
        for name, since in self.since.items():
            if len(since) < 2:  # the last filter of a layer stays
                continue
            steps = when.min_age + 1 - (self.step - int(since.min()))
            if when.replacement_rate is not None:
                left = (1 - self.due[name]) / (when.replacement_rate * len(since))
                # Rounding may make the sum of fractions whole a batch sooner.
                steps = max(steps, math.ceil(left) - 1)
            earliest.append(steps)
        at = self.step + max(1, min(earliest, default=1))
        return math.ceil(at / when.steps) * when.steps - self.step

"""Records of a training with restarts: plain data that can be written as JSON.

Readable without TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasrestart.restart.every_steps import StepState
from kerasrestart.restart.when import RoundProgress

REMEDY = "remedy "  # begins `RestartEvent.initializer` where a remedy was applied
MAX_NAMED = 4
"""Up to this number of layers a sentence names each."""


@dataclasses.dataclass
class LayerRestart:
    """The part of a restart in one layer.

    Attributes:
        filters: Indices of the restarted filters, ascending.
        scores: Scores of all filters of the layer just before the restart. Of a restart between
            batches, of which there may be thousands, those of `filters` alone.
        reselected: How many filters of the last restart were selected again; None at the first
            restart, and between batches.
        of: Number of filters of the layer, between batches; None where `scores` shows it.
    """

    filters: list[int]
    scores: list[float]
    reselected: int | None = None
    of: int | None = None

    @property
    def count(self) -> int:
        """Number of filters of the layer."""
        return len(self.scores) if self.of is None else self.of


def layer_restarts(
    chosen: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    last: RestartEvent | None,
) -> dict[str, LayerRestart]:
    """Records a selection.

    Args:
        chosen: By layer, the selected filters.
        scores: By layer, the scores of all filters.
        last: The restart before this one, or None.

    Returns:
        By layer, the record.
    """

    def reselected(name: str, filters: list[int]) -> int | None:
        if last is None:
            return None
        before = last.layers.get(name)  # None: the last restart selected none of this layer
        return len(set(filters) & set(before.filters)) if before else 0

    return {
        name: LayerRestart(
            filters.tolist(), scores[name].tolist(), reselected(name, filters.tolist())
        )
        for name, filters in chosen.items()
    }


@dataclasses.dataclass
class RestartEvent:
    """One restart.

    Attributes:
        restart: Its number, from 1.
        epoch: The epoch that it followed, counted from 0 as in `keras.callbacks.History`; between
            batches, the epoch that was running.
        reason: Why the round before it ended.
        initializer: What the filters were initialised with; of a control, its name; of a
            remedy, its name after "remedy ".
        learning_rate: The value that the learning rate was reset to; None where the optimizer has a
            schedule, and between batches.
        layers: By name, the layers of which a filter was selected; empty where none was.
        metrics_before: The logs of `epoch`.
        metrics_after: The logs of the epoch after it; empty until that has ended.
        metric_drop: How much worse the monitored metric was after that epoch than before it, in its
            own unit (negative: it was better); None until then.
        epochs_to_recover: Epochs until the monitored metric was as good as before; None if it has
            not been in this round.
        step: How many batches the model had been trained on; None between epochs. Between batches
            the metrics before and after are not known.
    """

    restart: int
    epoch: int
    reason: str
    initializer: str
    learning_rate: float | None
    layers: dict[str, LayerRestart]
    metrics_before: dict[str, float]
    metrics_after: dict[str, float] = dataclasses.field(default_factory=dict)
    metric_drop: float | None = None
    epochs_to_recover: int | None = None
    step: int | None = None

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> RestartEvent:
        """The event that `dataclasses.asdict` was given.

        Raises:
            TypeError, KeyError: `written` is something else.
        """
        layers = {name: LayerRestart(**layer) for name, layer in written["layers"].items()}
        return cls(**{**written, "layers": layers})

    def follow(self, epoch: int, logs: dict[str, float], monitor: str, higher: bool) -> None:
        """Fills in what only the epochs after the restart show.

        Args:
            epoch: An epoch after that of the restart, before the next restart.
            logs: Its logs.
            monitor: The monitored metric.
            higher: Whether a higher value of the metric is better.
        """
        drop = self.metrics_before[monitor] - logs[monitor]
        drop = drop if higher else -drop
        if not self.metrics_after:
            self.metrics_after, self.metric_drop = dict(logs), drop
        if self.epochs_to_recover is None and drop <= 0:
            self.epochs_to_recover = epoch - self.epoch

    def summary(self) -> str:
        """The restart as one sentence, without its full stop."""
        reset = ""
        if self.learning_rate is not None:
            reset = f"; learning rate reset to {self.learning_rate:g}"
        if self.initializer.startswith(REMEDY):
            return f"{self.reason}. Applied {self.initializer.removeprefix(REMEDY)}{reset}"
        if not self.layers:
            return f"{self.reason}. No filter was selected{reset}"
        counts = {name: (len(of.filters), of.count) for name, of in self.layers.items()}
        selected, filters = map(sum, zip(*counts.values(), strict=True))
        shares = {name: f"{k}/{n}" for name, (k, n) in counts.items()}
        what = f"{selected} of {filters} filters {by_layer(shares)}"
        done = {
            "none": f"Left {what} as they are",
            "slots": f"Reset the optimizer state of {what}",
        }.get(self.initializer, f"Restarted {what} with {self.initializer}")
        return f"{self.reason}. {done}{reset}"


def by_layer(counts: Mapping[str, object]) -> str:
    """The layers with their counts in words; only how many layers where they are many."""
    if len(counts) > MAX_NAMED:
        return f"in {len(counts)} layers"
    return f"({', '.join(f'{name} {count}' for name, count in counts.items())})"


@dataclasses.dataclass
class Round:
    """The epochs from one restart to the next; the first round is the baseline.

    Attributes:
        round: Its number; 0 is the baseline, n follows restart n.
        first_epoch: Its first epoch, counted from 0.
        epochs: Its length.
        best_epoch: The epoch of its best monitored value.
        best_metrics: The logs of that epoch.
        last_metrics: The logs of its last epoch.
        ended: Why it ended; None while it continues.
    """

    round: int
    first_epoch: int
    epochs: int = 0
    best_epoch: int | None = None
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    last_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    ended: str | None = None

    def add(self, epoch: int, logs: dict[str, float], monitor: str, higher: bool) -> None:
        """Adds an epoch with its logs; `monitor` and `higher` as in `RestartEvent.follow`."""
        self.epochs += 1
        self.last_metrics = dict(logs)
        best = self.best_metrics.get(monitor)
        value = logs[monitor]
        # Any value is better than one that is not a number.
        if best is None or best != best or (value > best if higher else value < best):
            self.best_epoch, self.best_metrics = epoch, dict(logs)


def best_by_round(rounds: Sequence[Round], monitor: str) -> str:
    """The best value of each round, as one sentence; rounds without an epoch are left out.

    Args:
        rounds: The rounds.
        monitor: The metric by which their best epochs were chosen.
    """
    names = (f"restart {of.round}" if of.round else "baseline" for of in rounds)
    best = (
        f"{name} {of.best_metrics[monitor]:.4g} (epoch {of.best_epoch + 1})"
        for name, of in zip(names, rounds, strict=True)
        if of.best_epoch is not None
    )
    return f"Best {monitor} by round: {', '.join(best)}."


@dataclasses.dataclass
class PendingRestart:
    """A restart that the end of an epoch has led to and that the next epoch begins with.

    Whatever a callback saves of an epoch is therefore the model that its metrics describe.

    Attributes:
        event: The restart.
        reader_input_means: By layer, its mean inputs, float32 `[inputs]`; empty without
            `compensate_bias`.
        dropped_epochs: For how many epochs the network has trained without the filters, with
            `Reset(drop_epochs=)`.
    """

    event: RestartEvent
    reader_input_means: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    dropped_epochs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for JSON."""
        means = {name: means.tolist() for name, means in self.reader_input_means.items()}
        return {
            "event": dataclasses.asdict(self.event),
            "reader_input_means": means,
            "dropped_epochs": self.dropped_epochs,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> PendingRestart:
        """The record that `to_dict` wrote.

        Raises:
            TypeError, KeyError: `written` is something else.
        """
        means = written["reader_input_means"].items()
        return cls(
            RestartEvent.from_dict(written["event"]),
            {name: np.array(of_layer, np.float32) for name, of_layer in means},
            written["dropped_epochs"],
        )


@dataclasses.dataclass
class RestartState:
    """All that changes during a training with restarts, except the model and its scorer.

    Attributes:
        progress: How far the present round has come.
        rounds: All rounds; the last is the present one.
        events: All restarts.
        learning_rate: The rate that each round begins with; None where the optimizer has a
            schedule.
        finished: Why there are no more restarts; None while there may be.
        scored_epoch: The last epoch whose batches were scored; None before the first.
        pending: The restart that the next epoch begins with; None where there is none.
        lowers_rate: Whether the next epoch begins with a lower learning rate.
        steps: What changes between batches; None without `EverySteps`.
    """

    progress: RoundProgress = dataclasses.field(default_factory=RoundProgress)
    rounds: list[Round] = dataclasses.field(default_factory=list)
    events: list[RestartEvent] = dataclasses.field(default_factory=list)
    learning_rate: float | None = None
    finished: str | None = None
    scored_epoch: int | None = None
    pending: PendingRestart | None = None
    lowers_rate: bool = False
    steps: StepState | None = None

    def add_epoch(self, epoch: int, logs: dict[str, float], monitor: str, higher: bool) -> None:
        """Adds an epoch to the present round and to what followed the last restart.

        Args:
            epoch: The epoch.
            logs: Its logs.
            monitor: The monitored metric.
            higher: Whether a higher value of the metric is better.
        """
        if self.events and self.events[-1].step is None:
            self.events[-1].follow(epoch, logs, monitor, higher)
        self.rounds[-1].add(epoch, logs, monitor, higher)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain data for JSON."""
        plain = dataclasses.asdict(dataclasses.replace(self, pending=None, steps=None))
        pending, steps = self.pending, self.steps
        return {
            **plain,
            "pending": None if pending is None else pending.to_dict(),
            "steps": None if steps is None else steps.to_dict(),
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> RestartState:
        """The state that `to_dict` wrote.

        Raises:
            TypeError, KeyError: `written` is something else.
        """
        pending, steps = written["pending"], written["steps"]
        return cls(
            **{
                **written,
                "progress": RoundProgress(**written["progress"]),
                "rounds": [Round(**of_round) for of_round in written["rounds"]],
                "events": [RestartEvent.from_dict(event) for event in written["events"]],
                "pending": None if pending is None else PendingRestart.from_dict(pending),
                "steps": None if steps is None else StepState.from_dict(steps),
            }
        )

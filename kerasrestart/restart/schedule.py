"""When filters are restarted, and when training is over: pure rules over a state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from kerasrestart.restart.arguments import check
from kerasrestart.restart.records import RestartState
from kerasrestart.restart.rule import RestartRule
from kerasrestart.restart.trigger import (
    Action,
    EpochsTrigger,
    PlateauTrigger,
    Trigger,
    TriggerState,
)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the end of an epoch leads to.

    Attributes:
        trigger: How far the round has come now.
        lowers_rate: Whether the learning rate falls.
        round_over: Why the round is over; None where it goes on.
        chosen: By layer name, the filters to restart; None where there is no restart. Empty where
            none is useless, and the learning rate alone begins anew.
        finished: Why no more restarts will come; None where nothing new is to be said of that.
        ends_training: Whether training is over.
    """

    trigger: TriggerState
    lowers_rate: bool = False
    round_over: str | None = None
    chosen: Mapping[str, np.ndarray] | None = None
    finished: str | None = None
    ends_training: bool = False


@dataclasses.dataclass(frozen=True)
class RestartSchedule:
    """The arguments of `PartialRestart` that say when a restart comes; they are described there.

    Raises:
        ValueError: An argument is out of range.
    """

    monitor: str
    higher_is_better: bool
    patience: int
    min_delta: float
    round_epochs: int | None
    learning_rate_drops: int
    target: float | None
    max_restarts: int
    stop_on_repeat: bool
    stop_when_done: bool
    recovery_epochs: int | None

    def __post_init__(self):
        check("patience", self.patience, self.patience >= 1, "1 or more")
        for name in ("max_restarts", "min_delta", "learning_rate_drops"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        if self.round_epochs is not None:
            least = self.learning_rate_drops + 1
            check("round_epochs", self.round_epochs, self.round_epochs >= least, f"{least} or more")
        if self.recovery_epochs is not None:
            check("recovery_epochs", self.recovery_epochs, self.recovery_epochs >= 0, "0 or more")

    @property
    def trigger(self) -> Trigger:
        """What ends a round."""
        if self.round_epochs is not None:
            return EpochsTrigger(self.round_epochs, self.learning_rate_drops)
        return PlateauTrigger(
            self.higher_is_better, self.patience, self.min_delta, self.learning_rate_drops
        )

    @property
    def min_epochs_after_restart(self) -> int:
        """How many epochs are to follow a restart at least."""
        if self.recovery_epochs is None:
            return self.round_epochs or self.patience
        return max(1, self.recovery_epochs)

    def may_restart_within(self, epochs: int, state: RestartState) -> bool:
        """Whether a restart could come within so many epochs, the one that begins counted."""
        if state.finished is not None or len(state.events) >= self.max_restarts:
            return False
        return self.trigger.min_epochs_to_end(state.progress) <= epochs

    def decide(
        self,
        state: RestartState,
        value: float,
        *,
        epochs_left: int | None,
        scores: Mapping[str, np.ndarray] | None,
        rule: RestartRule,
    ) -> Decision:
        """Decides what the end of an epoch leads to.

        Args:
            state: The state of the restarts; it is left as it is.
            value: The monitored metric of the epoch.
            epochs_left: How many epochs could follow; None where another callback has ended the
                training.
            scores: By layer name, the scores of all filters; None where they are not known yet.
            rule: What selects filters.
        """
        trigger, action = self.trigger.step(state.progress, value)
        if self._target_reached(value):
            return Decision(
                trigger,
                round_over=f"{self.monitor} has reached {self.target:g}",
                finished="target reached",
                ends_training=True,
            )
        if action is Action.LOWER_LEARNING_RATE:
            return Decision(trigger, lowers_rate=True)
        if action is Action.TRAIN_ON or state.finished is not None:
            return Decision(trigger)

        reason = self.trigger.describe(self.monitor)
        if len(state.events) >= self.max_restarts:
            return self._converged(trigger, f"max_restarts={self.max_restarts} reached", reason)
        if epochs_left is None:
            return Decision(trigger, finished="another callback has ended the training")
        if epochs_left < self.min_epochs_after_restart:
            why = f"{epochs_left} epochs left, too few for a filter to recover in"
            return Decision(trigger, finished=why)
        if scores is None:
            # Every batch so far has overflowed its loss scale: the next epoch will tell.
            return Decision(trigger)
        if not all(np.isfinite(of_layer).all() for of_layer in scores.values()):
            return Decision(trigger, finished="training has diverged, the scores are not finite")
        chosen = rule.select(scores, state.events)
        if self.stop_on_repeat and not chosen:
            return self._converged(trigger, "no filter was selected", reason)
        if self.stop_on_repeat and rule.repeats(chosen, state.events):
            why = "the same filters were selected as at the last restart"
            return self._converged(trigger, why, reason)
        return Decision(trigger, round_over=reason, chosen=chosen)

    def _converged(self, trigger: TriggerState, why: str, reason: str) -> Decision:
        """Makes no more restarts, at the end of a round."""
        over = reason if self.stop_when_done else None
        return Decision(trigger, round_over=over, finished=why, ends_training=self.stop_when_done)

    def _target_reached(self, value: float) -> bool:
        if self.target is None:
            return False
        return value >= self.target if self.higher_is_better else value <= self.target

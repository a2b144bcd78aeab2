"""What the end of an epoch leads to: pure decisions from the parts of `PartialRestart`.

Readable without TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasrestart.network.arguments import check, check_choice, check_whole, checked_layers
from kerasrestart.network.text import did_you_mean
from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.initializer_names import CONTROLS, describe
from kerasrestart.restart.records import REMEDY, RestartEvent, RestartState
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Chosen, Fraction
from kerasrestart.restart.select_filters import check_select, choose
from kerasrestart.restart.when import (
    Action,
    OnPlateau,
    RoundProgress,
    When,
    check_methods,
    checked_step,
)
from kerasrestart.scoring.scoring import Scoring

# Why there are no more restarts. `RestartState.finished` is one of these, or ends with one.
TARGET_REACHED = "target reached"
NONE_SELECTED = "no filter was selected"
SAME_SELECTED = "the same filters were selected as at the last restart"
TOO_FEW_EPOCHS = "too few for a filter to recover in"
ENDED_BY_ANOTHER = "another callback has ended the training"
DIVERGED = "training has diverged, the scores are not finite"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the end of an epoch leads to.

    Attributes:
        progress: How far the round has come.
        lowers_rate: Whether the next epoch begins with a lower learning rate.
        round_over: Why the round is over; None where it continues.
        chosen: By layer, the filters to restart; None where there is no restart. Empty where no
            filter is useless, and only the learning rate is reset.
        finished: Why there are no more restarts; None where that has not changed.
        ends_training: Whether training is over.
    """

    progress: RoundProgress
    lowers_rate: bool = False
    round_over: str | None = None
    chosen: Mapping[str, np.ndarray] | None = None
    finished: str | None = None
    ends_training: bool = False


@dataclasses.dataclass(frozen=True)
class RestartPlan:
    """The arguments of `PartialRestart` as one value; they are described there.

    Example:
    ```python
    from kerasrestart.restart.plan import RestartPlan
    from kerasrestart.restart.records import RestartState

    plan = RestartPlan(select=kerasrestart.BelowMean(0.1), when=kerasrestart.EveryEpochs(15))
    scores = kerasrestart.score_filters(model, x, y)
    decision = plan.decide(RestartState(), 0.5, epochs_left=20, scores=scores)
    ```

    Raises:
        ValueError: An argument is out of range, or two parts exclude each other.
    """

    select: Any = dataclasses.field(default_factory=Fraction)
    when: When = dataclasses.field(default_factory=OnPlateau)
    reset: Reset = dataclasses.field(default_factory=Reset)
    scoring: Scoring = dataclasses.field(default_factory=Scoring)
    control: str | None = None
    layers: str | Sequence[str] | None = None
    max_restarts: int | None = 3  # None: no limit
    stop_on_repeat: bool = True
    seed: int = 0
    remedy: Any = None

    def __post_init__(self):
        check_select(self.select)
        expected = "OnPlateau, EveryEpochs, EverySteps or a When"
        check("when", self.when, isinstance(self.when, When), expected)
        check_methods(self.when)
        self.when.check()
        check("reset", self.reset, isinstance(self.reset, Reset), "a Reset")
        check_choice("control", self.control, (None, *CONTROLS))
        object.__setattr__(self, "layers", checked_layers(self.layers))  # a list as a tuple
        if self.max_restarts is not None:
            check_whole("max_restarts", self.max_restarts, 0)
        right = isinstance(self.stop_on_repeat, bool)
        check("stop_on_repeat", self.stop_on_repeat, right, "True or False")
        check_whole("seed", self.seed, 0)
        if self.remedy is not None and self.control is not None:
            raise ValueError(
                "A control re-initialises nothing: control or reset must be left out. Received: "
                f"control={self.control!r}, reset={self.remedy!r}"
            )
        if self.remedy is not None and getattr(self.when, "replacement_rate", None) is not None:
            raise ValueError(
                "replacement_rate says how many filters are restarted, and a remedy restarts none: "
                f"when must be EverySteps(n). Received: when={self.when!r}, reset={self.remedy!r}"
            )
        if self.between_batches and self.reset.drop_epochs:
            raise ValueError(
                "when must be EveryEpochs or OnPlateau beside drop_epochs, as filters are dropped "
                f"for whole epochs. Received: when={self.when!r}, "
                f"drop_epochs={self.reset.drop_epochs}"
            )
        if self.control == "slots" and self.reset.outgoing != "keep":
            raise ValueError(
                "outgoing must be 'keep' beside control='slots', which changes no weight. "
                f"Received: outgoing={self.reset.outgoing!r}"
            )
        if self.scoring.is_reversed and isinstance(self.select, BelowMean):
            raise ValueError(
                "criterion must be one that is not reversed, or select=Fraction(...): BelowMean "
                "compares with the mean score and needs scores of 0 or more. Received: "
                f"criterion={self.scoring.criterion!r}"
            )

    @property
    def between_batches(self) -> bool:
        """Whether filters are restarted between batches, not between epochs."""
        return isinstance(self.when, EverySteps)

    @property
    def recorded_initializer(self) -> str:
        """What `RestartEvent.initializer` says of a restart by this plan."""
        if self.remedy is not None:
            return REMEDY + describe(self.remedy)
        return self.control or describe(self.reset.initializer)

    @property
    def restarts_filters(self) -> bool:
        """Whether any filter is restarted."""
        return self.remedy is None and self.control != "none" and self.max_restarts != 0

    def may_restart(self, restarts: int) -> bool:
        """Whether `max_restarts` allows another one after this number of them."""
        return self.max_restarts is None or restarts < self.max_restarts

    def metrics(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """Reads the metrics of an epoch.

        Args:
            logs: The logs of the epoch, as Keras passes them to a callback.

        Returns:
            The numbers among them, by name.

        Raises:
            ValueError: The monitored metric is not among them.
        """
        # Other callbacks may add texts, None, or arrays.
        values = {name: np.asarray(value) for name, value in logs.items()}
        numbers = {n: value for n, value in values.items() if value.dtype.kind in "biuf"}
        metrics = {name: float(value) for name, value in numbers.items() if not value.ndim}
        monitor = self.when.monitor
        if monitor not in metrics:
            reason, hint = "", did_you_mean(monitor, metrics)
            if monitor.startswith("val_") and not any(name.startswith("val_") for name in metrics):
                reason, hint = ": a name with 'val_' needs validation data in every epoch", ""
            raise ValueError(
                "monitor must be a metric in the logs of every epoch, one of "
                f"{sorted(metrics)}{reason}. Received: {monitor!r}{hint}"
            )
        return metrics

    def may_restart_within(self, epochs: int, state: RestartState) -> bool:
        """Whether a restart can come within this many epochs, the one that begins included."""
        if state.finished is not None or not self.may_restart(len(state.events)):
            return False
        return self.when.min_epochs_to_end(state.progress) <= epochs

    def decide(
        self,
        state: RestartState,
        value: float,
        *,
        epochs_left: int | None,
        scores: Mapping[str, np.ndarray] | None,
    ) -> Decision:
        """Decides what the end of an epoch leads to.

        Args:
            state: The state of the restarts; it is not changed.
            value: The monitored metric of the epoch.
            epochs_left: How many epochs can follow; None where another callback has ended training.
            scores: By layer, the scores of all filters; None where they are not known yet.

        Returns:
            The decision.

        Raises:
            ValueError: `select` fails, or returns filters that do not exist; or `when.step` fails,
                or returns something else.
        """
        when = self.when
        progress, action = checked_step(when, state.progress, value)
        if when.reaches_target(value):
            return Decision(
                progress,
                round_over=f"{when.monitor} has reached {when.target:g}",
                finished=TARGET_REACHED,
                ends_training=True,
            )
        if action is Action.LOWER_LEARNING_RATE:
            return Decision(progress, lowers_rate=True)
        if action is not Action.END_ROUND or state.finished is not None:
            return Decision(progress)

        if not self.may_restart(len(state.events)):
            return self._last_round(progress, f"max_restarts={self.max_restarts} reached")
        if epochs_left is None:
            return Decision(progress, finished=ENDED_BY_ANOTHER)
        if epochs_left < when.min_epochs_after_restart + self.reset.drop_epochs:
            why = f"{epochs_left} epochs left, {TOO_FEW_EPOCHS}"
            return Decision(progress, finished=why)
        if scores is None:
            # Every batch so far has overflowed its loss scale: the next epoch has scores.
            return Decision(progress)
        if not all(np.isfinite(of_layer).all() for of_layer in scores.values()):
            return Decision(progress, finished=DIVERGED)
        chosen = self.choose(scores, state.events)
        if self._stops_on_repeat and not chosen:
            return self._last_round(progress, NONE_SELECTED)
        if self._stops_on_repeat and self.repeats(chosen, state.events):
            return self._last_round(progress, SAME_SELECTED)
        return Decision(progress, round_over=when.describe(), chosen=chosen)

    @property
    def _stops_on_repeat(self) -> bool:
        # A control re-initialises nothing, so it may well select the same filters again.
        return self.stop_on_repeat and self.control is None and self.remedy is None

    def _last_round(self, progress: RoundProgress, why: str) -> Decision:
        over = self.when.describe() if self.when.stop_when_done else None
        ends = self.when.stop_when_done
        return Decision(progress, round_over=over, finished=why, ends_training=ends)

    def choose(self, scores: Mapping[str, np.ndarray], events: Sequence[RestartEvent]) -> Chosen:
        """Selects filters, except those in their grace period.

        Args:
            scores: By layer, `[filters]`.
            events: The restarts so far.

        Returns:
            By layer, indices; empty where no filter is useless, or a remedy needs none.
        """
        if self.remedy is not None:
            return {}
        excluded: dict[str, set[int]] = {}
        if self.reset.grace:
            for event in events[-self.reset.grace :]:
                for name, layer in event.layers.items():
                    excluded.setdefault(name, set()).update(layer.filters)
        check_sizes = getattr(self.select, "check", None)
        try:
            if check_sizes is not None:
                check_sizes({name: len(of_layer) for name, of_layer in scores.items()})
        except ValueError:
            # All layers passed this check before training; those with a score, known now, do not.
            return {}
        return choose(self.select, scores, excluded)

    def repeats(self, chosen: Mapping[str, np.ndarray], events: Sequence[RestartEvent]) -> bool:
        """Whether a selection equals that of the last restart.

        Filters in their grace period cannot be selected again, so the restarts within it are
        skipped.
        """
        comparable = events[: len(events) - self.reset.grace]
        if not comparable:
            return False
        last = {name: layer.filters for name, layer in comparable[-1].layers.items()}
        return last == {name: filters.tolist() for name, filters in chosen.items()}

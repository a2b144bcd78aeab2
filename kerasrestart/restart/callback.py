"""The callback that restarts useless filters while a model trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.restart import initializers
from kerasrestart.restart.arguments import check, explain_parts
from kerasrestart.restart.fit_session import FitSession, prepare
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.plan import Decision, RestartPlan
from kerasrestart.restart.records import (
    PendingRestart,
    RestartEvent,
    RestartState,
    Round,
    best_by_round,
    layer_restarts,
)
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import Fraction, Select
from kerasrestart.restart.summary import summary_table
from kerasrestart.restart.when import OnPlateau, RoundProgress, When
from kerasrestart.scoring import criteria
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.scoring import Scoring


class PartialRestart(keras.callbacks.Callback):
    """Re-initialises the least useful filters each time training has reached a plateau.

    Example:
    ```python
    restart = kerasrestart.PartialRestart("uniform", 0.1, monitor="val_loss", patience=3)
    model.fit(x, y, validation_split=0.1, epochs=60, callbacks=[restart])
    print(restart.summary())
    ```

    The same, and more, in parts:
    ```python
    restart = kerasrestart.PartialRestart(
        select=kerasrestart.BelowMean(0.1, cap=0.5),
        when=kerasrestart.EveryEpochs(15),
        reset=kerasrestart.Reset("he_uniform", outgoing="zero"),
    )
    ```

    All filters are scored in the backward pass that training makes anyway. At the end of a round
    of training the filters of lowest score are selected; the next epoch begins by re-initialising
    them and resetting the learning rate to its initial value, and a new round starts. The first
    round is the baseline. Restarts end after `max_restarts`, when the same filters are selected
    twice, or at the target; the next plateau ends training.

    What other callbacks save of an epoch is the model that the epoch's metrics describe, whatever
    their order. After `fit` the model is a plain Keras model.

    Source: Han and Zhang, "Partial Restart of Neural Network", algorithm 1.

    Args:
        initializer: What draws the new weights: the short form of `reset=Reset(initializer)`.
            Defaults to `"uniform"`.
        fraction: Fraction of each layer's filters that a restart selects: the short form of
            `select=Fraction(fraction)`. Defaults to 0.1.
        monitor: Metric whose plateau ends a round, and
        patience: epochs without improvement that make a plateau: the short form of
            `when=OnPlateau(monitor, patience)`. Default to `"val_loss"` and 5.
        max_restarts: Largest number of restarts. Defaults to 3.
        seed: Seed of the new weights, and of a criterion that draws scores. Defaults to 0.
        select: Which filters a restart selects: `Fraction`, `BelowMean`, `GlobalFraction`, or a
            function that takes the scores by layer, float32 `[filters]`, and returns
            `{layer: indices}`. Defaults to None: the short form.
        when: When a round ends: `OnPlateau`, `EveryEpochs`, or an object of a class of your own,
            see `kerasrestart.restart.when.When`. Defaults to None: the short form.
        reset: How filters are restarted: `Reset`. Defaults to None: the short form.
        control: `"none"`: only the learning rate restarts; `"slots"`: the optimizer state of the
            selected filters restarts too, and their weights stay. The same filters twice then end
            nothing. Defaults to None: no control, filters are re-initialised.
        criterion: What filters are scored by: a name or function, see
            `kerasrestart.scoring.criteria.get`, or `Scoring`, to score fewer batches or epochs.
            Defaults to `"taylor"`.
        layers: Which layers are scored and restarted: their names, or a regular expression that
            matches whole names; `".*"` includes dense layers. Defaults to None: all convolutions.
            `kerasrestart.describe(model)` lists them.
        stop_on_repeat: Whether restarts end when the same filters are selected as at the last
            restart, or none. With False, a restart that selects none only resets the learning rate.
            To compare with a control, pass False and `when=EveryEpochs(...)` to both: then both
            train equally long. Defaults to True.
        observers: `RestartObserver`s, such as `RestartTensorBoard` and `RestartBackup`. Defaults to
            none.

    Attributes:
        state: A `RestartState`: all that changes during training.
        scores: Scores of the last epoch that was scored: by layer, float32 `[filters]`.

    Raises:
        ValueError: An argument is out of range, or a short form is given beside the part that
            replaces it; at the start of `fit`: the model has no filters, `select` cannot select
            from it, or the optimizer's slots are not known; at the end of the first epoch:
            `monitor` is not in the logs.
        TypeError: An argument belongs to a part; at the start of `fit`: the model has no graph.
    """

    @explain_parts
    def __init__(
        self,
        initializer: Any = "uniform",
        fraction: float = 0.1,
        *,
        monitor: str = "val_loss",
        patience: int = 5,
        max_restarts: int = 3,
        seed: int = 0,
        select: Select | None = None,
        when: When | None = None,
        reset: Reset | None = None,
        control: str | None = None,
        criterion: str | criteria.Criterion | criteria.Saliency | Scoring = "taylor",
        layers: str | Sequence[str] | None = None,
        stop_on_repeat: bool = True,
        observers: Sequence[RestartObserver] = (),
    ):
        super().__init__()
        self.plan = RestartPlan(
            select=Fraction(fraction) if select is None else select,
            when=OnPlateau(monitor, patience) if when is None else when,
            reset=Reset(initializer) if reset is None else reset,
            scoring=criterion if isinstance(criterion, Scoring) else Scoring(criterion),
            control=control,
            layers=layers,
            max_restarts=max_restarts,
            stop_on_repeat=stop_on_repeat,
            seed=seed,
        )
        criteria.get(self.plan.scoring.criterion)
        for observer in observers:
            expected = "RestartObservers"
            check("observers", observer, isinstance(observer, RestartObserver), expected)
        self.observers = list(observers)
        self.state = RestartState()
        self.scores: dict[str, np.ndarray] = {}
        self._reader_input_means: dict[str, np.ndarray] = {}
        self._fit: FitSession | None = None
        self._messages: list[str] = []
        self._resumed: tuple[RestartState, dict[str, np.ndarray]] | None = None

    def __repr__(self):
        values = vars(self.plan).items()
        return f"PartialRestart({', '.join(f'{name}={value!r}' for name, value in values)})"

    def __getstate__(self):
        # A copy keeps the plan and the records; the model and its scored step are the original's.
        return {**vars(self), "_model": None, "_fit": None}

    @property
    def monitor(self) -> str:
        """The monitored metric, by which the best epoch of a round is chosen."""
        return self.plan.when.monitor

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of that metric is better."""
        return self.plan.when.higher_is_better

    @property
    def events(self) -> list[RestartEvent]:
        """The restarts, one `RestartEvent` each."""
        return self.state.events

    @property
    def rounds(self) -> list[Round]:
        """The rounds of training, one `Round` each; the first is the baseline."""
        return self.state.rounds

    @property
    def scorer(self) -> Scorer:
        """What scores the filters, from the start of `fit` on."""
        if self._fit is None:
            raise AttributeError("PartialRestart has no scorer before the start of fit.")
        return self._fit.scorer

    def summary(self) -> str:
        """The restarts as a plain-text table: a row for each layer of each restart."""
        return summary_table(self.events)

    def check(self, model: keras.Model) -> None:
        """Checks that a model can be restarted as the arguments say; `fit` does so at its start.

        Args:
            model: A compiled model.

        Raises:
            ValueError, TypeError: As at the start of `fit`.
        """
        prepare(model, self.plan)

    def resume(self, state: RestartState, scores: Mapping[str, np.ndarray] | None = None) -> None:
        """Makes the next `fit` continue from the state at the end of an epoch of another.

        That `fit` needs the model, the optimizer state and the learning rate of that epoch, and
        `initial_epoch` is the epoch after it.

        Args:
            state: The value of `state` then; `RestartState.from_dict` reads it from plain data.
            scores: The value of `scores` then. Defaults to None: none until the next scored epoch.
        """
        self._resumed = state, dict(scores or {})

    def on_train_begin(self, logs=None):
        """Finds the filters, and makes the model train with the scored step."""
        self._fit = FitSession(self.model, self.plan)
        if left_out := self._fit.left_out:
            self._messages.append(
                f"Left out with outgoing='zero': {', '.join(left_out)} (kerasrestart.describe "
                "gives the reasons)."
            )
        if (rate := self._fit.learning_rate) is None:
            self._messages.append("The optimizer has a schedule: restarts do not reset its rate.")
        self.state = RestartState(learning_rate=rate)
        self.scores, self._reader_input_means = {}, {}
        self._take_resumed()
        with self._detaching():
            for observer in self.observers:
                observer.on_train_begin(self)

    def on_epoch_begin(self, epoch, logs=None):
        """Restarts filters where the last epoch led to it, and begins to score again."""
        with self._detaching():
            for observer in self.observers:
                observer.on_epoch_begin(epoch, self)
            self._take_resumed()
            if self._fit.was_compiled_again():
                self.state.learning_rate = self._fit.learning_rate
            if self.state.lowers_rate:
                self._lower_learning_rate(epoch)
            if self.state.pending is not None:
                self._restart(self.state.pending)
            self._print_messages()
            window = self.plan.scoring.window
            scored = window is None or self.plan.may_restart_within(window, self.state)
            if scored:
                self.state.scored_epoch = epoch
            self._fit.begin_epoch(scored=scored)
            if not self.rounds or self.rounds[-1].ended:
                self.rounds.append(Round(len(self.rounds), first_epoch=epoch))

    def on_epoch_end(self, epoch, logs=None):
        """Records the epoch, and selects the filters to restart where the round is over."""
        with self._detaching():
            metrics = self._metrics(logs)
            if (rate := self._fit.learning_rate) is not None:
                # As keras.callbacks.ReduceLROnPlateau does, which may have lowered it already.
                logs.setdefault("learning_rate", rate)
            self._record(epoch, metrics)
            self._decide(epoch, metrics)
            for observer in self.observers:
                observer.on_decision(epoch, self)

    def on_train_end(self, logs=None):
        """Gives the model its own training step back."""
        self._fit.detach()
        if self.state.pending is not None:
            self.state.pending = None
            self._no_more_restarts("another callback has ended the training")
        if self.rounds and not self.rounds[-1].ended:
            self._end_round("training ended")
        for observer in self.observers:
            observer.on_train_end(self)
        if self.events:
            self._messages.append(best_by_round(self.rounds, self.monitor))
        self._print_messages()

    @contextlib.contextmanager
    def _detaching(self) -> Iterator[None]:
        """Gives the model its own step back after an error: Keras calls no `on_train_end` then."""
        try:
            yield
        except BaseException:
            self._fit.detach()
            raise

    def _take_resumed(self) -> None:
        if self._resumed is not None:
            (self.state, self.scores), self._resumed = self._resumed, None

    def _record(self, epoch: int, metrics: dict[str, float]) -> None:
        read = self._fit.read(len(self.events)) if self.state.scored_epoch == epoch else None
        if read is not None:  # else, as after an epoch without a batch, the last scores stay
            if not self.scores:
                self._messages += [
                    f"Layer '{name}' is not scored: {why}."
                    for name, why in self._fit.scorer.left_out.items()
                ]
            self.scores, self._reader_input_means = read
        if self.events:
            self.events[-1].follow(epoch, metrics, self.monitor, self.higher_is_better)
        self.rounds[-1].add(epoch, metrics, self.monitor, self.higher_is_better)
        for observer in self.observers:
            observer.on_epoch_end(epoch, self)

    def _decide(self, epoch: int, metrics: dict[str, float]) -> None:
        known = self.scores and (self._reader_input_means or not self.plan.reset.compensate_bias)
        decision = self.plan.decide(
            self.state,
            metrics[self.monitor],
            epochs_left=None if self.model.stop_training else self.params["epochs"] - epoch - 1,
            scores=self.scores if known else None,
        )
        self.state.progress, self.state.lowers_rate = decision.progress, decision.lowers_rate
        if decision.finished is not None:
            self._no_more_restarts(decision.finished)
        if decision.round_over is not None:
            self._end_round(decision.round_over)
        if decision.ends_training:
            self.model.stop_training = True
        if decision.chosen is not None:
            # Not restarted yet: callbacks after this one may save the model of this epoch.
            event = self._event(epoch, decision, metrics)
            self.state.pending = PendingRestart(event, self._reader_input_means)

    def _event(self, epoch: int, decision: Decision, metrics: dict[str, float]) -> RestartEvent:
        last = self.events[-1] if self.events else None
        return RestartEvent(
            restart=len(self.events) + 1,
            epoch=epoch,
            reason=decision.round_over,
            initializer=self.plan.control or initializers.describe(self.plan.reset.initializer),
            learning_rate=self.state.learning_rate,
            layers=layer_restarts(decision.chosen, self.scores, last),
            metrics_before=metrics,
        )

    def _restart(self, pending: PendingRestart) -> None:
        event = pending.event
        for observer in self.observers:
            observer.on_restart_begin(event, self)
        event.learning_rate = self.state.learning_rate  # lower, if the run was rolled back
        left_out = self._fit.restart(event, pending.reader_input_means)
        self.state.progress, self.state.pending = RoundProgress(), None
        self.events.append(event)
        for observer in self.observers:
            observer.on_restart_end(event, self)
        self._messages.append(f"Epoch {event.epoch + 1}: {event.summary()}.")
        for name, why in left_out.items():
            self._messages.append(f"Epoch {event.epoch + 1}: '{name}' is not restarted: {why}.")

    def _lower_learning_rate(self, epoch: int) -> None:
        rate = self._fit.learning_rate * self.plan.when.learning_rate_factor
        self._fit.learning_rate = rate
        self.state.lowers_rate = False
        self._messages.append(f"Epoch {epoch}: learning rate lowered to {rate:g}.")

    def _end_round(self, reason: str) -> None:
        self.rounds[-1].ended = reason
        for observer in self.observers:
            observer.on_round_end(self.rounds[-1], self)

    def _no_more_restarts(self, why: str) -> None:
        self.state.finished = why
        self._messages.append(f"No more restarts: {why}.")

    def _metrics(self, logs: Mapping[str, Any]) -> dict[str, float]:
        metrics = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
        if self.monitor not in metrics:
            raise ValueError(
                f"monitor must be a metric in the logs of every epoch. Received: {self.monitor!r}; "
                f"expected one of {sorted(metrics)}, or validation data for a name with 'val_'."
            )
        return metrics

    def _print_messages(self) -> None:
        # Between two epochs, where no progress bar is open.
        if (self.params or {}).get("verbose", 1):
            for message in self._messages:
                print(message, flush=True)
        self._messages.clear()

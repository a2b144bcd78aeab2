"""The life of `PartialRestart` during `fit`: what happens at each call of Keras's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from kerasrestart.network.own_training import has_own_step
from kerasrestart.restart import messages
from kerasrestart.restart.ended_fit import TRAINING_ENDED, EndedFit
from kerasrestart.restart.fit_session import FitSession
from kerasrestart.restart.fit_steps import FitSteps
from kerasrestart.restart.messages import Messages
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.plan import (
    ENDED_BY_ANOTHER,
    Decision,
    RestartPlan,
)
from kerasrestart.restart.records import (
    PendingRestart,
    RestartEvent,
    RestartState,
    Round,
    best_by_round,
    layer_restarts,
)
from kerasrestart.restart.when import RoundProgress
from kerasrestart.scoring.scorer import Scorer


class RestartLifeCycle(keras.callbacks.Callback):
    """Follows a plan of restarts while `fit` trains; the base class of `PartialRestart`.

    Decisions are the plan's, changes of the model the `FitSession`'s. Filters are selected at the
    end of an epoch and restarted when the next begins, so that callbacks that save the model at the
    end of an epoch save the one that its metrics describe.

    Args:
        plan: The plan.
        observers: What follows the restarts.

    Attributes:
        plan, observers: As given.
        state: A `RestartState`: all that changes during training.
        scores: Scores of the last epoch that was scored: by layer, float32 `[filters]`.
        messages: The lines that wait to be printed.
    """

    def __init__(self, plan: RestartPlan, observers: Sequence[RestartObserver]):
        super().__init__()
        self.plan = plan
        self.observers = list(observers)
        self.state = RestartState()
        self.scores: dict[str, np.ndarray] = {}
        self._reader_input_means: dict[str, np.ndarray] = {}
        self._fit: FitSession | None = None
        self.messages = Messages()
        self._resumed: tuple[RestartState, dict[str, np.ndarray]] | None = None
        self._last: EndedFit | None = None
        self._steps: FitSteps | None = None  # where filters are restarted between batches

    def __getstate__(self):
        # A copy keeps the plan and the records; the model and its scored step are the original's.
        return {**vars(self), "_model": None, "_fit": None, "_last": None, "_steps": None}

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
        """What scores the filters, from the start of `fit` or its first batch on."""
        if self._fit is None:
            raise AttributeError("There is no scorer before the start of fit.")
        return self._fit.scorer

    def resume(self, state: RestartState, scores: Mapping[str, np.ndarray] | None = None) -> None:
        """Makes the next `fit` continue from the state at the end of an epoch of another.

        That `fit` needs the model, the optimizer state and the learning rate of that epoch, and
        `initial_epoch` is the epoch after it.

        Args:
            state: The value of `state` then; `RestartState.from_dict` reads it from plain data.
            scores: The value of `scores` then. Defaults to None: none until the next scored epoch.
        """
        self._resumed = state, dict(scores or {})

    def set_model(self, model):
        """Gets the model; as in `fit`, what ended its last training does not end this one."""
        super().set_model(model)
        if getattr(model, "stop_training", False):
            model.stop_training = False

    def on_train_begin(self, logs=None):
        """Finds the filters, and makes the model train with the scored step."""
        if "epochs" not in (self.params or {}):
            raise ValueError(
                "PartialRestart needs to know how many epochs follow: in a loop of your own, it "
                "must be in keras.callbacks.CallbackList([restart], model=model, epochs=EPOCHS). "
                f"Received: params={self.params!r}"
            )
        if self._fit is not None:
            self._fit.forget()
        if self.model.stop_training:
            self.messages.add(
                "No filter will be restarted: model.stop_training is True as training begins; a "
                "loop of your own sets it to False."
            )
        self._fit = FitSession(self.model, self.plan, self.params)
        if self._last is not None and self._last.model is self.model:
            self._fit.coverage = ""  # was said when the first of these fits began
        else:
            self._report_filters()
            self.messages.add(messages.start_line(self.plan))
        if (rate := self._fit.learning_rate) is None:
            self.messages.add("The optimizer has a schedule: restarts do not reset its rate.")
        self.state = RestartState(learning_rate=rate)
        self.scores, self._reader_input_means = {}, {}
        if self.plan.between_batches:
            self._steps = FitSteps(self.plan, self._fit, self.params, self._apply, self.messages)
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
            self._continue_last(epoch)
            if self._steps is not None:
                self._steps.begin_epoch(epoch, self.state)
            if self._fit.was_compiled_again():
                self.state.learning_rate = self._fit.learning_rate
                self._report_filters()
            if self.state.lowers_rate:
                self._lower_learning_rate(epoch)
            if self.state.pending is not None:
                self._drop_or_restart(self.state.pending)
            self._print_messages()
            window = self.plan.scoring.window
            scored = window is None or self.plan.may_restart_within(window, self.state)
            if scored:
                self.state.scored_epoch = epoch
            self._fit.begin_epoch(scored=scored)
            if not self.rounds or self.rounds[-1].ended:
                self.rounds.append(Round(len(self.rounds), first_epoch=epoch))

    def on_train_batch_begin(self, batch, logs=None):
        """Restarts filters where the batches before this one led to it, with `EverySteps`."""
        # Here and not at the end of a batch: for that, Keras would read the logs of every batch.
        if self._steps is not None:
            with self._detaching():
                self._steps.before_batch(self.state)

    def on_epoch_end(self, epoch, logs=None):
        """Records the epoch, and selects the filters to restart where the round is over."""
        with self._detaching():
            metrics = self.plan.metrics(logs)
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
        if self._steps is not None:
            self._steps.end(self.state)
        elif self.plan.when.min_epochs_after_restart:  # else the next fit continues this one
            if self.state.pending is not None:
                self.state.pending = None
                self._no_more_restarts(ENDED_BY_ANOTHER)
            elif self.rounds and not self.events:
                self._explain_no_restart()
        if self.rounds and not self.rounds[-1].ended:
            self._end_round(TRAINING_ENDED)
        for observer in self.observers:
            observer.on_train_end(self)
        if self.events and not self.plan.between_batches:
            self.messages.add(best_by_round(self.rounds, self.monitor))
        self._print_messages()
        if self.rounds:
            self._last = EndedFit(self.model, self.model.optimizer, self.state, self.scores)

    def _explain_no_restart(self) -> None:
        epochs = self.params["epochs"] - self.rounds[0].first_epoch
        was_scored = bool(self.scores) or self.plan.remedy is not None
        if was_scored and messages.is_too_short(self.plan, epochs):
            # Said once: the fits of a loop are all too short.
            line = messages.too_short_line(self.plan, epochs, self.messages.gives_hints)
            self.messages.add_once("too short", line)
            return
        why = messages.no_restart_line(
            self.plan, was_scored, self.state.finished, self.messages.gives_hints
        )
        if why:
            self.messages.add(why)

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

    def _continue_last(self, epoch: int) -> None:
        """Continues the last `fit` where this one begins at the epoch after it."""
        last, self._last = self._last, None
        if self.rounds:
            return
        if last is None or last.model is not self.model:
            if epoch and self.messages.gives_hints:  # as with a model that was saved and loaded
                self.messages.add(messages.no_state_line(epoch))
            return
        if last.next_epoch != epoch and not self.plan.between_batches:
            if self.plan.when.recovery_epochs == 0 and self.messages.gives_hints:
                self.messages.add_once(
                    "begins again", messages.begins_again_line(epoch, last.next_epoch)
                )
            return
        self.state = last.take_state(self.model.optimizer, self.state.learning_rate)
        self.scores = last.scores

    def _record(self, epoch: int, metrics: dict[str, float]) -> None:
        read = self._fit.read(len(self.events)) if self.state.scored_epoch == epoch else None
        if read is not None:  # else, as after an epoch without a batch, the last scores stay
            self._report_filters()
            if not self.scores:
                for name, why in self._fit.scorer.left_out.items():
                    self.messages.add(f"Layer '{name}' is not scored: {why}.")
            self.scores, self._reader_input_means = read
        if self._steps is not None:
            self._steps.end_epoch(self.state)
        self.state.add_epoch(epoch, metrics, self.monitor, self.higher_is_better)
        if self.monitor == "loss" and metrics["loss"] == 0 and has_own_step(self.model):
            self.messages.add_once("zero loss", messages.ZERO_LOSS)
        for observer in self.observers:
            observer.on_epoch_end(epoch, self)

    def _decide(self, epoch: int, metrics: dict[str, float]) -> None:
        if self.state.pending is not None:  # the network trains without its filters
            if not self.plan.when.reaches_target(metrics[self.monitor]):
                return
            self.state.pending = None
        known = self.plan.remedy is not None or (
            self.scores and (self._reader_input_means or not self.plan.reset.compensate_bias)
        )
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
            if (left := self.params["epochs"] - epoch - 1) > 0:
                why = self.state.finished or "the last round is over"
                line = messages.early_end_line(self.plan, why, left, self.messages.gives_hints)
                self.messages.add(line)
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
            initializer=self.plan.recorded_initializer,
            learning_rate=self.state.learning_rate,
            layers=layer_restarts(decision.chosen, self.scores, last),
            metrics_before=metrics,
        )

    def _drop_or_restart(self, pending: PendingRestart) -> None:
        if pending.dropped_epochs >= self.plan.reset.drop_epochs:
            self._restart(pending)
            return
        if not pending.dropped_epochs and self.plan.control is None:
            self.messages.add(messages.drop_line(pending.event, self.plan.reset.drop_epochs))
        self._fit.drop(pending)
        pending.dropped_epochs += 1

    def _restart(self, pending: PendingRestart) -> None:
        event = pending.event
        event.learning_rate = self.state.learning_rate  # lower, if the run was rolled back
        left_out = self._apply(event, pending.reader_input_means)
        self.state.progress = RoundProgress()
        self.messages.add(f"Epoch {event.epoch + 1}: {event.summary()}.")
        for name, why in left_out.items():
            self.messages.add(f"Epoch {event.epoch + 1}: '{name}' is not restarted: {why}.")

    def _apply(self, event: RestartEvent, means: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Restarts filters and notifies the observers; returns what `FitSession` returns."""
        for observer in self.observers:
            observer.on_restart_begin(event, self)
        left_out = self._fit.restart(event, means)
        self.state.pending = None
        self.events.append(event)
        for observer in self.observers:
            observer.on_restart_end(event, self)
        return left_out

    def _lower_learning_rate(self, epoch: int) -> None:
        rate = self._fit.learning_rate * self.plan.when.learning_rate_factor
        self._fit.learning_rate = rate
        self.state.lowers_rate = False
        self.messages.add(f"Epoch {epoch}: learning rate lowered to {rate:g}.")

    def _report_filters(self) -> None:
        if self._fit.coverage:
            self.messages.add_once(self._fit.coverage, f"{self._fit.coverage}.")
            self._fit.coverage = ""
        if left_out := self._fit.left_out:
            self.messages.add(
                f"Left out with outgoing='zero': {', '.join(left_out)} (kerasrestart.describe "
                "gives the reasons)."
            )
            self._fit.left_out = []

    def _end_round(self, reason: str) -> None:
        self.rounds[-1].ended = reason
        for observer in self.observers:
            observer.on_round_end(self.rounds[-1], self)

    def _no_more_restarts(self, why: str) -> None:
        self.state.finished = why
        self.messages.add(messages.no_more_line(why))

    def _print_messages(self) -> None:
        # Between two epochs, where no progress bar is open.
        self.messages.print((self.params or {}).get("verbose", 1))

"""The callback that restarts useless filters while a model trains."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.restart import initializers
from kerasrestart.restart.arguments import check
from kerasrestart.restart.backup import Backup
from kerasrestart.restart.learning_rate import learning_rate_of, set_learning_rate
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.records import (
    PendingRestart,
    RestartEvent,
    RestartState,
    Round,
    best_by_round,
    layer_restarts,
)
from kerasrestart.restart.rule import RestartRule
from kerasrestart.restart.schedule import Decision, RestartSchedule
from kerasrestart.restart.selection import Selection
from kerasrestart.restart.trigger import TriggerState, higher_is_better
from kerasrestart.scoring import criteria
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_function import Scoring, attach, detach, trains_as_keras


class PartialRestart(keras.callbacks.Callback):
    """Re-initialises the filters that do least, each time training has reached a plateau.

    Scores of all filters are taken in the backward pass that training makes anyway, over each
    epoch. When a round of training is over, the filters of lowest score are re-initialised, the
    learning rate goes back to where it began, and a new round starts. The first round is the
    baseline. Restarts end after `max_restarts`, when the same filters are selected as the last
    time, or at the `target`; the plateau that follows ends the training.

    It works on any built Functional or Sequential model as it stands. For the length of `fit` the
    model trains by a step that also scores; afterwards it is what it was, and what is saved is a
    plain Keras model.

    Filters are chosen when an epoch has ended, and restarted when the next begins, so that
    `keras.callbacks.ModelCheckpoint` and `EarlyStopping` keep the model that an epoch's metrics
    tell of, wherever they stand among the callbacks. The learning rate changes then, too.

    Source: Han and Zhang, "Partial Restart of Neural Network", algorithm 1.

    Args:
        initializer: What the filters are initialised with: `"uniform"`, `"he"`, `"xavier"`,
            `"minmax"`, `"distribution"`, `"none"` (the control: the learning rate restarts, no
            filter does), `"slots"` (a second control: the optimizer's memory of the filters
            restarts, their weights stay), or any Keras initializer by name, config or instance.
            Defaults to `"uniform"`.
        criterion: What filters are scored by: a name or function, see
            `kerasrestart.scoring.criteria.get`. Defaults to `"taylor"`.
        fraction: Share of each layer's filters that a restart takes; this and the further rules of
            selection: see `kerasrestart.restart.selection.Selection`. Defaults to 0.1, where there
            is no `threshold`.
        monitor: Metric that tells a plateau, as it stands in the logs of every epoch: one of
            validation needs `fit` with `validation_freq=1`, its default. Defaults to `"val_loss"`.
        patience: Epochs without improvement that make a plateau. Defaults to 5.
        max_restarts: How many restarts at most. Defaults to 3.
        seed: Seed of the new weights. Defaults to 0.
        mode: `"min"`, `"max"` or `"auto"`: whether `monitor` is to fall or to rise. Defaults to
            `"auto"`: from its name.
        min_delta: A change of `monitor` up to this is no improvement. Defaults to 0.
        target: Value of `monitor` at which training ends. Defaults to None.
        round_epochs: Length of a round in epochs, instead of a plateau; `patience` and `min_delta`
            are not used then. Defaults to None: a plateau ends a round.
        learning_rate_drops: How many times in a round the learning rate falls at a plateau before a
            plateau ends the round. Defaults to 0.
        learning_rate_factor: What it is multiplied by at each fall. Defaults to 0.1.
        layers: Which layers are scored and restarted: their names, or a regular expression that a
            whole name matches; `".*"` takes the units of dense layers too. Defaults to None: all
            convolutions. `kerasrestart.describe(model)` shows what that is.
        score_every: One batch in so many is scored, beginning with the first of an epoch; scores
            are means over the examples of these. The others cost what they cost without scores,
            and weights come out the same. With `steps_per_execution`, batches that run as one are
            scored as one. Defaults to 1: all batches.
        score_window: Scores are taken only in epochs after which a restart could come within so
            many epochs, the epoch itself counted: the last of a round of `round_epochs`, or those
            in which a plateau has nearly lasted for its `patience`; and none after the last
            restart. Defaults to None: in all epochs, for the records.
        threshold: Takes the filters whose score is at most this share of the layer's mean, instead
            of a fraction. Defaults to None.
        scope: `"layer"`, or `"global"`: the fraction is one of all layers together. Defaults to
            `"layer"`.
        cap: Largest share of one layer that is taken, with a threshold or `scope="global"`.
            Defaults to None: 0.5 with the latter.
        normalize: `"l2"`, `"mean"` or None: what makes layers comparable, with `scope="global"`.
            Defaults to None.
        min_survivors: How many filters every layer keeps at least. Defaults to 1.
        outgoing: What becomes of the outgoing weights of a restarted filter, `"keep"` or `"zero"`,
            see `restart_filters`. With `"zero"` layers of which the channels are shared are left
            out, and a filter that one restart took is spared by the next `grace_restarts`: having
            no outgoing weights yet, it would score zero and be taken again at once. Defaults to
            `"keep"`.
        grace_restarts: See `outgoing`. Defaults to 1.
        second_moment: What becomes of an adaptive optimizer's second moments for new weights,
            `"zero"` or `"survivors"`, see `restart_filters`. Defaults to `"zero"`.
        reset_norm: Whether a restarted filter's channel of its norm begins anew too. Defaults to
            True.
        compensate_bias: With `outgoing="zero"`: whether the biases of the layers that read
            restarted filters take up what these gave on average over the last epoch, so that only
            the deviation from it is lost. Without a bias, the batch norm right behind takes it up.
            Defaults to False.
        stop_on_repeat: Whether restarts end when the same filters are selected as at the last one,
            as in the paper, or none at all, as a `threshold` may. With the controls `"none"` and
            `"slots"`, which draw no weight anew, the same filters end nothing. With False, a
            restart at which no filter is useless sets the learning rate back alone. To compare with
            a control, pass False and `round_epochs` to both: only then are they sure to train
            equally long. Defaults to True.
        stop_when_done: Whether training ends with the round that follows the last restart. Defaults
            to True.
        recovery_epochs: A restart is left out where fewer epochs than this would remain. Defaults
            to None: `patience`, or `round_epochs` where that is given.
        backup: A file for the state of the restarts, beside `keras.callbacks.BackupAndRestore`,
            which keeps the model: when training was killed and the same `fit` is called again, both
            go on behind the last epoch. Put this callback before the other, so that none is killed
            between the two. The file is removed when training has ended. Defaults to None: no
            file, and a `fit` that goes on begins with a new baseline.
        observers: `RestartObserver`s, told of each round and restart. Defaults to none.
        verbose: 1 prints a line at each restart, 0 prints nothing. Defaults to 1.

    Attributes:
        state: A `RestartState`: all that changes while training goes on.
        events: The restarts made, one `RestartEvent` each.
        rounds: The rounds, one `Round` each; the first is the baseline.
        scores: Scores of the last whole epoch in which they were taken: by layer name, float32
            `[filters]`.

    Raises:
        ValueError: An argument is out of range; at the start of `fit`: the model has no filters, or
            `fraction` selects none or all of a layer, the optimizer's slots are not known, or
            `backup` is of another training; at the end of the first epoch: `monitor` is not in the
            logs.
        TypeError: At the start of `fit`: the model has no graph, or a `train_step` of its own.

    Example:
    ```python
    restart = kerasrestart.PartialRestart(initializer="uniform", fraction=0.1, patience=3)
    model.fit(x, y, validation_split=0.1, epochs=60, callbacks=[restart])
    for event in restart.events:
        print(event.epoch, {name: layer.filters for name, layer in event.layers.items()})
    ```
    """

    def __init__(
        self,
        initializer: Any = "uniform",
        criterion: str | criteria.Criterion | criteria.Saliency = "taylor",
        fraction: float | None = None,
        monitor: str = "val_loss",
        patience: int = 5,
        max_restarts: int = 3,
        seed: int = 0,
        *,
        mode: str = "auto",
        min_delta: float = 0.0,
        target: float | None = None,
        round_epochs: int | None = None,
        learning_rate_drops: int = 0,
        learning_rate_factor: float = 0.1,
        layers: str | Sequence[str] | None = None,
        score_every: int = 1,
        score_window: int | None = None,
        threshold: float | None = None,
        scope: str = "layer",
        cap: float | None = None,
        normalize: str | None = None,
        min_survivors: int = 1,
        outgoing: str = "keep",
        grace_restarts: int = 1,
        second_moment: str = "zero",
        reset_norm: bool = True,
        compensate_bias: bool = False,
        stop_on_repeat: bool = True,
        stop_when_done: bool = True,
        recovery_epochs: int | None = None,
        backup: str | os.PathLike | None = None,
        observers: Sequence[RestartObserver] = (),
        verbose: int = 1,
    ):
        super().__init__()
        check(
            "learning_rate_factor",
            learning_rate_factor,
            0 < learning_rate_factor < 1,
            "between 0 and 1",
        )
        check("score_every", score_every, score_every >= 1, "1 or more")
        if score_window is not None:
            check("score_window", score_window, score_window >= 1, "1 or more")

        self.rule = RestartRule(
            initializer=initializer,
            criterion=criterion,
            selection=Selection(
                fraction, threshold, scope, cap, normalize, min_survivors=min_survivors
            ),
            layers=layers,
            outgoing=outgoing,
            grace_restarts=grace_restarts,
            second_moment=second_moment,
            reset_norm=reset_norm,
            compensate_bias=compensate_bias,
            seed=seed,
        )
        self.schedule = RestartSchedule(
            monitor=monitor,
            higher_is_better=higher_is_better(monitor, mode),
            patience=patience,
            min_delta=min_delta,
            round_epochs=round_epochs,
            learning_rate_drops=learning_rate_drops,
            target=target,
            max_restarts=max_restarts,
            stop_on_repeat=stop_on_repeat and not self.rule.keeps_weights,
            stop_when_done=stop_when_done,
            recovery_epochs=recovery_epochs,
        )
        self.learning_rate_factor = learning_rate_factor
        self.score_every = score_every
        self.score_window = score_window
        self.backup = None if backup is None else Backup(backup)
        self.observers = list(observers)
        self.verbose = verbose
        self.state = RestartState()
        self.scorer: Scorer | None = None
        self.scores: dict[str, np.ndarray] = {}
        self._reader_input_means: dict[str, np.ndarray] = {}
        self._scoring: Scoring | None = None
        self._messages: list[str] = []
        self._resumed: tuple[RestartState, dict[str, np.ndarray]] | None = None

    @property
    def monitor(self) -> str:
        """The metric that tells a plateau, and which epoch of a round is the best."""
        return self.schedule.monitor

    @property
    def higher_is_better(self) -> bool:
        """Whether that metric is to rise."""
        return self.schedule.higher_is_better

    @property
    def events(self) -> list[RestartEvent]:
        """The restarts made."""
        return self.state.events

    @property
    def rounds(self) -> list[Round]:
        """The rounds of training; the first is the baseline."""
        return self.state.rounds

    def check(self, model: keras.Model) -> None:
        """Checks that a model can be restarted as the arguments say; `fit` does so at its start.

        Args:
            model: A compiled model.

        Raises:
            ValueError, TypeError: As `fit` would at its start.
        """
        self._scorer_for(model)

    def resume(self, state: RestartState, scores: Mapping[str, np.ndarray] | None = None) -> None:
        """Makes the next `fit` go on from the state that an epoch of another has ended with.

        That `fit` is to have the model, the optimizer's state and the learning rate of then, and
        `initial_epoch` is to be the epoch after.

        Args:
            state: What `state` was then; `RestartState.from_dict` reads it from plain data.
            scores: What `scores` was then. Defaults to None: none, the next epoch takes them anew.
        """
        self._resumed = state, dict(scores or {})

    def _scorer_for(self, model: keras.Model) -> tuple[Scorer, list[str]]:
        found = self.rule.scorer_for(model)  # builds the optimizer, which then knows its rates
        if learning_rate_of(model.optimizer) is None and self.schedule.learning_rate_drops:
            raise ValueError(
                "learning_rate_drops needs a learning rate that can be set, but the optimizer was "
                "made with a schedule: pass it a number, or learning_rate_drops=0."
            )
        return found

    def on_train_begin(self, logs=None):
        """Finds the filters and puts the scored step under the model."""
        self.scorer, left_out = self._scorer_for(self.model)
        if left_out:
            self._messages.append(
                f"Left out with outgoing='zero': {', '.join(left_out)} (kerasrestart.describe "
                "tells why)."
            )
        if learning_rate_of(self.model.optimizer) is None:
            self._messages.append(
                "The learning rate follows a schedule of the optimizer's: restarts do not set it "
                "back."
            )
        self._scoring = None
        several = self.model.distribute_strategy.num_replicas_in_sync > 1
        # The scored step also weighs the replicas' parts of a batch: not only where it scores.
        if self.scorer.needs_step or (several and trains_as_keras(self.model)):
            self._scoring = attach(self.model, self.scorer, self.score_every)
        self.state = RestartState(learning_rate=learning_rate_of(self.model.optimizer))
        self.scores, self._reader_input_means = {}, {}
        if self.backup:
            self.backup.begin()
        if self._resumed is not None:
            (self.state, self.scores), self._resumed = self._resumed, None
        with self._detaching():
            for observer in self.observers:
                observer.on_train_begin(self)

    @contextlib.contextmanager
    def _detaching(self) -> Iterator[None]:
        """Gives the model its own step back after an error: Keras calls no `on_train_end` then."""
        try:
            yield
        except BaseException:
            detach(self.model)
            raise

    def on_epoch_begin(self, epoch, logs=None):
        """Restarts filters where the last epoch has called for it; begins to score anew."""
        with self._detaching():
            self._begin_epoch(epoch)

    def _begin_epoch(self, epoch: int) -> None:
        if self.backup and epoch and not self.rounds:
            # Only now: the other callback has restored the model, whichever of them came first.
            self.state, self.scores = self.backup.read(epoch - 1, self.model) or (self.state, {})
        if self.state.lowers_rate:
            self._lower_learning_rate(epoch)
        if self.state.pending is not None:
            self._restart(self.state.pending)
        self._print_messages()
        self.scorer.reset()
        scored = self._is_scored()
        if scored:
            self.state.scored_epoch = epoch
        if self._scoring is not None:
            self._scoring.begin_epoch(scored)
        if not self.rounds or self.rounds[-1].ended:
            self.rounds.append(Round(len(self.rounds), first_epoch=epoch))

    def on_epoch_end(self, epoch, logs=None):
        """Follows the metric, and chooses the filters to restart when the round is over."""
        with self._detaching():
            self._follow(epoch, logs)
            if self.backup:
                self.backup.write(epoch, self.model, self.state, self.scores)

    def on_train_end(self, logs=None):
        """Gives the model its own training step back."""
        detach(self.model)
        if self.backup:
            self.backup.remove()
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

    def _is_scored(self) -> bool:
        """Whether the scores of the epoch that begins may be needed."""
        if self.score_window is None:
            return True
        return self.schedule.may_restart_within(self.score_window, self.state)

    def _follow(self, epoch: int, logs: dict[str, Any]) -> None:
        metrics = self._metrics(logs)
        if (rate := learning_rate_of(self.model.optimizer)) is not None:
            # As keras.callbacks.ReduceLROnPlateau does, which may have lowered it already.
            logs.setdefault("learning_rate", rate)
        if self.state.scored_epoch == epoch:
            self._take_scores()
        if self.events:
            self.events[-1].follow(epoch, metrics, self.monitor, self.higher_is_better)
        self.rounds[-1].add(epoch, metrics, self.monitor, self.higher_is_better)
        for observer in self.observers:
            observer.on_epoch_end(epoch, self)

        known = bool(self.scores) and not (
            self.rule.compensate_bias and not self._reader_input_means
        )
        decision = self.schedule.decide(
            self.state,
            metrics[self.monitor],
            epochs_left=None if self.model.stop_training else self.params["epochs"] - epoch - 1,
            scores=self.scores if known else None,
            rule=self.rule,
        )
        self.state.trigger, self.state.lowers_rate = decision.trigger, decision.lowers_rate
        if decision.finished is not None:
            self._no_more_restarts(decision.finished)
        if decision.round_over is not None:
            self._end_round(decision.round_over)
        if decision.ends_training:
            self.model.stop_training = True
        if decision.chosen is not None:
            self._plan_restart(epoch, decision, metrics)

    def _plan_restart(self, epoch: int, decision: Decision, metrics: dict[str, float]) -> None:
        event = RestartEvent(
            restart=len(self.events) + 1,
            epoch=epoch,
            reason=decision.round_over,
            initializer=initializers.describe(self.rule.initializer),
            learning_rate=self.state.learning_rate,
            layers=layer_restarts(
                decision.chosen, self.scores, self.events[-1] if self.events else None
            ),
            metrics_before=metrics,
        )
        # Not at once: callbacks behind this one may save the model by what this epoch came to.
        self.state.pending = PendingRestart(event, self._reader_input_means)

    def _lower_learning_rate(self, epoch: int) -> None:
        rate = learning_rate_of(self.model.optimizer) * self.learning_rate_factor
        self._set_learning_rate(rate)
        self.state.lowers_rate = False
        self._say(epoch - 1, f"learning rate down to {rate:g}")

    def _restart(self, pending: PendingRestart) -> None:
        event = pending.event
        for observer in self.observers:
            observer.on_restart_begin(event, self)
        chosen = {name: np.array(layer.filters) for name, layer in event.layers.items()}
        self.rule.apply(
            self.model, self.scorer.filter_layers, chosen, event.restart, pending.reader_input_means
        )
        event.learning_rate = self.state.learning_rate  # lowered, if the run was rolled back
        self._set_learning_rate(self.state.learning_rate)
        self.state.trigger = TriggerState()
        self.state.pending = None
        self.events.append(event)
        for observer in self.observers:
            observer.on_restart_end(event, self)
        self._say(event.epoch, event.summary())

    def _end_round(self, reason: str) -> None:
        self.rounds[-1].ended = reason
        for observer in self.observers:
            observer.on_round_end(self.rounds[-1], self)

    def _no_more_restarts(self, why: str) -> None:
        self.state.finished = why
        self._messages.append(f"No more restarts: {why}.")

    def _set_learning_rate(self, rate: float | None) -> None:
        if rate is not None:
            set_learning_rate(self.model.optimizer, rate)

    def _take_scores(self) -> None:
        if self.scorer.needs_step and self._scoring.batches and not self.scorer.seen:
            raise ValueError(
                f"No batch was scored: the train_step of {type(self.model).__name__} must make its "
                "forward pass inside record_feature_maps and then call scored_gradients."
            )
        if self.scorer.ready:  # else, as after an epoch of no batch, what was known stays
            self.scores = self.scorer.result(draw=len(self.events))
            self._reader_input_means = self.scorer.reader_input_means()

    def _metrics(self, logs: dict[str, Any]) -> dict[str, float]:
        metrics = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
        if self.monitor not in metrics:
            raise ValueError(
                f"monitor='{self.monitor}' is not among the logs of this training: expected one of "
                f"{sorted(metrics)}, or validation data at each epoch for a name with 'val_'."
            )
        return metrics

    def _say(self, epoch: int, text: str) -> None:
        self._messages.append(f"Epoch {epoch + 1}: {text}.")

    def _print_messages(self) -> None:
        # Between two epochs, where no progress bar is open.
        for message in self._messages if self.verbose else ():
            print(message, flush=True)
        self._messages.clear()

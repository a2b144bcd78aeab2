"""What `PartialRestart` does to a model during one `fit`: scores, restarts, learning rate."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.network.input_specs import has_input_layers, known_inputs
from kerasrestart.network.own_training import has_own_step, runs_eagerly, trains_by_call
from kerasrestart.network.text import listed
from kerasrestart.network.traced_graph import NotTracedError
from kerasrestart.restart.apply import apply_restart
from kerasrestart.restart.batch_counter import BatchCounter
from kerasrestart.restart.dropping import Chosen, HeldWeights, drop_filters
from kerasrestart.restart.learning_rate import learning_rate_of, set_learning_rate
from kerasrestart.restart.optimizers import check_optimizers, warn_without_optimizer
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.prepare import prepare
from kerasrestart.restart.records import PendingRestart, RestartEvent
from kerasrestart.restart.slots import build_applied, build_optimizer, may_be_built
from kerasrestart.scoring import train_function
from kerasrestart.scoring.scorer import Scorer


class FitSession:
    """A model while `fit` trains it with restarts.

    Args:
        model: A compiled model. It trains with a scored step until `detach`.
        plan: The plan of its restarts.
        params: The `params` of the callback: Keras gives one object to all callbacks of a fit.

    Attributes:
        left_out: Names of the layers that cannot be restarted with `outgoing="zero"`.
        coverage: How many filters are watched, as a line; empty until that is known.

    Raises:
        ValueError, TypeError: As `prepare`, or as `kerasrestart.scoring.train_function.attach`;
            another session of the same fit restarts filters of the same layers.
    """

    def __init__(self, model: keras.Model, plan: RestartPlan, params: Any = None):
        self._model, self._plan, self._params = model, plan, params
        self._scorer: Scorer | None = None
        self._data: Any = None
        self._optimizer = model.optimizer
        self._checked: keras.optimizers.Optimizer | None = None  # whose slots are known
        self._trains: list[int] | None = _trainable(model)  # None once the step may be traced
        self._held: HeldWeights | None = None
        self._dropped: Chosen = {}  # the filters whose weights the next batch is to hold
        self._batches = BatchCounter(model)
        self.left_out: list[str] = []
        self.coverage = ""
        self._scoring: train_function.AttachedScorer | None = None
        _sessions.add(self)
        if known_inputs(model) is None or self._needs_batch:
            self._attach(self._prepare)
            return
        try:
            self._prepare()
        except NotTracedError:
            if has_input_layers(model):
                raise
            self._attach(self._prepare)  # the shapes that it was built with do not tell the dtypes
            return
        if self._needs_attaching:
            self._attach(self.scorer)

    @property
    def _needs_batch(self) -> bool:
        """Whether the step or the loss may read what the call does not give, as a batch shows.

        A step that runs eagerly is not traced: its Python code would run once more than without
        scores.
        """
        return not trains_by_call(self._model) and not runs_eagerly(self._model)

    def _prepare(self, data: Any = None) -> Scorer:
        self._data = data
        self._use(*prepare(self._model, self._plan, data))
        build_applied(self._model, self.scorer.filter_layers.graph.updates)
        return self.scorer

    def _use(self, scorer: Scorer, left_out: list[str]) -> None:
        if self._plan.reset.drop_epochs:
            self._release()
            self._held = HeldWeights(self._model, scorer.filter_layers)
        self._scorer, self.left_out = scorer, left_out
        self._check_others()
        self.coverage = scorer.filter_layers.coverage() if scorer.layers else ""

    def _check_others(self) -> None:
        """Raises ValueError where two callbacks of a fit would restart the same filters."""
        for other in tuple(_sessions):
            if other is self or other._params is not self._params or other._scorer is None:
                continue
            both = [name for name in self.scorer.layers if name in other.scorer.layers]
            restart = self._plan.restarts_filters and other._plan.restarts_filters
            if both and restart and other._model is self._model and self._params is not None:
                other.detach()
                self.detach()
                raise ValueError(
                    "Two PartialRestart callbacks of one fit must watch different layers: layers "
                    f"must be set for each. Received: both watch {listed(both)}"
                )

    @property
    def _needs_attaching(self) -> bool:
        several = self._model.distribute_strategy.num_replicas_in_sync > 1
        return bool(
            self.scorer.needs_step
            # The scored step weighs the replicas' parts of a batch, whether or not it scores.
            or (several and not has_own_step(self._model))
            # It shows which optimizers a step of the model's own uses.
            or (self._plan.control != "none" and has_own_step(self._model))
            # What is attached counts the batches.
            or self._plan.between_batches
            # What is attached learns of a fit that is broken off while weights are held.
            or self._held is not None
        )

    def _attach(self, scorer: Scorer | train_function.ScorerMaker) -> None:
        every = self._plan.scoring.every
        self._scoring = train_function.attach(
            self._model, scorer, every, self._release, self._hold_dropped
        )

    @property
    def has_scorer(self) -> bool:
        """Whether there is a `scorer`."""
        return self._scorer is not None

    @property
    def scorer(self) -> Scorer:
        """The `Scorer`; from the first batch on where that shows what is computed."""
        if self._scorer is None:
            raise AttributeError("There is no scorer before the first batch of this model.")
        return self._scorer

    @property
    def learning_rate(self) -> float | None:
        """The learning rate; None where the optimizer has a schedule, or there is none."""
        optimizer = self._model.optimizer
        return None if optimizer is None else learning_rate_of(optimizer)

    @learning_rate.setter
    def learning_rate(self, rate: float | None) -> None:
        if rate is not None:
            set_learning_rate(self._model.optimizer, rate)

    def begin_epoch(self, *, scored: bool) -> None:
        """Discards the scores of the last epoch.

        Args:
            scored: Whether this epoch is scored.
        """
        self._build_optimizer()
        if self._plan.between_batches:
            self._batches.begin_epoch()
        if self._scorer is not None and not self._plan.between_batches:
            self._scorer.reset()
        if self._scoring is not None:
            self._scoring.begin_epoch(scored)

    def set_scoring(self, scored: bool) -> None:
        """Sets whether the next batches are scored."""
        if self._scoring is not None:
            self._scoring.scores = scored

    def new_batches(self, of_epoch: int | None) -> int:
        """How many batches were trained on since the last call, or since the epoch began.

        Args:
            of_epoch: How many batches an epoch has; None where that is not known.
        """
        groups = 0 if self._scoring is None else self._scoring.batches
        return self._batches.new_batches(groups, of_epoch)

    def _build_optimizer(self) -> None:
        """Builds an optimizer that is not: then the step is traced once, not twice.

        Not before all callbacks have seen the start of training, where they may unfreeze layers.
        A step of the model's own may train some of its variables: `_prepare` builds its optimizers.
        """
        optimizer = self._model.optimizer
        if optimizer is None or optimizer is self._checked:
            return
        if not has_own_step(self._model) and may_be_built(optimizer):
            build_optimizer(self._model)
        if optimizer.built:
            check_optimizers(self._model)  # its slots exist only now
            self._checked = optimizer

    def was_compiled_again(self) -> bool:
        """Whether the model was compiled since the last call, perhaps with another optimizer.

        Also whether, before the first epoch, another callback froze or unfroze layers. If other
        layers train since then, those are watched from now on.

        Raises:
            ValueError, TypeError: As `prepare`.
        """
        changed = self._model.optimizer is not self._optimizer
        self._optimizer = self._model.optimizer
        if self._scoring is not None:
            changed = self._scoring.was_rebuilt() or changed
        if self._trains is not None:
            changed = self._trains != _trainable(self._model) or changed
            self._trains = None
        if not changed or self._scorer is None:
            return changed
        scorer, left_out = prepare(self._model, self._plan, self._data)
        if list(scorer.layers) != list(self._scorer.layers):
            if self._scoring is not None:
                self._scoring.detach()
            self._use(scorer, left_out)
            if self._needs_attaching:
                self._attach(scorer)
        return True

    def read(self, draw: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
        """Reads the scores of an epoch.

        Args:
            draw: How many restarts there were: a criterion that draws scores draws others for each.

        Returns:
            By layer, the scores, and the mean inputs of the layers that read them (empty without
            `compensate_bias`); None where no example was scored.

        Raises:
            ValueError: No gradient of the loss reaches any of the filters.
        """
        if self._scorer is None or not self._scorer.ready:
            return None
        return self.scorer.result(draw=draw), self.scorer.reader_input_means()

    def restart(
        self, event: RestartEvent, reader_input_means: Mapping[str, np.ndarray]
    ) -> dict[str, str]:
        """Restarts filters, unless the plan is a control, and resets the learning rate.

        Args:
            event: The restart. Layers that are left out are removed from it.
            reader_input_means: Mean inputs of the layers that read the filters; not used without
                `compensate_bias`.

        Returns:
            By layer, why it is left out: it may have been frozen since training began.
        """
        self._prepare_before_batch()
        found = self.scorer.filter_layers
        if self._held is not None:
            self._held.hold({})
        if event.layers and self._plan.restarts_filters and has_own_step(self._model):
            warn_without_optimizer(self._model)
        left_out = apply_restart(self._model, self._plan, found, event, reader_input_means)
        self.learning_rate = event.learning_rate
        return left_out

    def drop(self, pending: PendingRestart) -> None:
        """Begins an epoch without the filters that a restart is about; a control drops none.

        Args:
            pending: The restart.
        """
        self._prepare_before_batch()
        chosen = {name: layer.filters for name, layer in pending.event.layers.items()}
        if self._plan.control is not None or self._held is None:
            return
        if not pending.dropped_epochs:
            reset = self._plan.reset
            means = pending.reader_input_means if reset.compensate_bias else None
            drop_filters(self._model, chosen, self.scorer.filter_layers, reset, means)
        self._held.hold({})
        self._dropped = chosen

    def _prepare_before_batch(self) -> None:
        """Takes the model's call for a restart of an earlier fit, before the first batch."""
        if self._scorer is None:
            self._prepare()

    def _hold_dropped(self) -> None:
        """Holds the outgoing weights of dropped filters, from the first batch of an epoch on.

        Not sooner: where a callback breaks off the fit before it, nothing would release them.
        """
        if self._held is not None and self._dropped:
            self._held.hold(self._dropped)
            self._dropped = {}

    def forget(self) -> None:
        """Lets another session of the same fit restart filters of the same layers."""
        _sessions.discard(self)

    def detach(self) -> None:
        """Lets the model train with its own step again."""
        self.forget()
        if self._scoring is not None:
            self._scoring.detach()

    def _release(self) -> None:
        if self._held is not None:
            self._held.remove()
            self._held = None


def _trainable(model: keras.Model) -> list[int]:
    return [id(variable) for variable in model.trainable_variables]


_sessions: weakref.WeakSet[FitSession] = weakref.WeakSet()
"""Those that have not ended."""

"""Restarts between batches: what `fit` with `EverySteps` and `RestartController` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kerasrestart.restart.every_steps import EverySteps, StepState
from kerasrestart.restart.plan import DIVERGED, RestartPlan
from kerasrestart.restart.records import LayerRestart, RestartEvent
from kerasrestart.restart.select import Chosen, lowest
from kerasrestart.restart.select_filters import choose
from kerasrestart.scoring.running_scorer import RunningScorer
from kerasrestart.scoring.scorer import Scorer


class StepRestarts:
    """Counts batches, and selects filters between them.

    Between restarts only the host counts: nothing is read from the device.

    Args:
        plan: A plan with `when=EverySteps(...)`.
        scorer: The scorer of the model, as `prepare` makes it for this plan.
        state: Where to start; it is changed in place.

    Attributes:
        scorer, state: As given.
        finished: Why there are no more restarts; None while there may be.
    """

    def __init__(self, plan: RestartPlan, scorer: Scorer, state: StepState):
        assert isinstance(scorer, RunningScorer)
        self.scorer, self.state = scorer, state
        self.finished: str | None = None
        self._plan = plan
        self._selected: Chosen = {}
        state.follow({name: layer.filters for name, layer in scorer.layers.items()})
        if state.running is not None:
            sums, shares = state.running
            if sums.shape == scorer.state()[0].shape:  # else other layers train since then
                scorer.load(sums, shares)

    @property
    def when(self) -> EverySteps:
        """The rule of the plan."""
        assert isinstance(self._plan.when, EverySteps)
        return self._plan.when

    def advance(self, steps: int) -> None:
        """Counts batches."""
        self.state.advance(self.when, steps)

    @property
    def scores_next(self) -> bool:
        """Whether the next batch is scored: with `Scoring(window=)` not all are."""
        window = self._plan.scoring.window
        return window is None or self.state.min_steps_to_restart(self.when) <= window

    def next_restart(self, events: Sequence[RestartEvent], epoch: int) -> RestartEvent | None:
        """Selects the filters to restart now.

        Args:
            events: The restarts so far: a criterion that draws scores draws others for each.
            epoch: The epoch that is running.

        Returns:
            The restart; call `restarted` once it is done. It has no filters where a
            remedy is due. None where there is nothing to restart.

        Raises:
            ValueError: `select` fails, or no layer can be scored.
        """
        if not self._plan.may_restart(len(events)):
            self.finished = f"max_restarts={self._plan.max_restarts} reached"
            return None
        selected = self._select(len(events))
        if selected is None:
            return None
        self._selected = selected[0]
        return self._event(events, epoch, *selected)

    def _select(self, restarts: int) -> tuple[Chosen, dict[str, np.ndarray]] | None:
        """By layer, indices and the scores of all filters."""
        state, when, plan = self.state, self.when, self._plan
        if not state.interval_is_over(when):
            return None
        if plan.remedy is not None:
            return {}, {}
        if not state.is_due(when) or not self.scorer.ready:
            return None
        scores = self.scorer.result(draw=restarts)
        if not all(np.isfinite(of_layer).all() for of_layer in scores.values()):
            self.finished = DIVERGED
            return None
        state.unfollow(state.since.keys() - scores.keys())
        excluded = state.excluded(when)
        if when.replacement_rate is None:
            chosen = choose(plan.select, scores, excluded)
        else:
            chosen = lowest(scores, state.whole(when), excluded)
        return (chosen, scores) if chosen else None

    def restarted(self, event: RestartEvent) -> None:
        """Notes that filters were restarted: their ages and running scores begin again.

        Args:
            event: What `next_restart` returned, without the layers that were left out since.
        """
        restarted = {name: np.array(layer.filters) for name, layer in event.layers.items()}
        for name, filters in restarted.items():
            self.state.since[name][filters] = self.state.step
        if self.when.replacement_rate is not None:
            # Also of layers that were left out: else they would be selected after each batch.
            for name, filters in self._selected.items():
                self.state.due[name] -= len(filters)
        self.scorer.forget(restarted)

    def save(self) -> StepState:
        """Reads the running scores from the device into the state; returns it."""
        self.state.running = self.scorer.state()
        return self.state

    def _event(
        self,
        events: Sequence[RestartEvent],
        epoch: int,
        chosen: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
    ) -> RestartEvent:
        return RestartEvent(
            restart=len(events) + 1,
            epoch=epoch,
            reason=self.when.describe(),
            initializer=self._plan.recorded_initializer,
            learning_rate=None,
            layers={
                name: LayerRestart(
                    filters.tolist(), scores[name][filters].tolist(), of=len(scores[name])
                )
                for name, filters in chosen.items()
            },
            metrics_before={},
            step=self.state.step,
        )

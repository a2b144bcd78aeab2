"""The part of the life cycle that restarts filters between the batches of a `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasrestart.restart import messages
from kerasrestart.restart.every_steps import StepState
from kerasrestart.restart.fit_session import FitSession
from kerasrestart.restart.messages import Messages
from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.records import RestartEvent, RestartState
from kerasrestart.restart.step_restarts import StepRestarts

Apply = Callable[[RestartEvent, Mapping[str, np.ndarray]], dict[str, str]]


class FitSteps:
    """Follows an `EverySteps` plan during one `fit`.

    Args:
        plan: The plan.
        fit: The model in this `fit`.
        params: The `params` of the callback, which say how many batches an epoch has.
        apply: Makes a restart, with the mean inputs of the readers of its filters; returns by
            layer why it is left out.
        lines: Where lines are added that wait to be printed.
    """

    def __init__(
        self,
        plan: RestartPlan,
        fit: FitSession,
        params: Mapping[str, Any],
        apply: Apply,
        lines: Messages,
    ):
        self._plan, self._fit, self._params = plan, fit, params
        self._apply, self._lines = apply, lines
        self._restarts: StepRestarts | None = None  # once the filters are known
        self._epoch = self._events_before = 0  # the epoch, and the restarts before it

    def begin_epoch(self, epoch: int, state: RestartState) -> None:
        """Notes which restarts come before an epoch."""
        self._epoch, self._events_before = epoch, len(state.events)

    def before_batch(self, state: RestartState) -> None:
        """Restarts filters where it is time, and says whether the next batch is scored."""
        steps = self._counted(state)
        if steps is None:
            return
        if state.finished is None:
            event = steps.next_restart(state.events, self._epoch)
            if event is not None:
                left_out = self._apply(event, steps.scorer.reader_input_means())
                steps.restarted(event)
                for name, why in left_out.items():
                    # Said once, not at each restart that follows.
                    line = f"Step {event.step}: '{name}' is not restarted: {why}."
                    self._lines.add_once(f"left out: {name}", line)
            elif steps.finished is not None:
                state.finished = steps.finished
                self._lines.add(messages.no_more_line(steps.finished))
        self._fit.set_scoring(state.finished is None and steps.scores_next)

    def end_epoch(self, state: RestartState) -> None:
        """Reads the running scores into the state, and reports the restarts of the epoch."""
        steps = self._counted(state)
        if steps is not None:
            steps.save()
            of_epoch = state.events[self._events_before :]
            self._lines.add(*messages.step_restart_lines(of_epoch, self._epoch))

    def end(self, state: RestartState) -> None:
        """Explains why there was no restart."""
        if self._restarts is not None and not state.events and state.finished is None:
            self._lines.add(messages.no_step_restart_line(self._restarts))

    def _counted(self, state: RestartState) -> StepRestarts | None:
        """Counts the batches since the last call; None before the first batch of some models."""
        if not self._fit.has_scorer:
            return None
        scorer = self._fit.scorer
        if self._restarts is None or self._restarts.scorer is not scorer:
            if state.steps is None:
                state.steps = StepState()
            self._restarts = StepRestarts(self._plan, scorer, state.steps)
        self._restarts.advance(self._fit.new_batches(self._params.get("steps")))
        return self._restarts

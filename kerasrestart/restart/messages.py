"""The lines that `PartialRestart` prints between epochs, at the start and at the end of `fit`."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kerasrestart.restart.plan import (
    NONE_SELECTED,
    SAME_SELECTED,
    TARGET_REACHED,
    TOO_FEW_EPOCHS,
    RestartPlan,
)
from kerasrestart.restart.records import RestartEvent, by_layer
from kerasrestart.restart.when import OnPlateau, RoundProgress, When

if TYPE_CHECKING:
    from kerasrestart.restart.step_restarts import StepRestarts

WIDTH = 80
"""Messages are wrapped at this column."""

ZERO_LOSS = (
    "The loss is 0 in the logs. Where train_step returns only metrics of the model, Keras logs "
    "their own results: update the metric 'loss' in the step, or return another name beside it."
)


class Messages:
    """Lines for the user, collected while the progress bar of an epoch is open.

    Attributes:
        gives_hints: Whether lines name the arguments that change what they report. Defaults to
            True; False where these arguments are not the user's to set.
    """

    def __init__(self):
        self.gives_hints = True
        self._lines: list[str] = []
        self._said_once: set[str] = set()

    def add(self, *lines: str) -> None:
        """Adds lines to those that `print` shows next."""
        self._lines += lines

    def add_once(self, about: str, line: str) -> None:
        """Adds a line, unless one about the same was added before, perhaps in another `fit`."""
        if about not in self._said_once:
            self._said_once.add(about)
            self.add(line)

    def print(self, verbose: Any) -> None:
        """Prints the lines, with `verbose` as `fit` takes it; 0 drops them."""
        if verbose:
            for line in self._lines:
                print(fit_to_screen(line), flush=True)
        self._lines.clear()


def start_line(plan: RestartPlan) -> str:
    """When filters are restarted."""
    times = ""
    if plan.max_restarts is not None:
        times = f", at most {plan.max_restarts} time{'s' * (plan.max_restarts != 1)}"
    what = "A restart follows"
    if plan.control == "none":
        what = "The learning rate is reset, and no filter restarted,"
    drops = ""
    if (count := plan.when.learning_rate_drops) and isinstance(plan.when, OnPlateau):
        drops = f" and the learning rate was lowered {count} time{'s' * (count != 1)}"
    return f"{what} when {plan.when.describe()}{drops}{times}."


def fit_to_screen(message: str) -> str:
    """A message wrapped at 80 columns in a terminal; as one line where output is redirected."""
    if not sys.stdout.isatty():
        return message
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    return textwrap.fill(message, width, break_long_words=False, break_on_hyphens=False)


def no_restart_line(
    plan: RestartPlan, was_scored: bool, finished: str | None, hints: bool = True
) -> str | None:
    """Why training ended without a restart.

    Args:
        plan: The plan.
        was_scored: Whether any batch was scored.
        finished: Why there were to be no more restarts, which was said already; None if there were.
        hints: Whether to name the argument that changes it. Defaults to True.

    Returns:
        The line; None where nothing is to add.
    """
    if not was_scored:
        return (
            "No filter was restarted: no batch was scored. A loop of your own needs "
            "model.train_on_batch, or a Scorer in its step."
        )
    if finished is not None:
        if not (hints and finished.endswith(TOO_FEW_EPOCHS)):
            return None
        restarts = _setting(plan.when, "recovery_epochs", "N")
        return (
            f"No filter was restarted: {restarts} restarts with N epochs left. A loop of fit calls "
            "needs N=0 and initial_epoch."
        )
    if isinstance(plan.when, OnPlateau):
        anyway = "; when=EveryEpochs(n) restarts anyway" if hints else ""
        return (
            f"No filter was restarted: {plan.when.monitor} still improved within "
            f"patience={plan.when.patience}{anyway}."
        )
    return "No filter was restarted: training ended before the first round did."


def is_too_short(plan: RestartPlan, epochs: int) -> bool:
    """Whether no restart can come in a `fit` of this many epochs."""
    return epochs < _epochs_needed(plan)


def too_short_line(plan: RestartPlan, epochs: int, hints: bool = True) -> str:
    """That a `fit` of this many epochs had no time for a restart."""
    had = f"{epochs} epoch{'s' * (epochs != 1)}"
    line = (
        f"No filter was restarted: fit had {had}, and {type(plan.when).__name__} needs "
        f"{_epochs_needed(plan)}, to end a round and to recover from a restart"
    )
    if not hints:
        return f"{line}."
    setting = _setting(plan.when, "recovery_epochs", "0")
    return f"{line}. Each fit begins again; a loop continues with initial_epoch and {setting}."


def begins_again_line(epoch: int, next_epoch: int) -> str:
    """That a `fit` does not continue the last."""
    return (
        f"This fit begins at epoch {epoch}, so that restarts begin again, too. To continue the "
        f"last fit: initial_epoch={next_epoch}."
    )


def no_state_line(epoch: int) -> str:
    """That a `fit` continues training without the state of earlier restarts."""
    return (
        f"This fit begins at epoch {epoch} without the state of earlier restarts: they begin "
        "again. RestartBackup, or resume(state) before fit, continues them."
    )


def _epochs_needed(plan: RestartPlan) -> int:
    when = plan.when
    least = when.min_epochs_to_end(RoundProgress()) + when.min_epochs_after_restart
    return least + plan.reset.drop_epochs


def _setting(when: When, name: str, value: str) -> str:
    """How an attribute of a rule is set: in the call of its class, else in the class."""
    kind = type(when).__name__
    arguments: tuple[dataclasses.Field, ...] = ()
    if dataclasses.is_dataclass(when):
        arguments = dataclasses.fields(when)
    if any(field.name == name for field in arguments):
        return f"when={kind}(..., {name}={value})"
    return f"{name} = {value} in class {kind}"


def drop_line(event: RestartEvent, epochs: int) -> str:
    """That the network trains without some filters for some epochs."""
    counts = {name: f"{len(layer.filters)}/{layer.count}" for name, layer in event.layers.items()}
    filters = sum(len(layer.filters) for layer in event.layers.values())
    length = f"{epochs} epoch{'s' * (epochs != 1)}"
    what = f"{filters} filters {by_layer(counts)}"
    return f"Epoch {event.epoch + 1}: {event.reason}. Trains {length} without {what}."


def no_more_line(why: str) -> str:
    """That there are no more restarts."""
    return f"No more restarts: {why}."


def no_step_restart_line(steps: StepRestarts) -> str:
    """Why no filter was restarted between batches."""
    state, when = steps.state, steps.when
    count = f"{state.step} batch{'es' * (state.step != 1)}"
    if state.step <= (first := state.first_restart(when)):
        rate = when.replacement_rate
        by = f"steps={when.steps}, maturity={when.min_age}"
        by += "" if rate is None else f", replacement_rate={rate:g}"
        return (
            f"No filter was restarted: {count} passed, and the first restart comes after {first}, "
            f"before the next batch ({by})."
        )
    batches = f"after {count}"
    if when.replacement_rate is not None:
        return f"No filter was restarted: {batches} no layer has a whole filter due."
    return f"No filter was restarted: {batches} none was selected."


def step_restart_lines(events: Sequence[RestartEvent], epoch: int) -> list[str]:
    """The restarts between the batches of an epoch, as one line; none where there were none."""
    if not events:
        return []
    counts: Counter[str] = Counter()
    for event in events:
        counts.update({name: len(of.filters) for name, of in event.layers.items()})
    times = f"{len(events)} restart{'s' * (len(events) != 1)} between batches"
    what = f", {counts.total()} filters {by_layer(counts)}" if counts else ""
    return [f"Epoch {epoch + 1}: {times}{what}."]


def early_end_line(plan: RestartPlan, why: str, epochs_left: int, hints: bool = True) -> str:
    """Why training ends before its last epoch, and with `hints` which argument changes that."""
    change = f"; {_setting(plan.when, 'stop_when_done', 'False')} trains on"
    if why == TARGET_REACHED:
        why, change = f"target={plan.when.target:g} reached", ""
    elif why in (NONE_SELECTED, SAME_SELECTED):
        change = "; stop_on_repeat=False restarts again"
    skipped = f"{epochs_left} epoch{'s' * (epochs_left != 1)}"
    return f"Training ends {skipped} early: {why}{change if hints else ''}."

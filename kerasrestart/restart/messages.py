"""The lines that `PartialRestart` prints at the start and at the end of `fit`."""

from __future__ import annotations

from kerasrestart.restart.plan import RestartPlan
from kerasrestart.restart.when import OnPlateau


def start_line(plan: RestartPlan) -> str:
    """When filters are restarted."""
    times = f"at most {plan.max_restarts} time{'s' * (plan.max_restarts != 1)}"
    return f"A restart follows when {plan.when.describe()}, {times}."


def no_restart_line(plan: RestartPlan) -> str:
    """Why training ended without a restart."""
    if isinstance(plan.when, OnPlateau):
        return (
            f"No filter was restarted: {plan.when.monitor} still improved within "
            f"patience={plan.when.patience}; when=EveryEpochs(n) restarts anyway."
        )
    return "No filter was restarted: training ended before the first round did."


def early_end_line(plan: RestartPlan, why: str, epochs_left: int) -> str:
    """Why training ends before its last epoch, and which argument changes that."""
    change = f"when={type(plan.when).__name__}(..., stop_when_done=False) trains on"
    if why == "target reached":
        change = f"target={plan.when.target:g} is an argument of {type(plan.when).__name__}"
    elif why.startswith(("the same filters", "no filter")):
        change = "stop_on_repeat=False restarts again"
    skipped = f"{epochs_left} epoch{'s' * (epochs_left != 1)}"
    return f"Training ends {skipped} early: {why}; {change}."

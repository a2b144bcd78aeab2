"""Tuning in a study: each arm gets the best of the same values, found on seeds of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.settings import SETTINGS, as_flag
from kerasrestart.experiments.study.grid import PlanError, Values
from kerasrestart.experiments.study.plan import Job
from kerasrestart.experiments.study.results import CellResult, load_cell
from kerasrestart.experiments.study.runner import is_done
from kerasrestart.experiments.study.tables import Table
from kerasrestart.restart.files import write_text

_FAILED = "failed.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One value of one arm.

    Attributes:
        network: The network.
        arm: The arm.
        value: The settings that were tried in words, such as `learning_rate=0.01`.
        settings: By name, these settings.
        scores: By seed what it is chosen by, 0..1; a run that failed has none.
        is_chosen: Whether the arm has this value in the comparison.
    """

    network: str
    arm: str
    value: str
    settings: Values
    scores: Mapping[int, float]
    is_chosen: bool = False

    @property
    def mean(self) -> float:
        """Mean of its scores; NaN without one."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else math.nan


@dataclasses.dataclass(frozen=True)
class Tuning:
    """All trials of a study, and what they lead to.

    Attributes:
        trials: The trials, those of one arm after each other.
        seeds: The seeds of each trial.
        measure: What they are chosen by, in words.
    """

    trials: tuple[Trial, ...]
    seeds: tuple[int, ...]
    measure: str

    @property
    def chosen(self) -> dict[tuple[str, str], Values]:
        """By network and arm, the chosen settings."""
        return {(t.network, t.arm): t.settings for t in self.trials if t.is_chosen}

    def sentence(self) -> str:
        """How values were chosen, for the report."""
        seeds = ", ".join(map(str, self.seeds))
        return (
            "Each arm, the control included, was tried with the same values, on seeds that take no "
            f"part in the comparison ({seeds}). The value of the highest mean is chosen: of "
            f"{self.measure}. A value with a run that failed is not chosen.{self._edge_note()}"
        )

    def _edge_note(self) -> str:
        """Names the arms whose best value is the lowest or highest that was tried."""
        tried: dict[str, set[Any]] = {}
        for trial in self.trials:
            for name, value in trial.settings.items():
                tried.setdefault(name, set()).add(value)
        several = len({network for network, _ in self.chosen}) > 1
        found = [
            f"{f'{arm} of {network}' if several else arm} ({as_flag(name, value)})"
            for (network, arm), values in self.chosen.items()
            for name, value in values.items()
            if SETTINGS[name].type in (int, float) and value in (min(tried[name]), max(tried[name]))
        ]
        return f" At an edge, so that others may be better: {', '.join(found)}." if found else ""

    def table(self) -> Table:
        """A row for each arm, a column for each value."""
        values = list(dict.fromkeys(trial.value for trial in self.trials))
        rows: dict[tuple[str, str], dict[str, str]] = {}
        data: list[dict[str, Any]] = []
        for trial in self.trials:
            text = f"{100 * trial.mean:.2f}" if len(trial.scores) == len(self.seeds) else "failed"
            bold = f"**{text}**" if trial.is_chosen else text
            rows.setdefault((trial.network, trial.arm), {})[trial.value] = bold
            mean = 100 * trial.mean if trial.scores else None
            place = {"model": trial.network, "arm": trial.arm, "value": trial.value}
            data.append({**place, "n": len(trial.scores), "mean": mean, "chosen": trial.is_chosen})
        texts = [(*place, *(of.get(value, "") for value in values)) for place, of in rows.items()]
        return Table("tuning", "Tuning", ("model", "arm", *values), texts, 2, data)


def find_values(
    jobs: Sequence[Job], folder: pathlib.Path, failed: Mapping[str, str] | None
) -> Tuning:
    """Chooses a value for each arm from the finished runs of the tuning.

    Args:
        jobs: The jobs of the tuning: arms by swept values.
        folder: Its folder.
        failed: The jobs that failed just now, which is written down; None: what was written then.

    Returns:
        The trials, and the choices.

    Raises:
        PlanError: Runs are missing that have not failed, or an arm has no value without a failure.
    """
    path = folder / _FAILED
    if failed is None:
        failed = json.loads(path.read_text()) if path.exists() else {}
    else:
        write_text(path, json.dumps(dict(failed), indent=1) + "\n")
    settings: dict[tuple[str, str, str], Values] = {}
    results: dict[tuple[str, str, str], list[CellResult]] = {}
    missing = []
    for job in jobs:
        if (cell := job.cell) is None:
            continue
        place = cell.model, cell.arm, cell.variation
        settings[place] = job.swept
        trial = results.setdefault(place, [])
        found = load_cell(folder / job.name, cell) if is_done(job, folder) else None
        if found is not None:
            trial.append(found)
        elif job.name not in failed:
            missing.append(job.name)
    if missing:
        raise PlanError(
            f"The tuning in {folder} must have ended: the command without --collect makes the runs "
            f"that are missing. Received: {len(missing)} missing runs, such as {missing[0]}"
        )
    seeds = tuple(dict.fromkeys(job.cell.seed for job in jobs if job.cell))
    trials = [
        Trial(*place, settings[place], {result.cell.seed: result.tuning_score for result in of})
        for place, of in results.items()
    ]
    every = [result for of in results.values() for result in of]
    measures = "; ".join(dict.fromkeys(result.tuning_measure for result in every))
    return Tuning(tuple(_with_choices(trials, len(seeds))), seeds, measures)


def _with_choices(trials: Sequence[Trial], seeds: int) -> list[Trial]:
    best: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        if len(trial.scores) == seeds and math.isfinite(trial.mean):
            place = trial.network, trial.arm
            if place not in best or trial.mean > best[place].mean:  # the first of equal ones
                best[place] = trial
    for trial in trials:
        if (trial.network, trial.arm) not in best:
            raise PlanError(
                f"Arm {trial.arm!r} of {trial.network!r} failed with each value of --tune: one "
                f"must be such that it trains. Received: {trial.value} and others"
            )
    return [dataclasses.replace(trial, is_chosen=trial in best.values()) for trial in trials]

"""A study as its flags describe it: the runs of its tuning, and those of the comparison."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.study.grid import (
    PlanError,
    Values,
    arm_settings,
    network_settings,
)
from kerasrestart.experiments.study.plan import Job, make_plan
from kerasrestart.experiments.study.sweep import parse_sweep

TUNING = "tuning"


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A study; its arguments are those of `make_plan`.

    Attributes:
        folder: The study's folder.
        base: Settings of all runs, by name.
        networks, arms, seeds, sweep, outcome: As in `make_plan`.
        tune: Settings to tune, as `parse_sweep` takes them; empty without tuning.
        tune_seeds: The seeds of the tuning.
        pairs: Arms to compare with each other, beside the control.
    """

    folder: pathlib.Path
    base: Mapping[str, Any]
    networks: Sequence[str]
    arms: Sequence[str]
    seeds: Sequence[int]
    sweep: Sequence[str] = ()
    tune: Sequence[str] = ()
    tune_seeds: Sequence[int] = ()
    outcome: str = "test"
    pairs: Sequence[tuple[str, str]] = ()

    @property
    def tuning_folder(self) -> pathlib.Path:
        """The folder of the runs of the tuning."""
        return self.folder / TUNING

    @property
    def tuning_jobs(self) -> list[Job]:
        """The runs of the tuning; none without it."""
        if not self.tune:
            return []
        parse_sweep(self.tune, "tune")
        return make_plan(
            self.base,
            networks=self.networks,
            arms=self.arms,
            seeds=self.tune_seeds,
            sweep=self.tune,
            outcome=self.outcome,
            logdir=str(self.tuning_folder),
        )

    def jobs(self, tuned: Mapping[tuple[str, str], Values]) -> list[Job]:
        """The runs of the comparison.

        Args:
            tuned: By network and arm, the settings found by tuning.
        """
        return make_plan(
            self.base,
            networks=self.networks,
            arms=self.arms,
            seeds=self.seeds,
            sweep=self.sweep,
            tuned=tuned,
            outcome=self.outcome,
            logdir=str(self.folder),
        )

    def check(self) -> None:
        """Checks the study before any work.

        Raises:
            PlanError: As `make_plan`; or what is tuned is also swept or set, seeds of the tuning
                take part in the comparison, or an arm to compare is not one of the study.
        """
        if self.tune:
            self._check_tuning()
        arms = list(dict.fromkeys(job.cell.arm for job in self.jobs({}) if job.cell))
        for name in (name for pair in self.pairs for name in pair):
            if name not in arms:
                raise PlanError(
                    f"--pair must be of two arms of the study, which are {', '.join(arms)}. "
                    f"Received: {name!r}"
                )

    def _check_tuning(self) -> None:
        jobs = self.tuning_jobs
        if self.sweep:
            raise PlanError("--sweep and --tune must not be given together. Received: both")
        if common := sorted(set(self.seeds) & set(self.tune_seeds)):
            raise PlanError(
                "--tune_seeds must take no part in the comparison. Received: "
                f"{', '.join(map(str, common))} in --seeds too"
            )
        tuned = {text.partition("=")[0] for text in self.tune}
        of_networks = [network_settings(network)[1] for network in self.networks]
        criterion = jobs[0].settings.criterion
        of_arms = [arm_settings(arm, criterion)[1] for arm in self.arms]
        for values in (self.base, *of_networks, *of_arms):
            if both := sorted(tuned & values.keys()):
                raise PlanError(
                    f"--{both[0]} is tuned and must have no value. Received: a value for it, "
                    "and --tune"
                )

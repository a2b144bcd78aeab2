"""What a study runs: for each network and seed a baseline, and the arms that continue it."""

from __future__ import annotations

import dataclasses
import graphlib
import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerasrestart.experiments.effects import NEEDS, without_effect
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import AFTER_BASELINE, SETTINGS, RunSettings, is_plain_name
from kerasrestart.experiments.sources import references_in, source_hashes
from kerasrestart.experiments.study.grid import (
    MAX_RUNS,
    SET_BY_THE_STUDY,
    PlanError,
    Values,
    arm_settings,
    network_settings,
    refuse,
)
from kerasrestart.experiments.study.published import BASELINE
from kerasrestart.experiments.study.results import Cell
from kerasrestart.experiments.study.sweep import Variation, parse_sweep
from kerasrestart.restart.initializer_names import CONTROLS

CONTROL = "none"
# Arms are compared at equal budget: all rounds are equally long, and all restarts are made.
_EQUAL_BUDGET = {name: s.fixed_in_study for name, s in SETTINGS.items() if s.is_fixed_in_study}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        name: Its name, which is also the name of its folder.
        settings: Its settings.
        needs: Names of the jobs that come before it: that whose baseline it continues, and that
            whose counts it matches; none for a baseline.
        cell: Its place in the report; None for a baseline.
        swept: By name, the values of its cell's variation.
    """

    name: str
    settings: RunSettings
    needs: tuple[str, ...] = ()
    cell: Cell | None = None
    swept: Values = dataclasses.field(default_factory=dict)

    def command(self, logdir: str) -> str:
        """The command line of this run, for a shell."""
        return shlex.join(["python", *self.command_arguments(logdir)])

    def command_arguments(self, logdir: str) -> list[str]:
        """The same as a list of words, without the interpreter."""
        place = [f"--logdir={logdir}", f"--run_name={self.name}", "--nohparams"]
        return ["-m", "kerasrestart.main", *self.settings.to_flags(), *place]


def make_plan(
    base: Mapping[str, Any],
    *,
    networks: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    sweep: Sequence[str] = (),
    tuned: Mapping[tuple[str, str], Values] | None = None,
    outcome: str = "test",
    logdir: str,
) -> list[Job]:
    """Lists the runs of a study, those of the first seed first, each baseline before its arms.

    Example:
    ```python
    jobs = make_plan(
        {"dataset": "shapes"}, networks=["mininet"], arms=["uniform"], seeds=[0], logdir="st"
    )
    [job.name for job in jobs]  # ["mininet-baseline-s0", "mininet-none-s0", "mininet-uniform-s0"]
    ```

    Args:
        base: Settings of all runs, by name.
        networks: `NAME` of a model, or `NAME:flag=value,flag=value`.
        arms: As `arm_settings` takes them; the control `none` is added if it is missing.
        seeds: The seeds.
        sweep: As `parse_sweep` takes it.
        tuned: By network and arm, settings found by tuning. Defaults to None: none.
        outcome: What the runs are compared by, see `Cell`. Defaults to `"test"`.
        logdir: The study's folder.

    Returns:
        The jobs.

    Raises:
        PlanError: A name is unknown or comes twice, a value is wrong or has no effect in any of the
            runs it is given for, the arms would not train equally long, or there are more than
            `MAX_RUNS` runs.
        SettingError: Code that a setting names does not exist; it is not imported here.
    """
    refuse("--{name}", base, {**SET_BY_THE_STUDY, "matched_run": "--arm=NAME:matched_run=ARM"})
    arms = [CONTROL, *(arm for arm in arms if arm != CONTROL)]
    variations = parse_sweep(sweep)
    if (runs := len(seeds) * len(networks) * len(variations) * len(arms)) > MAX_RUNS:
        raise PlanError(
            f"A study must have at most {MAX_RUNS} runs. Received: {len(networks)} networks x "
            f"{len(arms)} arms x {len(seeds)} seeds x {len(variations)} values of --sweep = {runs}"
        )
    plan, effects = _Plan(logdir), _Effects()
    for seed, network, variation in itertools.product(seeds, networks, variations):
        label, own = network_settings(network)
        common = {**_EQUAL_BUDGET, **base, **own, **variation.values, "seed": seed}
        usual = _settings(common)
        for arm in arms:
            arm_label, changes = arm_settings(arm, usual.criterion)
            found = (tuned or {}).get((label, arm_label), {})
            values = {**common, **changes, **found}
            settings = _settings(values)
            effects.add("", base, values)
            effects.add(network, own, values)
            effects.add(f"sweep {variation.label()}", variation.values, values)
            effects.add(arm, changes, values)
            _check_budget(settings, usual)
            cell = Cell(label, arm_label, seed, variation.label(), outcome)
            plan.add(cell, settings, usual, variation)
    effects.check()
    plan.check_matches()
    _check_code(plan.jobs.values())
    return list(plan.jobs.values())


def in_order_of_needs(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after those that it needs: first all that need none."""
    by_name = {job.name: job for job in jobs}
    needs = {job.name: job.needs for job in jobs}
    return [by_name[name] for name in graphlib.TopologicalSorter(needs).static_order()]


class _Plan:
    """The jobs so far, by name; arms whose first rounds are equal share a baseline."""

    def __init__(self, logdir: str):
        self.jobs: dict[str, Job] = {}
        self._logdir = logdir
        self._baselines: dict[tuple[Any, ...], Job] = {}

    def add(
        self, cell: Cell, settings: RunSettings, usual: RunSettings, variation: Variation
    ) -> None:
        """Adds an arm, and its baseline if that is new."""
        if not is_plain_name(cell.name):
            raise PlanError(
                "Runs are named after their network, arm and sweep: these must be of letters, "
                f"digits and _.=+-. Received: {cell.name!r}"
            )
        if cell.name in self.jobs:
            raise PlanError(
                "Each network, arm and sweep must have a name of its own, as runs are named after "
                f"these. Received: {cell.name!r} twice"
            )
        baseline = self._baseline(cell, settings, usual, variation).name
        needs = [baseline]
        settings = dataclasses.replace(settings, baseline=f"{self._logdir}/{baseline}")
        if settings.matched_run is not None:
            matched = dataclasses.replace(cell, arm=settings.matched_run).name
            needs.append(matched)
            settings = dataclasses.replace(settings, matched_run=f"{self._logdir}/{matched}")
        self.jobs[cell.name] = Job(cell.name, settings, tuple(needs), cell, variation.values)

    def check_matches(self) -> None:
        """Refuses arms that match one that does not exist or restarts no filters, or each other."""
        for job in self.jobs.values():
            for name in job.needs[1:]:
                matched = self.jobs.get(name)
                if matched is None or matched.settings.init in CONTROLS or name == job.name:
                    arms = {
                        other.cell.arm
                        for other in self.jobs.values()
                        if other.cell and other.settings.init not in CONTROLS
                    }
                    raise PlanError(
                        "--matched_run in an arm must be another arm that restarts filters, one of "
                        f"{sorted(arms - {job.cell.arm if job.cell else ''})}. "
                        f"Received: run {name!r} for {job.name!r}"
                    )
        try:
            graphlib.TopologicalSorter(
                {job.name: job.needs for job in self.jobs.values()}
            ).prepare()
        except graphlib.CycleError as error:
            raise PlanError(
                "--matched_run must not lead back to the same arm: leave it out of one of them. "
                f"Received: {' -> '.join(error.args[1])}"
            ) from None

    def _baseline(
        self, cell: Cell, arm: RunSettings, usual: RunSettings, variation: Variation
    ) -> Job:
        first = {name: of for name, of in arm.to_dict().items() if name not in AFTER_BASELINE}
        key = tuple(first.values())
        if key not in self._baselines:
            values = {**usual.to_dict(), **first, "init": CONTROL, "max_restarts": 0}
            settings = _settings(values)
            job = Job(self._baseline_name(cell, variation), settings)
            self._baselines[key] = self.jobs[job.name] = job
        return self._baselines[key]

    def _baseline_name(self, cell: Cell, variation: Variation) -> str:
        # A sweep over which the baseline is shared is not part of its name.
        swept = variation.label(without=AFTER_BASELINE)
        for number in itertools.count(1):
            # An arm with another first round has a baseline of its own.
            word = f"{BASELINE}{number if number > 1 else ''}"
            name = "-".join(filter(None, (cell.model, word, swept, f"s{cell.seed}")))
            if name not in self.jobs:
                return name
        raise AssertionError  # count has no end


def _check_code(jobs: Iterable[Job]) -> None:
    """Finds the code of all jobs, each once."""
    found = {}
    for job in jobs:
        for name, texts in references_in(job.settings.to_dict()).items():
            found.update({(name, text): {name: text} for text in texts})
    for values in found.values():
        source_hashes(values)


def _check_budget(arm: RunSettings, usual: RunSettings) -> None:
    """Refuses arms that may not train as long as the control."""
    for name, value in _EQUAL_BUDGET.items():
        if (received := getattr(arm, name)) != value:
            needed = f"no --{name}" if value is None else SETTINGS[name].as_flag(value)
            raise PlanError(
                f"The arms of a study must train equally long, with {needed}. Received: "
                f"{SETTINGS[name].as_flag(received)}"
            )
    if _epochs(arm) != _epochs(usual):
        raise PlanError(
            "The arms of a study must train equally long: --round_epochs x (--max_restarts + 1) "
            f"epochs. Received: {_epochs(arm)} epochs against {_epochs(usual)}"
        )
    if arm.max_restarts == 0:
        raise PlanError(
            "A study compares restarts: --max_restarts must be 1 or more. Received: "
            "--max_restarts=0"
        )
    if arm.epochs < _epochs(arm):
        raise PlanError(
            f"A study makes all of its restarts: --epochs must be {_epochs(arm)} or more for "
            f"--round_epochs={arm.round_epochs} --max_restarts={arm.max_restarts}. Received: "
            f"--epochs={arm.epochs}"
        )


def _epochs(of: RunSettings) -> int:
    return of.round_epochs * (of.max_restarts + 1)


class _Effects:
    """Which of the given settings have an effect, in some of the runs that they are given for."""

    def __init__(self):
        self._errors: dict[tuple[str, str], SettingError | None] = {}

    def add(self, source: str, given: Mapping[str, Any], values: Values) -> None:
        """Adds the settings that a network, an arm or all runs were given, and those of a run."""
        unused = without_effect(values, SETTINGS)
        for name in given:
            if values[name] == given[name] and name not in unused:
                self._errors[source, name] = None
            else:
                self._errors.setdefault((source, name), unused.get(name))

    def check(self) -> None:
        """Refuses settings that have no effect in any run."""
        for (_, name), error in self._errors.items():
            if error is None:
                continue
            if all(SETTINGS[need.name].is_fixed_in_study for need in NEEDS[name]):
                needs = " or ".join(need.words for need in NEEDS[name])
                raise PlanError(
                    f"--{name} has no effect in a study, whose runs train equally long: it "
                    f"needs {needs}. Leave it out"
                )
            raise PlanError(str(error))


def _settings(values: Values) -> RunSettings:
    # An arm may change what a setting of all arms needs, as one with another optimizer does.
    unused = without_effect(values, SETTINGS)
    values = {name: value for name, value in values.items() if name not in unused}
    try:
        return RunSettings(**values)
    except SettingError as error:
        words = " ".join(
            SETTINGS[name].as_flag(value) for name, value in values.items() if value is not None
        )
        raise PlanError(f"In the run '{words}': {error}") from error

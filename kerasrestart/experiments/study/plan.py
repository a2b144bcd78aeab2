"""What a study runs: for each network and seed one baseline, and the arms that go on from it."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from kerasrestart.experiments import settings
from kerasrestart.experiments.run.branching import AFTER_BASELINE
from kerasrestart.experiments.run_flags import parse_settings
from kerasrestart.experiments.study.results import Cell
from kerasrestart.restart import names as restart_names

BASELINE = "baseline"
CONTROL = "none"
# Arms are compared at equal budget: all rounds are equally long, and all restarts are made.
_EQUAL_BUDGET = ("--trigger=epochs", "--nostop_on_repeat")
SET_BY_THE_STUDY = ("model", "seed", "baseline")


class PlanError(ValueError):
    """A study that cannot be made so."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        name: Its name, and that of its folder.
        arguments: The flags of its command line, but for where it is written.
        settings: What they come to.
        needs: The name of the job whose baseline it goes on from; None for a baseline.
        cell: What it is in the report; None for a baseline.
    """

    name: str
    arguments: tuple[str, ...]
    settings: settings.RunSettings
    needs: str | None = None
    cell: Cell | None = None

    def command(self, logdir: str) -> str:
        """The command line that makes this run, for a shell."""
        return shlex.join(["python", *self.command_arguments(logdir)])

    def command_arguments(self, logdir: str) -> list[str]:
        """The same without the interpreter, word by word."""
        place = [f"--logdir={logdir}", f"--run_name={self.name}"]
        return ["-m", "kerasrestart.main", *self.arguments, *place]


def arm_arguments(arm: str, criterion: str = "taylor") -> tuple[str, tuple[str, ...]]:
    """What an arm is called, and the flags that make it.

    Args:
        arm: The name of an initializer; `random` (filters drawn by lot) or `reversed` (the most
            useful filters), with the study's own `--init`; or `NAME:flag=value,flag=value`.
        criterion: What `reversed` reverses. Defaults to `"taylor"`.

    Raises:
        PlanError: It is none of these.
    """
    if ":" in arm:
        name, arguments = named_arguments(arm)
        return name, arguments
    if arm == "random":
        return arm, ("--criterion=random",)
    if arm == "reversed":
        return arm, (f"--criterion={restart_names.REVERSED}{criterion}",)
    if arm in restart_names.INITIALIZERS:
        return arm, (f"--init={arm}",)
    raise PlanError(
        f"Unknown arm {arm!r}: expected an initializer, one of {', '.join(restart_names.INITIALIZERS)}; or "
        "random, reversed, or NAME:flag=value,flag=value."
    )


def named_arguments(text: str) -> tuple[str, tuple[str, ...]]:
    """Splits `NAME:flag=value,flag=value` into the name and the flags.

    Raises:
        PlanError: It is of another form.
    """
    name, _, rest = text.partition(":")
    parts = [part for part in rest.split(",") if part]
    if not re.fullmatch(r"[A-Za-z0-9_.+]+", name):
        raise PlanError(f"A name of letters, digits and _.+ was expected. Received: {name!r}")
    return name, tuple(f"--{part}" for part in parts)


def parse_seeds(text: str) -> list[int]:
    """Reads seeds such as `0-9` or `0,1,5-7`.

    Raises:
        PlanError: It is of another form, or a seed comes twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise PlanError(f"seeds must be such as 0-9 or 0,1,5-7. Received: {text!r}")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(seeds)) < len(seeds):
        raise PlanError(f"seeds must be different from each other. Received: {text!r}")
    return seeds


def parse_sweep(texts: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Reads sweeps such as `fraction=0.1,0.2` into named combinations of flags.

    Args:
        texts: One for each flag that is swept; several are crossed.

    Returns:
        For each combination its name, such as `fraction=0.1`, and its flags.

    Raises:
        PlanError: One is of another form.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        flag, _, values = text.partition("=")
        if not flag or not all(values.split(",")):
            raise PlanError(f"sweep must be such as fraction=0.05,0.1. Received: {text!r}")
        if flag in axes:
            raise PlanError(f"'{flag}' is swept twice: expected all its values in one --sweep.")
        axes[flag] = [f"{flag}={value}" for value in values.split(",")]
        _refuse("sweep", axes[flag], (*SET_BY_THE_STUDY, "init"))
    return [("+".join(parts), tuple(f"--{part}" for part in parts)) for parts in _crossed(axes)]


def _crossed(axes: dict[str, list[str]]) -> list[tuple[str, ...]]:
    return list(itertools.product(*axes.values()))


def _refuse(what: str, parts: Sequence[str], names: Sequence[str]) -> None:
    """Refuses flags that the study would override, or that would break its pairs."""
    for part in parts:
        if (name := part.lstrip("-").partition("=")[0]) in names:
            raise PlanError(
                f"--{what} cannot set {name}: models come from --network, seeds from --seeds, "
                f"initializers from --arms, and baselines are shared. Received: {part}"
            )


def make_plan(
    base: Sequence[str],
    *,
    networks: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    sweep: Sequence[str] = (),
    logdir: str,
) -> list[Job]:
    """Lists the runs of a study, those of the first seed first, each baseline before its arms.

    Args:
        base: Flags that all runs have.
        networks: `NAME` of a model, or `NAME:flag=value,flag=value`.
        arms: As `arm_arguments` takes them; the control `none` is added where it is missing.
        seeds: The seeds.
        sweep: As `parse_sweep` takes it.
        logdir: The study's folder.

    Returns:
        The jobs.

    Raises:
        PlanError: A name is not known or comes twice, or a flag's value is wrong, or the arms would
            not train equally long.
    """
    arms = [CONTROL, *(arm for arm in arms if arm != CONTROL)]
    jobs: dict[str, Job] = {}
    for seed, network, (variation, swept) in itertools.product(seeds, networks, parse_sweep(sweep)):
        label, own = named_arguments(network)
        own = own if ":" in network else (f"--model={network}",)
        _refuse("network", own, ("seed", "baseline"))
        common = (*_EQUAL_BUDGET, *base, *own, *swept, f"--seed={seed}")
        usual = _settings(common)
        for arm in arms:
            arm_label, arm_flags = arm_arguments(arm, usual.criterion)
            _refuse("arm", arm_flags, SET_BY_THE_STUDY)
            arguments = (*common, *arm_flags)
            chosen = _settings(arguments)
            _check_budget(chosen, usual)
            baseline = _baseline(jobs, common, chosen, label, variation, seed)
            cell = Cell(label, arm_label, seed, variation)
            name = cell.name
            if not settings.is_plain_name(name):
                raise PlanError(
                    "Runs are named by what they are made with: expected letters, digits and "
                    f"_.=+- in networks, arms and sweeps. Received: {name!r}"
                )
            if name in jobs:
                raise PlanError(f"'{name}' comes twice: networks, arms and sweeps need own names.")
            where = f"--baseline={logdir}/{baseline.name}"
            jobs[name] = Job(
                name,
                (*arguments, where),
                dataclasses.replace(chosen, baseline=f"{logdir}/{baseline.name}"),
                baseline.name,
                cell,
            )
    return list(jobs.values())


def _check_budget(arm: settings.RunSettings, usual: settings.RunSettings) -> None:
    """Refuses arms that may not train as long as the control."""
    wrong = {
        f"--trigger={arm.trigger}": arm.trigger != "epochs",
        "--stop_on_repeat": arm.stop_on_repeat,
        f"--target={arm.target}": arm.target is not None,
        f"{_epochs(arm)} epochs against {_epochs(usual)}": _epochs(arm) != _epochs(usual),
    }
    for received, is_wrong in wrong.items():
        if is_wrong:
            raise PlanError(
                "The arms of a study must train equally long: expected --trigger=epochs, "
                "--nostop_on_repeat, no --target and equally many epochs. Received: " + received
            )
    if arm.max_restarts == 0:
        raise PlanError(
            "A study compares what comes after the baseline: expected --max_restarts of 1 or more. "
            "Received: --max_restarts=0"
        )
    if arm.epochs < _epochs(arm):
        raise PlanError(
            f"A study makes all of its restarts: expected --epochs={_epochs(arm)} or more for "
            f"--round_epochs={arm.round_epochs} --max_restarts={arm.max_restarts}. Received: "
            f"--epochs={arm.epochs}"
        )


def _epochs(of: settings.RunSettings) -> int:
    return of.round_epochs * (of.max_restarts + 1)


def _baseline(
    jobs: dict[str, Job],
    common: Sequence[str],
    arm: settings.RunSettings,
    label: str,
    variation: str,
    seed: int,
) -> Job:
    """The baseline that an arm goes on from; it is added where no other arm has the same."""
    free: dict[str, Any] = dict.fromkeys(AFTER_BASELINE)
    for job in jobs.values():
        if job.needs is None and dataclasses.replace(job.settings, **free) == dataclasses.replace(
            arm, **free
        ):
            return job
    first = (*common, *_differences(common, arm), f"--init={CONTROL}", "--max_restarts=0")
    parts = [p for p in variation.split("+") if p.partition("=")[0] not in AFTER_BASELINE]
    variation = "+".join(parts)  # what it is shared over is no part of its name
    name = "-".join(filter(None, (label, BASELINE, variation, f"s{seed}")))
    number = 2
    while name in jobs:  # an arm that trains in another way has a baseline of its own
        name = "-".join(filter(None, (label, f"{BASELINE}{number}", variation, f"s{seed}")))
        number += 1
    jobs[name] = Job(name, first, _settings(first))
    return jobs[name]


def _differences(common: Sequence[str], arm: settings.RunSettings) -> list[str]:
    """The flags by which an arm's first round differs from that of the study."""
    usual = _settings(common).to_dict()
    return [
        settings.as_flag(name, value)
        for name, value in arm.to_dict().items()
        if name not in AFTER_BASELINE and value is not None and usual[name] != value
    ]


def _settings(arguments: Sequence[str]) -> settings.RunSettings:
    try:
        return parse_settings(arguments)
    except flags.Error as error:
        raise PlanError(f"In the run '{' '.join(arguments)}': {error}") from error

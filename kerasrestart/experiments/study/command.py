"""The command line of a study: reads the flags, plans the runs and starts them."""

from __future__ import annotations

import re
import shlex
from typing import NoReturn

from kerasrestart.experiments.command_line import Parsed, Program
from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.run.command import PLACE
from kerasrestart.experiments.setting import Setting
from kerasrestart.experiments.settings import SETTINGS, is_plain_name
from kerasrestart.experiments.startup import choose_backend
from kerasrestart.experiments.study.grid import (
    MAX_RUNS,
    PlanError,
    of_size,
    parse_pair,
    parse_seeds,
)
from kerasrestart.experiments.study.plan import in_order_of_needs
from kerasrestart.experiments.study.published import PUBLISHED
from kerasrestart.experiments.study.results import OUTCOMES
from kerasrestart.experiments.study.study_plan import StudyPlan

TEXT = """
Compares ways to restart over several seeds and writes the report.

  python -m kerasrestart.study --flagfile=flags/small_data.flags

All runs of a seed share a baseline, train equally long and make all restarts.
"""
STUDY = {
    setting.name: setting
    for setting in (
        Setting(
            "study_name",
            str,
            None,
            "study",
            "Name of this study's folder in --logdir. Needed.",
            valid=is_plain_name,
            expected="a plain name, such as table2",
        ),
        Setting("title", str, None, "study", "Title of the report. Default: made from its name."),
        Setting(
            "network",
            list,
            ["mininet"],
            "study",
            "A network: the name of a model, your own as MODULE:FUNCTION, or "
            "NAME:flag=value,flag=value, as in NAME:model=MODULE:FUNCTION,augment=true. "
            "NAME@SIZE:flag=value is for one --size. Repeat the flag for several.",
            repeated=True,
        ),
        Setting(
            "size",
            str,
            None,
            "study",
            "Which networks run, of those given as NAME@SIZE. Needed where there are such.",
        ),
        Setting(
            "arms",
            list,
            ["none", "uniform", "xavier", "he", "minmax", "distribution", "random", "reversed"],
            "study",
            "What is compared: initializers as for --init, random (random filters), reversed (the "
            "most useful filters), slots (optimizer state alone), or a --remedy without restarted "
            "filters. The control none is always one.",
        ),
        Setting(
            "arm",
            list,
            [],
            "study",
            "A further arm: NAME:flag=value,flag=value. Repeat the flag for several.",
            repeated=True,
        ),
        Setting(
            "sweep",
            list,
            [],
            "study",
            "Values of a flag for all arms, the control included: fraction=0.05,0.1,0.2. Repeat it "
            f"to cross several, up to {MAX_RUNS} runs.",
            repeated=True,
        ),
        Setting("seeds", str, "0-2", "study", "Seeds, such as 0-9 or 0,1,5-7."),
        Setting(
            "tune",
            list,
            [],
            "study",
            "Values of a flag from which each arm, the control included, gets its own best one: "
            "learning_rate=0.01,0.003,0.001. Repeat it to cross several.",
            repeated=True,
        ),
        Setting(
            "tune_seeds", str, None, "study", "Seeds of the tuning, none of --seeds. With --tune."
        ),
        Setting(
            "outcome",
            str,
            "test",
            "study",
            "What arms are compared by: test accuracy at the best epoch (with tasks their mean), "
            "accuracy at the final epoch, or online: mean training accuracy over all epochs.",
            choices=OUTCOMES,
        ),
        Setting(
            "pair",
            list,
            [],
            "study",
            "Two arms to compare with each other, besides the control: ARM:OTHER. Repeat the flag "
            "for several.",
            repeated=True,
        ),
        Setting("workers", int, 1, "study", "Runs at a time; they share the cores.", least=1),
        Setting(
            "executor",
            str,
            "local",
            "study",
            "Where the runs run: processes on this machine, or tasks on a Ray cluster.",
            choices=("local", "ray"),
        ),
        Setting(
            "ray_address",
            str,
            None,
            "study",
            "The Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: Ray starts here.",
        ),
        Setting("num_cpus", int, 1, "study", "CPU cores for each run on Ray.", least=1),
        Setting("num_gpus", float, 0.0, "study", "GPUs for each run on Ray.", least=0),
        Setting(
            "report_name",
            str,
            None,
            "study",
            "Folder of the report in the study's folder, so that several reports share their runs. "
            "Default: the study's folder.",
            valid=is_plain_name,
            expected="a plain name, such as table2",
        ),
        Setting(
            "compare_with",
            str,
            None,
            "study",
            "Published results to show beside those of the study: han_zhang, the paper.",
            choices=tuple(PUBLISHED),
        ),
        Setting("dry_run", bool, False, "study", "Only print the command line of each run."),
        Setting(
            "collect", bool, False, "study", "Run nothing: write the report of the finished runs."
        ),
    )
}
PROGRAM = Program(
    "kerasrestart.study",
    TEXT,
    {**STUDY, **SETTINGS, "logdir": PLACE["logdir"]},
    hidden={name for name, s in SETTINGS.items() if s.in_study or s.is_fixed_in_study},
)


def main(parsed: Parsed) -> None:
    """Runs the study that the flags describe, and writes its report."""
    choose_backend()  # packages with your own code may import Keras
    _check_executor(parsed)
    study = read_plan(parsed)
    if parsed.values["dry_run"]:
        for job in in_order_of_needs(study.tuning_jobs):
            print(job.command(str(study.tuning_folder)))
        # With --tune these get the values that it finds.
        for job in in_order_of_needs(study.jobs({})):
            print(job.command(str(study.folder)))
        return
    from kerasrestart.experiments.study.executors import LocalExecutor, RayExecutor
    from kerasrestart.experiments.study.launch import launch_study
    from kerasrestart.experiments.study.report import ReportSettings

    values = parsed.values

    def executor() -> LocalExecutor | RayExecutor:
        if values["executor"] == "local":
            return LocalExecutor(values["workers"])
        needs = {name: values[name] for name in ("num_cpus", "num_gpus")}
        return RayExecutor(values["ray_address"], **needs)

    launch_study(
        study,
        executor=None if values["collect"] else executor,
        report=ReportSettings(
            study.folder / (values["report_name"] or ""),
            values["title"] or f"Study {values['report_name'] or study.folder.name}",
            _command(parsed),
            PUBLISHED.get(values["compare_with"]),
            pairs=study.pairs,
        ),
    )


def _check_executor(parsed: Parsed) -> None:
    """Refuses flags of the executor that was not chosen."""
    chosen = parsed.values["executor"]
    other = "local" if chosen == "ray" else "ray"
    names = {"local": ["workers"], "ray": ["ray_address", "num_cpus", "num_gpus"]}[other]
    for name in names:
        if name in parsed.given:
            received = STUDY[name].as_flag(parsed.given[name])
            raise PlanError(
                f"--{name} is for --executor={other}: it must be left out otherwise. Received: "
                f"{received} with --executor={chosen}"
            )


def read_plan(parsed: Parsed) -> StudyPlan:
    """The folder and the runs of a command line.

    Raises:
        PlanError: The flags describe no study.
    """
    values = parsed.values
    if values["study_name"] is None:
        raise PlanError("--study_name must be a plain name, such as table2. Received: none")
    study = StudyPlan(
        user_path(values["logdir"], "logdir") / values["study_name"],
        {name: value for name, value in parsed.given.items() if name in SETTINGS},
        networks=of_size(values["network"], values["size"]),
        arms=[*values["arms"], *values["arm"]],
        seeds=parse_seeds(values["seeds"]),
        sweep=values["sweep"],
        tune=values["tune"],
        tune_seeds=parse_seeds(values["tune_seeds"] or "0", "tune_seeds"),
        outcome=values["outcome"],
        pairs=[parse_pair(text) for text in values["pair"]],
    )
    if bool(values["tune"]) != bool(values["tune_seeds"]):
        given = "tune" if values["tune"] else "tune_seeds"
        raise PlanError(f"--tune and --tune_seeds must both be given. Received: --{given} alone")
    study.check()
    return study


def _command(parsed: Parsed) -> str:
    """The command line of the study; --collect makes the same report as the runs."""
    words = [word for word in parsed.typed if not re.fullmatch("--?(no)?collect(=.*)?", word)]
    return shlex.join(["python", "-m", "kerasrestart.study", *words])


def entry_point() -> NoReturn:
    """Starts the command; the console script calls this."""
    PROGRAM.start(main, stopped="Stopped. The same command resumes the study.")

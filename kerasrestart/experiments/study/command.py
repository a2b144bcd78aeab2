"""Compares ways to restart, at equal budget and over several seeds, and writes the report.

python -m kerasrestart.study --flagfile=flags/small_data.flags
"""

from __future__ import annotations

import pathlib
import re
import shlex
import sys

from absl import flags

from kerasrestart.experiments import run_flags, settings
from kerasrestart.experiments.command_line import fail, start
from kerasrestart.experiments.interruption import exit_status, interruptible
from kerasrestart.experiments.study.plan import (
    SET_BY_THE_STUDY,
    Job,
    PlanError,
    make_plan,
    parse_seeds,
)
from kerasrestart.experiments.weights.locate import locate_alexnet_weights

_ARMS = ["none", "uniform", "xavier", "he", "minmax", "distribution", "random", "reversed"]

run_flags.define_flags()
flags.adopt_module_key_flags(run_flags)
# What make_plan gives all runs: the checks of flags, and --help, are to know of it.
flags.FLAGS.set_default("trigger", "epochs")
flags.FLAGS.set_default("stop_on_repeat", False)
flags.DEFINE_string("logdir", "tf_logs", "Folder of all studies and runs.")
flags.DEFINE_string("study_name", None, "Folder of this study in it.", required=True)
flags.DEFINE_string("title", None, "Head of the report. Default: made from the study's name.")
flags.DEFINE_multi_string(
    "network",
    ["mininet"],
    "A network: the name of a model, or NAME:flag=value,flag=value. Repeat it for several.",
)
flags.DEFINE_list(
    "arms",
    _ARMS,
    "What is compared: initializers, random (filters drawn by lot), reversed (the most useful "
    "ones), slots (the optimizer's memory alone). The control none is always one.",
)
flags.DEFINE_multi_string(
    "arm", [], "A further arm: NAME:flag=value,flag=value. Repeat it for several."
)
flags.DEFINE_multi_string(
    "sweep",
    [],
    "A flag to vary for all arms, the control too: fraction=0.05,0.1,0.2. Several are crossed.",
)
flags.DEFINE_string("seeds", "0-2", "Seeds, such as 0-9 or 0,1,5-7.")
flags.DEFINE_integer("workers", 1, "Runs at once; they share out the cores.", lower_bound=1)
flags.DEFINE_boolean("dry_run", False, "List the runs, each with its command line, and end.")
flags.DEFINE_boolean("collect", False, "Run nothing: write the report of the runs that are there.")
flags.register_validator(
    "study_name", settings.is_plain_name, "must be a plain name, such as table2"
)


def main(argv: list[str]) -> None:
    """Runs the study that the flags describe, and writes its report."""
    del argv
    chosen = flags.FLAGS
    folder = pathlib.Path(chosen.logdir) / chosen.study_name
    try:
        jobs = _plan(chosen, str(folder))
        if chosen.dry_run:
            for job in jobs:
                print(job.command(str(folder)))
            return
        from kerasrestart.experiments.study.collect import collect
        from kerasrestart.experiments.study.runner import run_jobs

        failed: dict[str, str] = {}
        if not chosen.collect:
            arms = sum(job.cell is not None for job in jobs)
            for weights in {job.settings.weights for job in jobs} - {None}:
                locate_alexnet_weights(weights)  # now, and not when their first run begins
            print(f"{arms} runs and {len(jobs) - arms} baselines; records: {folder}", flush=True)
            with interruptible():
                failed = run_jobs(jobs, folder, workers=chosen.workers, show=_tell)
        report = collect(jobs, folder, failed, title=chosen.title, command=_command())
        print(f"Report: {report}", flush=True)
        if failed:
            fail(f"{len(failed)} of {len(jobs)} runs failed; the report tells why")
    except (PlanError, ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        fail("Stopped; the same command goes on where it was.", exit_status(error))


def _plan(chosen: flags.FlagValues, folder: str) -> list[Job]:
    base = []
    for name in settings.RunSettings.__dataclass_fields__:
        if chosen[name].present:
            if name in SET_BY_THE_STUDY:
                raise PlanError(
                    f"--{name} is set by the study: expected --network, --seeds, and no --baseline."
                )
            base.append(settings.as_flag(name, chosen[name].value))
    return make_plan(
        base,
        networks=chosen.network,
        arms=[*chosen.arms, *chosen.arm],
        seeds=parse_seeds(chosen.seeds),
        sweep=chosen.sweep,
        logdir=folder,
    )


def _command() -> str:
    """What makes the study: the report of a --collect is that of the runs."""
    words = [word for word in sys.argv[1:] if not re.fullmatch("--?(no)?collect(=.*)?", word)]
    return shlex.join(["python", "-m", "kerasrestart.study", *words])


def _tell(line: str) -> None:
    print(line, flush=True)


def entry_point() -> None:
    """What the console script calls."""
    start(main)

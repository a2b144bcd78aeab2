"""`launch_study`: runs the jobs of a study and writes its report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from kerasrestart.experiments.interruption import RunStoppedError, interruptible
from kerasrestart.experiments.models.weight_files import locate_alexnet_weights
from kerasrestart.experiments.records.folder_lock import FolderLock
from kerasrestart.experiments.records.run_folder import check_logdir
from kerasrestart.experiments.startup import choose_backend
from kerasrestart.experiments.study.collect import collect
from kerasrestart.experiments.study.executors import Executor
from kerasrestart.experiments.study.plan import Job
from kerasrestart.experiments.study.report import ReportSettings
from kerasrestart.experiments.study.runner import run_jobs
from kerasrestart.experiments.study.study_plan import StudyPlan
from kerasrestart.experiments.study.tuning import find_values


def launch_study(
    study: StudyPlan,
    *,
    executor: Callable[[], Executor] | None,
    report: ReportSettings,
) -> None:
    """Runs all jobs that have not finished, those of the tuning first, and writes the report.

    Args:
        study: The study.
        executor: Makes that in which they run; None: the report of the finished runs is written.
        report: Where the report is written, and what it says of the study.

    Raises:
        ValueError, OSError: A folder holds a run with other settings, no run has finished, an arm
            failed with each value of its tuning, or weights are not available.
        RunStoppedError: Runs failed; the report of the others is written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the runs have ended.
    """
    tuning = None
    if trials := study.tuning_jobs:
        failed = _run(trials, study.tuning_folder, executor, " of the tuning")
        tuning = find_values(trials, study.tuning_folder, failed)
    jobs = study.jobs(tuning.chosen if tuning else {})
    failed = _run(jobs, study.folder, executor, "") or {}
    report = dataclasses.replace(report, tuning=tuning)
    path = collect(jobs, study.folder, failed, report)
    print(f"Report: {path}", flush=True)
    if failed:
        raise RunStoppedError(
            f"{len(failed)} of {len(jobs)} runs failed; the report gives the reasons"
        )


def _run(
    jobs: Sequence[Job], folder: pathlib.Path, executor: Callable[[], Executor] | None, what: str
) -> dict[str, str] | None:
    """Runs jobs; returns those that failed, or None without an executor."""
    if executor is None:
        return None
    check_logdir(folder.parent)
    choose_backend()  # now, not in each run
    arms = sum(job.cell is not None for job in jobs)
    for weights in {job.settings.weights for job in jobs} - {None}:
        locate_alexnet_weights(weights)  # now, not when their first run starts
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, "study", "--study_name or --logdir")
    try:
        chosen = executor()
        print(f"{arms} runs and {len(jobs) - arms} baselines{what}; records: {folder}", flush=True)
        with interruptible():
            return run_jobs(jobs, folder, executor=chosen, show=_print)
    finally:
        lock.release()


def _print(line: str) -> None:
    print(line, flush=True)

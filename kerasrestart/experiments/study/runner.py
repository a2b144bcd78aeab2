"""Runs the jobs of a study: each in its own process, several at once."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.experiments.sources import changed_sources, source_hashes
from kerasrestart.experiments.study.executors import Executor
from kerasrestart.experiments.study.plan import Job, PlanError
from kerasrestart.experiments.study.process import Ended
from kerasrestart.experiments.study.results import load_cell

_LOOK_AGAIN = 10.0  # seconds until slots are counted again: nodes may join a cluster


def is_done(job: Job, folder: pathlib.Path) -> bool:
    """Returns whether the run of a job is complete.

    Args:
        job: The job.
        folder: The study's folder.

    Raises:
        PlanError: If the folder has a run of that name with other settings.
    """
    record = read_record(folder / job.name)
    if record is None:
        return False
    settings = job.settings
    differ = settings.differences(record["settings"])
    differ += changed_sources(record.get("sources", {}), source_hashes(settings.to_dict()))
    if differ:
        raise PlanError(
            f"{folder / job.name} has a run with other settings: {'; '.join(differ)}. Pass "
            "another --study_name or --logdir, or remove it."
        )
    return True


def run_jobs(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    *,
    executor: Executor,
    show: Callable[[str], None] = print,
) -> dict[str, str]:
    """Runs all jobs that are not complete yet.

    Each job is a process that holds a lock on its folder. A job that was killed resumes after its
    last completed epoch. On Linux the processes end when this process ends, even if it is killed.

    Example:
    ```python
    failed = run_jobs(jobs, pathlib.Path("tf_logs/small_data"), executor=LocalExecutor(2))
    ```

    Args:
        jobs: The jobs, each after its baseline.
        folder: The study's folder.
        executor: Where they run; it is stopped at the end.
        show: Called with one line of text for each finished job. Defaults to `print`.

    Returns:
        Name of each job that failed, or whose baseline failed -> the reason, in one line.

    Raises:
        PlanError: If a folder has a run with other settings. Raised before any work.
        KeyboardInterrupt: On an interrupt, after all processes have ended.
    """
    return _Queue(jobs, folder, executor, show).run()


class _Queue:
    """The jobs of a study: those that wait, that run, that are done, and that failed."""

    def __init__(
        self,
        jobs: Sequence[Job],
        folder: pathlib.Path,
        executor: Executor,
        show: Callable[[str], None],
    ):
        self._folder, self._executor, self._show = folder, executor, show
        self._done = {job.name for job in jobs if is_done(job, folder)}
        # A baseline is needed only by the runs that start from it.
        needed = {name for job in jobs if job.name not in self._done for name in job.needs}
        self._waiting = [
            job
            for job in jobs
            if job.name not in self._done and (job.cell is not None or job.name in needed)
        ]
        self._running: dict[Future[Ended], Job] = {}
        self._failed: dict[str, str] = {}
        self._total = len(self._done) + len(self._waiting)
        self._durations: list[float] = []
        self._notes: set[str] = set()
        self._best: dict[str, tuple[float, str]] = {}
        for job in jobs:
            if job.name in self._done:
                _result(job, folder, self._best)

    def run(self) -> dict[str, str]:
        """Runs the jobs; returns those that failed, and why."""
        if self._done:
            self._show(f"{len(self._done)} of {self._total} runs are complete already.")
        try:
            while self._waiting or self._running:
                self._give_up()
                self._start()
                for future in wait(self._running, _LOOK_AGAIN, FIRST_COMPLETED).done:
                    self._end(self._running.pop(future), _ended(future))
        finally:
            self._executor.stop()
        return self._failed

    def _give_up(self) -> None:
        """Counts the jobs as failed that need one that failed."""
        for job in [job for job in self._waiting if self._failed.keys() & job.needs]:
            self._waiting.remove(job)
            missing = [name for name in job.needs if name in self._failed]
            what = "its baseline" if missing[0] == job.needs[0] else "the run that it matches,"
            self._failed[job.name] = f"{what} {missing[0]} failed"

    def _start(self) -> None:
        # Submitted only as slots become free: the runs of the first seed come first, and a
        # baseline's arms before the next baseline.
        ready = [job for job in self._waiting if self._done.issuperset(job.needs)]
        for job in ready[: max(0, self._executor.slots - len(self._running))]:
            self._waiting.remove(job)
            log = _log(job, self._folder)
            self._show(f"{job.name} starts; log: {log}")
            arguments = job.command_arguments(str(self._folder))
            self._running[self._executor.submit(arguments, log)] = job

    def _end(self, job: Job, ended: Ended) -> None:
        self._durations.append(ended.seconds)
        if ended.reason is None and is_done(job, self._folder):
            self._done.add(job.name)
            message = f"{job.name} is complete{_result(job, self._folder, self._best)}"
            self._show_note(job)
        else:
            reason = f"{ended.reason or 'it wrote no record'} (see {_log(job, self._folder)})"
            self._failed[job.name] = reason
            message = f"{job.name} FAILED: {reason}"
        failures = f", {len(self._failed)} failed" if self._failed else ""
        self._show(
            f"[{len(self._done)}/{self._total} runs{failures}, about "
            f"{_duration(self._seconds_left())} left] {message} after {_duration(ended.seconds)}"
        )

    def _seconds_left(self) -> float:
        left = len(self._waiting) + len(self._running)
        return left * sum(self._durations) / len(self._durations) / self._executor.slots

    def _show_note(self, job: Job) -> None:
        if (note := _data_note(job, self._folder)) and note not in self._notes:
            self._notes.add(note)
            self._show(f"*** {note} ***")


def _ended(future: Future[Ended]) -> Ended:
    """How a run ended; a task that Ray gave up, such as after its node was lost, failed."""
    try:
        return future.result()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        return Ended(f"{type(error).__name__}: {reason}", 0.0)


def _log(job: Job, folder: pathlib.Path) -> pathlib.Path:
    return folder / "logs" / f"{job.name}.log"


def _data_note(job: Job, folder: pathlib.Path) -> str | None:
    """Returns the note on the data of a run, such as that they are not those requested."""
    record = read_record(folder / job.name) or {}
    return record.get("data", {}).get("note")


def _result(job: Job, folder: pathlib.Path, best: dict[str, tuple[float, str]]) -> str:
    """The outcome of a run, and the best so far of its network, in words."""
    try:
        found = load_cell(folder / job.name, job.cell) if job.cell else None
    except ValueError:
        found = None  # the report says why
    if found is None:
        return ""
    model, mine = found.cell.model, (found.chosen, job.name)
    best[model] = max(best.get(model, mine), mine)
    accuracy, name = best[model]
    return f": {found.chosen:.2%} (best so far {accuracy:.2%}, {name})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

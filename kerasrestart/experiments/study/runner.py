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
    done = {job.name for job in jobs if is_done(job, folder)}
    # A baseline is needed only by the runs that start from it.
    needed = {name for job in jobs if job.name not in done for name in job.needs}
    waiting = [
        job for job in jobs if job.name not in done and (job.cell is not None or job.name in needed)
    ]
    total = len(done) + len(waiting)
    failed: dict[str, str] = {}
    durations: list[float] = []
    shown_notes: set[str] = set()
    running: dict[Future[Ended], Job] = {}
    best: dict[str, tuple[float, str]] = {}
    for job in jobs:
        if job.name in done:
            _result(job, folder, best)
    if done:
        show(f"{len(done)} of {total} runs are complete already.")
    try:
        while waiting or running:
            for job in [j for j in waiting if failed.keys() & j.needs]:
                waiting.remove(job)
                missing = [name for name in job.needs if name in failed]
                what = "its baseline" if missing[0] == job.needs[0] else "the run that it matches,"
                failed[job.name] = f"{what} {missing[0]} failed"
            # Submitted only as slots become free: the runs of the first seed come first, and a
            # baseline's arms before the next baseline.
            ready = [job for job in waiting if done.issuperset(job.needs)]
            slots = executor.slots
            for job in ready[: max(0, slots - len(running))]:
                waiting.remove(job)
                log = _log(job, folder)
                show(f"{job.name} starts; log: {log}")
                running[executor.submit(job.command_arguments(str(folder)), log)] = job
            for future in wait(running, _LOOK_AGAIN, FIRST_COMPLETED).done:
                job = running.pop(future)
                ended = _ended(future)
                durations.append(ended.seconds)
                if ended.reason is None and is_done(job, folder):
                    done.add(job.name)
                    message = f"{job.name} is complete{_result(job, folder, best)}"
                    if (note := _data_note(job, folder)) and note not in shown_notes:
                        shown_notes.add(note)
                        show(f"*** {note} ***")
                else:
                    reason = f"{ended.reason or 'it wrote no record'} (see {_log(job, folder)})"
                    failed[job.name] = reason
                    message = f"{job.name} FAILED: {reason}"
                left = (len(waiting) + len(running)) * sum(durations) / len(durations) / slots
                failures = f", {len(failed)} failed" if failed else ""
                show(
                    f"[{len(done)}/{total} runs{failures}, about {_duration(left)} left] {message} "
                    f"after {_duration(ended.seconds)}"
                )
    finally:
        executor.stop()
    return failed


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

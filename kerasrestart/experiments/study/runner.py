"""Runs the jobs of a study: each in its own process, several at once."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.experiments.settings import IGNORED_ON_RESUME
from kerasrestart.experiments.study.plan import Job, PlanError


@dataclasses.dataclass
class _Run:
    job: Job
    process: subprocess.Popen
    log: pathlib.Path
    log_start: int  # the log also holds the output of earlier attempts
    started: float


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
    if differ := job.settings.differences(record["settings"], IGNORED_ON_RESUME):
        raise PlanError(
            f"{folder / job.name} has a run with other settings: {'; '.join(differ)}. Pass "
            "another --study_name or --logdir, or remove it."
        )
    return True


def run_jobs(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    *,
    workers: int,
    show: Callable[[str], None] = print,
) -> dict[str, str]:
    """Runs all jobs that are not complete yet.

    Each job is a process that holds a lock on its folder. A job that was killed resumes after its
    last completed epoch. On Linux the processes end when this process ends, even if it is killed.

    Example:
    ```python
    failed = run_jobs(jobs, pathlib.Path("tf_logs/small_data"), workers=2)
    ```

    Args:
        jobs: The jobs, each after the baseline that it needs.
        folder: The study's folder.
        workers: Number of processes at once. They share the CPU cores equally.
        show: Called with one line of text for each finished job. Defaults to `print`.

    Returns:
        Name of each job that failed, or whose baseline failed -> the reason, in one line.

    Raises:
        PlanError: If a folder has a run with other settings. Raised before any work.
        KeyboardInterrupt: On an interrupt, after all processes have ended.
    """
    done = {job.name for job in jobs if is_done(job, folder)}
    # A baseline is needed only by the runs that start from it.
    needed = {job.needs for job in jobs if job.name not in done}
    waiting = [
        job for job in jobs if job.name not in done and (job.cell is not None or job.name in needed)
    ]
    total = len(done) + len(waiting)
    failed: dict[str, str] = {}
    durations: list[float] = []
    shown_notes: set[str] = set()
    running: dict[Future[int], _Run] = {}
    if done:
        show(f"{len(done)} of {total} runs are complete already.")
    with ThreadPoolExecutor(workers) as pool, _terminating(running):
        while waiting or running:
            for job in [j for j in waiting if j.needs in failed]:
                waiting.remove(job)
                failed[job.name] = f"its baseline {job.needs} failed"
            # Submitted only as workers become free: the runs of the first seed come first, and a
            # baseline's arms before the next baseline.
            ready = [job for job in waiting if job.needs is None or job.needs in done]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                run = _start(job, folder, workers)
                running[pool.submit(run.process.wait)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                seconds = time.monotonic() - run.started
                durations.append(seconds)
                if future.result() == 0 and is_done(run.job, folder):
                    done.add(run.job.name)
                    message = f"{run.job.name} is complete"
                    if (note := _data_note(run.job, folder)) and note not in shown_notes:
                        shown_notes.add(note)
                        show(f"*** {note} ***")
                else:
                    failed[run.job.name] = reason = _failure(run)
                    message = f"{run.job.name} FAILED: {reason}"
                left = (len(waiting) + len(running)) * sum(durations) / len(durations) / workers
                failures = f", {len(failed)} failed" if failed else ""
                show(
                    f"[{len(done)}/{total} runs{failures}, about {_duration(left)} left] {message} "
                    f"after {_duration(seconds)}"
                )
    return failed


def _data_note(job: Job, folder: pathlib.Path) -> str | None:
    """Returns the note on the data of a run, such as that they are not those requested."""
    record = read_record(folder / job.name) or {}
    return record.get("data", {}).get("note")


def _start(job: Job, folder: pathlib.Path, workers: int) -> _Run:
    log = folder / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {"TF_NUM_INTRAOP_THREADS": str(threads), **os.environ}
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            [sys.executable, *job.command_arguments(str(folder))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            # Ctrl-C interrupts the study only, which then terminates its processes.
            start_new_session=True,
        )
    return _Run(job, process, log, log_start, time.monotonic())


@contextlib.contextmanager
def _terminating(running: dict[Future[int], _Run]) -> Iterator[None]:
    """Terminates the processes that are still running at the end of the block."""
    try:
        yield
    finally:
        for run in running.values():
            run.process.terminate()  # not SIGINT, which background jobs of a shell ignore
        wait(running, timeout=60)
        for run in running.values():
            run.process.kill()


def _die_with_parent() -> None:
    """Asks the kernel to kill this process when the study dies, as a killed study cannot."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _failure(run: _Run) -> str:
    output = run.log.read_bytes()[run.log_start :]
    lines = output.decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    code = run.process.returncode
    status = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    reason = errors[-1].removeprefix("error: ") if errors and code > 0 else status
    return f"{reason} (see {run.log})"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

"""Runs the jobs of a study, each in a process of its own, some at once."""

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

from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.experiments.settings import IGNORED_ON_RESUME
from kerasrestart.experiments.study.plan import Job, PlanError

_POLL_SECONDS = 0.2


@dataclasses.dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    log: pathlib.Path
    log_start: int  # what attempts before it wrote ends here
    since: float


def is_done(job: Job, folder: pathlib.Path) -> bool:
    """Whether a job's run has ended already.

    Args:
        job: The job.
        folder: The study's folder.

    Raises:
        PlanError: A run of that name is there, and was made with other settings.
    """
    record = read_record(folder / job.name)
    if record is None:
        return False
    if differ := job.settings.differences(record["settings"], IGNORED_ON_RESUME):
        raise PlanError(
            f"{folder / job.name} holds a run with other settings: {'; '.join(differ)}. Pass "
            "another --study_name or --logdir, or remove it."
        )
    return True


def run_jobs(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    *,
    workers: int,
    tell: Callable[[str], None] = print,
) -> dict[str, str]:
    """Runs all jobs that have not ended yet.

    Each job is a process that holds its folder; killed and started again, it goes on from its last
    epoch. Processes end with this one, however that ends, where the system can do that (Linux).

    Args:
        jobs: The jobs, each behind the one that it needs.
        folder: The study's folder.
        workers: How many run at once; the cores are shared out among them.
        tell: Gets a line for each job that has ended. Defaults to `print`.

    Returns:
        For each job that failed or could not begin: why, in one line.

    Raises:
        PlanError: A folder holds a run with other settings; before any work.
        KeyboardInterrupt: As it came, when the processes have been told to end and have ended.
    """
    done = {job.name for job in jobs if is_done(job, folder)}
    # A baseline is made for the runs that go on from it.
    needed = {job.needs for job in jobs if job.name not in done}
    waiting = [
        job for job in jobs if job.name not in done and (job.cell is not None or job.name in needed)
    ]
    total = len(done) + len(waiting)
    failed: dict[str, str] = {}
    durations: list[float] = []
    noted: set[str] = set()
    running: list[_Running] = []
    if done:
        tell(f"{len(done)} of {total} runs have ended already.")
    with _ending(running):
        while waiting or running:
            for job in [j for j in waiting if j.needs in failed]:
                waiting.remove(job)
                failed[job.name] = f"its baseline {job.needs} failed"
            ready = [job for job in waiting if job.needs is None or job.needs in done]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                running.append(_start(job, folder, workers))
            for one in [r for r in running if r.process.poll() is not None]:
                running.remove(one)
                seconds = time.monotonic() - one.since
                durations.append(seconds)
                if one.process.returncode == 0 and is_done(one.job, folder):
                    done.add(one.job.name)
                    what = f"{one.job.name} ended"
                    if (note := _note(one.job, folder)) and note not in noted:
                        noted.add(note)
                        tell(f"*** {note} ***")
                else:
                    failed[one.job.name] = why = _reason(one)
                    what = f"{one.job.name} FAILED: {why}"
                left = (len(waiting) + len(running)) * sum(durations) / len(durations) / workers
                failures = f", {len(failed)} failed" if failed else ""
                tell(
                    f"[{len(done)}/{total} runs{failures}, about {_time(left)} left] {what} "
                    f"after {_time(seconds)}"
                )
            time.sleep(_POLL_SECONDS if running else 0)
    return failed


def _note(job: Job, folder: pathlib.Path) -> str | None:
    """What a run that has ended says of its data, such as that they are not those asked for."""
    record = read_record(folder / job.name) or {}
    return record.get("data", {}).get("note")


def _start(job: Job, folder: pathlib.Path, workers: int) -> _Running:
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
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            # Ctrl-C is for the study, which then ends its processes.
            start_new_session=True,
        )
    return _Running(job, process, log, log_start, time.monotonic())


@contextlib.contextmanager
def _ending(running: list[_Running]) -> Iterator[None]:
    """Ends the processes that are left, whatever ends the block."""
    try:
        yield
    finally:
        for one in running:
            one.process.terminate()  # not SIGINT, which a shell's background job ignores
        for one in running:
            try:
                one.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()


def _end_with_parent() -> None:
    """Asks the kernel to end this process when the study is killed, as no handler can then."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _reason(one: _Running) -> str:
    written = one.log.read_bytes()[one.log_start :]
    lines = written.decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    code = one.process.returncode
    ended = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    last = errors[-1].removeprefix("error: ") if errors and code > 0 else ended
    return f"{last} (see {one.log})"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

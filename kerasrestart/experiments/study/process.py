"""`run_process`: one run of a study as a process, the same on this machine and on a cluster."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        reason: Why it failed, in one line; None if it ended well.
        seconds: How long it ran.
    """

    reason: str | None
    seconds: float


def run_process(
    arguments: Sequence[str],
    log: str,
    *,
    place: str,
    threads: int,
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> Ended:
    """Runs Python with arguments, and waits until it ends.

    On Linux the process ends when the calling thread ends, even if that is killed.

    Args:
        arguments: The words after the interpreter.
        log: File to which the output is appended.
        place: The working directory.
        threads: TensorFlow's threads, unless the environment says otherwise.
        started: Called with the process when it has started.

    Returns:
        How it ended.
    """
    since = time.monotonic()
    path = pathlib.Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as output:
        start = output.tell()  # the log also holds the output of earlier attempts
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                "TF_NUM_INTRAOP_THREADS": str(threads),
                **os.environ,
                "PYTHONPATH": _search_path(),
            },
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            # Ctrl-C interrupts the study only, which then terminates its processes.
            start_new_session=True,
        )
    try:
        started(process)
        # Not `wait`: Ray cancels a task by an interrupt that a system call would not notice.
        while (code := process.poll()) is None:
            time.sleep(0.1)
    finally:
        end_process(process)
    reason = _failure(code, path, start) if code else None
    return Ended(reason, time.monotonic() - since)


def _search_path() -> str:
    """`PYTHONPATH` with the folder of this process's script, from which it imports modules."""
    return os.pathsep.join(filter(None, (sys.path[0], os.environ.get("PYTHONPATH"))))


def end_process(process: subprocess.Popen) -> None:
    """Terminates a process that still runs, and kills it after a minute."""
    process.terminate()  # not SIGINT, which background jobs of a shell ignore
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()


def _die_with_parent() -> None:
    """Asks the kernel to kill this process when the study dies, as a killed study cannot."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _failure(code: int, log: pathlib.Path, start: int) -> str:
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [line for line in lines if re.match(r"error: \S", line)]
    status = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return errors[-1].removeprefix("error: ") if errors and code > 0 else status

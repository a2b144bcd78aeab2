"""Where the runs of a study run: on this machine, or on a Ray cluster."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from kerasrestart.experiments.study.grid import PlanError
from kerasrestart.experiments.study.process import Ended, end_process, run_process

RETRIES = 3


class Executor(Protocol):
    """Takes runs and reports their ends."""

    @property
    def slots(self) -> int:
        """How many runs it takes at once."""

    def submit(self, arguments: Sequence[str], log: pathlib.Path) -> Future[Ended]:
        """Starts Python with arguments; its output goes to the log."""

    def stop(self) -> None:
        """Ends all runs, and waits for that."""


class LocalExecutor:
    """Runs on this machine; they share its cores equally.

    Args:
        workers: How many run at once.
    """

    def __init__(self, workers: int):
        self.slots = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._pool = ThreadPoolExecutor(workers)
        self._processes: list[subprocess.Popen] = []
        self._is_stopping = False

    def submit(self, arguments: Sequence[str], log: pathlib.Path) -> Future[Ended]:
        """Starts Python with arguments; its output goes to the log."""
        return self._pool.submit(
            run_process,
            arguments,
            str(log),
            place=os.getcwd(),  # noqa: PTH109
            threads=self._threads,
            started=self._started,
        )

    def stop(self) -> None:
        """Ends all runs, and waits for that."""
        self._is_stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            end_process(process)
        self._pool.shutdown()

    def _started(self, process: subprocess.Popen) -> None:
        self._processes.append(process)
        if self._is_stopping:  # it started while `stop` went through the list
            process.terminate()


class RayExecutor:
    """Runs as tasks on a Ray cluster whose nodes share this working directory.

    A task whose node is lost starts again on another one, where its run resumes from its folder.

    Args:
        address: As `ray.init` takes it; None starts Ray on this machine.
        num_cpus: CPU cores for each run.
        num_gpus: GPUs for each run.

    Raises:
        PlanError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None, *, num_cpus: int, num_gpus: float):
        try:
            import ray
        except ImportError as error:
            raise PlanError('--executor=ray needs Ray: pip install "kerasrestart[ray]".') from error
        self._ray = ray
        self._needs = {"CPU": num_cpus, "GPU": num_gpus}
        self._owns = not ray.is_initialized()
        if self._owns:
            try:
                _check_address(address)
                ray.init(address=address or "local", log_to_driver=False, logging_level="error")
            except (OSError, ValueError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise PlanError(
                    f"--ray_address must be that of a Ray cluster. Received: {address!r}: {reason}"
                ) from error
        self._task = ray.remote(
            num_cpus=num_cpus, num_gpus=num_gpus, max_retries=RETRIES, retry_exceptions=False
        )(run_process)
        self._refs: list[Any] = []

    @property
    def slots(self) -> int:
        """How many runs the present nodes take; at least one, as a cluster may grow."""
        have = self._ray.cluster_resources()
        return max(1, int(min(have.get(name, 0) / n for name, n in self._needs.items() if n)))

    def submit(self, arguments: Sequence[str], log: pathlib.Path) -> Future[Ended]:
        """Starts Python with arguments; its output goes to the log."""
        ref = self._task.remote(
            arguments,
            str(log.absolute()),
            place=os.getcwd(),  # noqa: PTH109
            threads=max(1, int(self._needs["CPU"])),
        )
        self._refs.append(ref)
        return ref.future()

    def stop(self) -> None:
        """Ends all runs, and waits for that."""
        for ref in self._refs:
            self._ray.cancel(ref)  # raises KeyboardInterrupt in the task, which ends its process
        if self._refs:
            self._ray.wait(self._refs, num_returns=len(self._refs), timeout=60)
        if self._owns:
            self._ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises an OSError or ValueError if nobody listens; Ray itself needs minutes to notice."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()

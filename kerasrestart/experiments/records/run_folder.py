"""The folder of one run: whose it is, and the files in it that are ours."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import math
import os
import pathlib
import re
from typing import Any

import filelock

from kerasrestart.experiments.settings import as_flag
from kerasrestart.restart.files import write_text


class RunFolder:
    """A folder `<logdir>/<name>/`, held by this process alone until it ends.

    Args:
        logdir: Folder of all runs; made where it is missing.
        name: Name of this run, or None: `prefix` and the time are made into one.
        prefix: What a made name begins with, such as "mininet-uniform-cifar10". Defaults to "run".
        resume: Whether the folder of a run may be there already, to go on with it. Defaults to
            False.

    Attributes:
        path: The folder.

    Raises:
        ValueError: The folder is there already and `resume` is False, or it holds something else
            than a run, or another process holds it: nothing is overwritten.
        OSError: The folder cannot be made.
    """

    def __init__(
        self,
        logdir: str | os.PathLike,
        name: str | None,
        prefix: str = "run",
        *,
        resume: bool = False,
    ):
        if name is None:
            name = f"{prefix}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
        self.path = pathlib.Path(logdir) / name
        check_folder(self.path, resume=resume)
        self.path.mkdir(parents=True, exist_ok=True)
        others = {file.name for file in self.path.iterdir()} - {_LOCK}
        if others and _FLAGS not in others:
            raise ValueError(
                f"{self.path} holds no run to go on with ({', '.join(sorted(others)[:3])}, but no "
                f"{_FLAGS}): pass another --run_name or --logdir."
            )
        self._lock = filelock.FileLock(self.path / _LOCK)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ValueError(
                f"{self.path} is in use by a run that has not ended: wait for it, or pass another "
                "--run_name or --logdir."
            ) from error

    def release(self) -> None:
        """Lets others have the folder; the end of the process does so too, however it ends.

        Nothing stays of a folder that nothing was written to.
        """
        with contextlib.suppress(OSError):
            if all(file.name == _LOCK for file in self.path.iterdir()):
                (self.path / _LOCK).unlink()
                self.path.rmdir()
        self._lock.release()

    @property
    def state(self) -> pathlib.Path:
        """Where the state goes that the run can go on from."""
        return self.path / STATE

    @property
    def baseline(self) -> pathlib.Path:
        """Where the state goes that other runs can go on from: one epoch before the first restart.

        One epoch, so that each of them takes its own scores.
        """
        return self.path / BASELINE

    @property
    def history(self) -> pathlib.Path:
        """Where the logs of each epoch go, as CSV."""
        return self.path / HISTORY

    @property
    def scores(self) -> pathlib.Path:
        """Where the scores of each epoch go, a line of JSON each."""
        return self.path / SCORES

    def write_flags(self, settings: dict[str, Any]) -> None:
        """Writes `flags.txt`: `--flagfile` of it repeats the run, in a folder of its own.

        Args:
            settings: Flag names and values; those that are None are left out.
        """
        lines = [as_flag(name, value) for name, value in settings.items() if value is not None]
        write_text(self.path / _FLAGS, "\n".join(lines) + "\n")

    def save_model(self, model: Any) -> None:
        """Saves a Keras model, whole or not at all."""
        temporary = self.path / ".tmp.model.keras"  # Keras tells the format by the end of the name
        model.save(temporary)
        temporary.replace(self.path / "model.keras")

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes `run.json`, whole or not at all."""
        write_text(self.path / RECORD, json.dumps(record, indent=1) + "\n")

    def keep_epochs(self, epochs: int, source: pathlib.Path | None = None) -> None:
        """Takes the epochs from `epochs` on out of the history and the scores: they come again.

        Args:
            epochs: How many epochs stay.
            source: The folder of the run to begin with. Defaults to None: this one.
        """
        source = source or self.path
        for name in (HISTORY, SCORES):
            if not (source / name).exists():
                continue
            with (source / name).open(newline="") as file:
                lines = file.read().splitlines(keepends=True)
            # The last line may have been cut short when the process was killed.
            whole = [(line, _EPOCH.match(line)) for line in lines if line.endswith("\n")]
            kept = [line for line, epoch in whole if epoch and int(epoch[1]) < epochs]
            if name == HISTORY and epochs:
                kept = [*lines[:1], *kept]
            write_text(self.path / name, "".join(kept))


RECORD, HISTORY, SCORES = "run.json", "history.csv", "scores.jsonl"
STATE, BASELINE = "state.npz", "baseline.npz"
_EPOCH = re.compile(r'(?:\{"epoch": )?(\d+),')
"""How a line of an epoch begins, in CSV and in JSON."""
_FLAGS, _LOCK = "flags.txt", ".lock"
RESUMED_FROM = (STATE, "state.previous.npz", RECORD, HISTORY, SCORES)
"""The files by which a run goes on, or knows that it has ended."""


def check_folder(path: pathlib.Path | None, *, resume: bool, baseline: str | None = None) -> None:
    """Checks that a run can have a folder, and has a baseline to go on from where it names one.

    Args:
        path: The folder; None: it will be a new one.
        resume: Whether the run may go on with what is there.
        baseline: The folder of the run whose baseline it takes. Defaults to None.

    Raises:
        ValueError: The folder is there already, or is none; or there is no baseline.
    """
    if path is not None and path.exists() and not (resume and path.is_dir()):
        raise ValueError(
            f"{path} is there already, and no run is overwritten: pass --resume to go on with it, "
            "another --run_name or --logdir, or remove it."
        )
    goes_on = path is not None and (path / STATE).exists()
    if baseline is not None and not goes_on and not (pathlib.Path(baseline) / BASELINE).is_file():
        raise ValueError(
            f"baseline must be the folder of a run whose first round is over, with a {BASELINE} in "
            f"it. Received: {baseline}"
        )


def read_record(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a run that has ended; None where there is none.

    Args:
        folder: The run's folder.
    """
    try:
        record = json.loads((pathlib.Path(folder) / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("finished") else None


def read_history(folder: str | os.PathLike) -> dict[str, tuple[float, ...]]:
    """The logs of each epoch of a run, which may be going on still.

    Args:
        folder: The run's folder.

    Returns:
        By column; NaN where there is no number. Columns without any are left out, as those that
        `keras.callbacks.CSVLogger` makes for a validation that does not come.
    """
    path = pathlib.Path(folder) / HISTORY
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = file.read().splitlines(keepends=True)
    rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
    columns = {
        name: tuple(_number(row[name]) for row in rows) for name in (rows[0] if rows else ())
    }
    return {name: of for name, of in columns.items() if not all(map(math.isnan, of))}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

"""The folder of one run, and the record in it."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
from typing import Any


class RunFolder:
    """A new folder `<logdir>/<name>/`, and the files in it that are ours.

    Args:
        logdir: Folder of all runs; made where it is missing.
        name: Name of this run, or None: `prefix` and the time are made into one.
        prefix: What a made name begins with, such as "mininet-uniform-cifar10". Defaults to "run".

    Attributes:
        path: The folder.

    Raises:
        ValueError: A run of that name is there already: nothing is overwritten.
        OSError: The folder cannot be made.
    """

    def __init__(self, logdir: str | os.PathLike, name: str | None, prefix: str = "run"):
        if name is None:
            name = f"{prefix}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
        self.path = pathlib.Path(logdir) / name
        try:
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            raise ValueError(
                f"{self.path} is there already, and no run is overwritten: pass another --run_name "
                "or --logdir, or remove it."
            ) from error

    @property
    def history(self) -> str:
        """Where the logs of each epoch go, as CSV."""
        return str(self.path / "history.csv")

    @property
    def model(self) -> str:
        """Where the model goes, with the weights of the best epoch."""
        return str(self.path / "model.keras")

    def write_flags(self, settings: dict[str, Any]) -> None:
        """Writes `flags.txt`: `--flagfile` of it repeats the run, in a folder of its own.

        Args:
            settings: Flag names and values; those that are None are left out.
        """
        lines = [_as_flag(name, value) for name, value in settings.items() if value is not None]
        self._write("flags.txt", "\n".join(lines) + "\n")

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes `run.json`, whole or not at all."""
        self._write("run.json", json.dumps(record, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.tmp"
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


def _as_flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"

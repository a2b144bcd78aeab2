"""The folder of one run: which run it belongs to, and the names of the files in it."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
from typing import Any

from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.records.folder_lock import LOCK_NAMES, FolderLock
from kerasrestart.experiments.records.history import HISTORY
from kerasrestart.experiments.records.score_log import SCORES
from kerasrestart.experiments.settings import as_flag
from kerasrestart.restart.files import write_text

STATE, BASELINE, RESTARTS = "state", "baseline", "restart"
_FLAGS = "flags.txt"
MODEL, WEIGHTS = "model.keras", "model.weights.h5"
_FOLDERS = (STATE, BASELINE, RESTARTS, "train", "validation")


class RunFolder:
    """A folder `<logdir>/<name>/`, held by this process alone until it ends.

    Args:
        logdir: Folder of all runs; it is created where it is missing.
        name: Name of this run, or None: it is made of `prefix` and the time.
        prefix: Start of such a name, such as "mininet-uniform-cifar10". Defaults to "run".
        resume: Whether the folder may hold a run already, to resume it. Defaults to False.

    Attributes:
        path: The folder.

    Raises:
        ValueError: The folder exists already and `resume` is False, or it holds something else than
            a run, or another process holds it: nothing is overwritten.
        OSError: The folder cannot be created.
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
        self._check_content()
        self._lock = FolderLock(self.path, "run", "--run_name or --logdir")

    def release(self) -> None:
        """Lets other processes have the folder; the end of the process does so too.

        A folder that nothing was written to is removed.
        """
        with contextlib.suppress(OSError):
            if all(file.name in LOCK_NAMES for file in self.path.iterdir()):
                self._lock.remove()
                self.path.rmdir()
        self._lock.release()

    @property
    def state(self) -> pathlib.Path:
        """Folder of the states that the run can be resumed from."""
        return self.path / STATE

    @property
    def baseline(self) -> pathlib.Path:
        """Folder of the state that other runs continue from: one epoch before the first restart.

        One epoch, so that each of them takes its own scores.
        """
        return self.path / BASELINE

    @property
    def history(self) -> pathlib.Path:
        """The logs of each epoch, as CSV."""
        return self.path / HISTORY

    @property
    def scores(self) -> pathlib.Path:
        """The scores of each epoch, a line of JSON each."""
        return self.path / SCORES

    @property
    def restarts(self) -> pathlib.Path:
        """Folder of TensorBoard's records of restarts."""
        return self.path / RESTARTS

    def write_flags(self, settings: dict[str, Any]) -> None:
        """Writes `flags.txt`: `--flagfile` of it repeats the run, in a folder of its own.

        Args:
            settings: Flag names and values; those that are None are left out.
        """
        lines = [as_flag(name, value) for name, value in settings.items() if value is not None]
        write_text(self.path / _FLAGS, "\n".join(lines) + "\n")

    def save_model(self, model: Any) -> str:
        """Saves a Keras model atomically, or its weights alone where Keras cannot save the model.

        Returns:
            The name of the file: `model.keras`, or `model.weights.h5` of a subclass without
            `get_config`.
        """
        import keras

        try:
            keras.saving.serialize_keras_object(model)
            name, save = MODEL, model.save
        except Exception:
            name, save = WEIGHTS, model.save_weights
        temporary = self.path / f".tmp.{name}"  # Keras reads the format off the end of the name
        save(temporary)
        temporary.replace(self.path / name)
        return name

    def _check_content(self) -> None:
        # A run that is killed while it writes its first file leaves temporary files alone.
        foreign = [
            entry.name
            for entry in self.path.iterdir()
            if entry.name not in LOCK_NAMES
            and not (entry.name.startswith(".") and ".tmp" in entry.name)
        ]
        if foreign and _FLAGS not in foreign:
            raise ValueError(
                f"{self.path} holds no run to resume ({', '.join(sorted(foreign)[:3])}, but no "
                f"{_FLAGS}): pass another --run_name or --logdir."
            )
        for entry in self.path.iterdir():
            if entry.name in _FOLDERS and not entry.is_dir():
                raise ValueError(f"{entry} must be a folder: remove it. Received: a file")


def is_run(folder: pathlib.Path) -> bool:
    """Whether a folder is that of a run, which may not have a record yet."""
    return (folder / _FLAGS).exists()


def check_logdir(logdir: str | os.PathLike) -> None:
    """Checks that folders can be made in a folder, which may not exist yet.

    Raises:
        ValueError: It is a file, or in one.
    """
    path = pathlib.Path(logdir)
    there = next((parent for parent in (path, *path.parents) if parent.exists()), path)
    if there.exists() and not there.is_dir():
        where = "a file" if there == path else f"{there} is a file"
        raise ValueError(
            f"logdir must be a folder, or not exist yet. Received: {str(logdir)!r}, {where}"
        )


def check_folder(path: pathlib.Path | None, *, resume: bool, baseline: str | None = None) -> None:
    """Checks that a run can use a folder, and that the baseline it names exists.

    Args:
        path: The folder; None: it will be a new one.
        resume: Whether the run may resume what is there.
        baseline: The folder of the run whose baseline it takes. Defaults to None.

    Raises:
        ValueError: The folder exists already, or is not a folder; or there is no baseline.
    """
    if path is not None and path.exists() and not path.is_dir():
        raise ValueError(
            f"{path} must be a folder, or not exist yet: pass another --run_name or --logdir, or "
            "remove it. Received: a file"
        )
    if path is not None and path.exists() and not resume:
        raise ValueError(
            f"{path} exists already, and no run is overwritten: pass --resume to resume it, "
            "another --run_name or --logdir, or remove it."
        )
    resumes = path is not None and (path / STATE).exists()
    if baseline is None or resumes:
        return
    if not (user_path(baseline, "baseline") / BASELINE).is_dir():
        raise ValueError(
            f"baseline must be the folder of a run whose first round is over, with a folder "
            f"'{BASELINE}' in it. Received: {baseline!r}"
        )

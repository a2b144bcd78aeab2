"""The last states of a run on disk, as TensorFlow checkpoints: each is whole or refused.

TensorFlow writes and reads the files, with a checksum for each array. Which of them are kept is
decided here and not by `tf.train.CheckpointManager`: that deletes an old checkpoint before the new
one is flushed to disk, and loses track of its files when its index file `checkpoint` is damaged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from kerasrestart.experiments.records.schema import RecordError, StateContent, validate
from kerasrestart.restart.files import sync_folder

_KEPT = 2
_ARRAYS = ("variables", "run_best", "round_best")
_KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"
"""The name that a checkpoint gives to a variable of a `tf.train.Checkpoint`."""


class StateError(ValueError):
    """A state that is damaged, or not one of the run."""


@dataclasses.dataclass(frozen=True)
class SavedState:
    """A state as plain data.

    Attributes:
        content: What `kerasrestart.experiments.records.schema.StateContent` describes.
        variables: The values of the model's and the optimizer's variables.
        run_best: The weights of the best epoch of the run so far.
        round_best: Those of the round; empty where they are the same.
        folder: Where it was read, for errors; "" where it was not.
    """

    content: dict[str, Any]
    variables: Sequence[np.ndarray]
    run_best: Sequence[np.ndarray] = ()
    round_best: Sequence[np.ndarray] = ()
    folder: str = ""


class StateFolder:
    """A folder with the last two states of a run, each in a folder named by a rising number.

    Args:
        path: The folder; the first `write` creates it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    def write(self, state: SavedState) -> None:
        """Adds a state, and deletes those that are older than the one before it.

        A state gets its name when its files are on disk. So a killed process or a power failure at
        any moment leaves the last complete state.

        Raises:
            OSError, tf.errors.OpError: The files cannot be written; the states that exist stay.
        """
        if not self.path.exists():
            self.path.mkdir(parents=True)
            sync_folder(self.path.parent)
        temporary, target = self.path / ".tmp", self.path / f"{self._last_number() + 1:06d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            write_state(temporary, state)
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self.path)
        for old in self._states()[_KEPT:]:
            shutil.rmtree(old)

    def read_last_good(self) -> tuple[SavedState, str | None] | None:
        """Reads the last state that is whole, and deletes newer ones, which are damaged.

        They are deleted so that the next state does not take the place of the good one.

        Returns:
            The state, and what was wrong with a newer one, in one line, or None. None alone where
            there is no state.

        Raises:
            StateError: There are states, and none is whole.
        """
        damaged, errors = [], []
        for folder in self._states():
            try:
                state = read_state(folder)
            except StateError as error:
                damaged.append(folder)
                errors.append(str(error))
                continue
            for newer in damaged:
                shutil.rmtree(newer)
            return state, " ".join(errors) or None
        if errors:
            raise StateError(f"{' '.join(errors)} Remove the run's folder to start it again.")
        return None

    @property
    def last(self) -> pathlib.Path | None:
        """The folder of the newest state; None where there is none."""
        return next(iter(self._states()), None)

    def copy_last(self, target: pathlib.Path) -> None:
        """Copies the newest state atomically to a folder that does not exist yet."""
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(self.last, temporary, copy_function=_link_or_copy)
        _sync_files(temporary)
        temporary.replace(target)
        sync_folder(target.parent)

    def _states(self) -> list[pathlib.Path]:
        """The folders of all states, the newest first."""
        if not self.path.is_dir():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.name.isdecimal())
        return [self.path / name for name in sorted(names, key=int, reverse=True)]

    def _last_number(self) -> int:
        return 0 if self.last is None else int(self.last.name)


def write_state(folder: pathlib.Path, state: SavedState) -> None:
    """Writes a state into an empty folder, and flushes it to disk."""
    with tf.device("CPU:0"):  # a GPU holds no strings, and need not hold copies
        checkpoint = tf.train.Checkpoint(
            content=tf.Variable(json.dumps(state.content)),
            **{name: [tf.Variable(a) for a in getattr(state, name)] for name in _ARRAYS},
        )
    with _without_info():  # TensorFlow logs how long it has taken
        checkpoint.write(str(folder / "state"))
    _sync_files(folder)


def read_state(folder: pathlib.Path) -> SavedState:
    """Reads what `write_state` wrote.

    Raises:
        StateError: A file is missing, cut short or altered, or a variable is not finite.
    """
    try:
        # It reads every array, so that a damaged one is found before anything is restored.
        reader = tf.train.load_checkpoint(str(folder / "state"))
        content = validate(
            json.loads(reader.get_tensor(_KEY.format("content"))), StateContent, str(folder)
        )
        arrays = {name: list(_arrays(reader, name)) for name in _ARRAYS}
        state = SavedState(content, **arrays, folder=str(folder))
    except RecordError as error:
        raise StateError(str(error)) from error
    except (
        # Altered bytes raise errors of several families.
        *(tf.errors.OpError, IndexError, RuntimeError, SystemError, MemoryError),
        *(ValueError, KeyError, TypeError, OSError),
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StateError(f"{folder} is not a whole state of a run: {reason}.") from error
    if content["next_epoch"] and not content["restart"]["rounds"]:
        raise StateError(f"{folder} is not a valid state of a run: it has epochs, but no round.")
    for path, array in zip(content["variables"], state.variables, strict=False):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StateError(f"{folder} holds values of variable {path!r} that are not finite.")
    return state


def _arrays(reader: Any, name: str) -> Iterator[np.ndarray]:
    number = 0
    while reader.has_tensor(key := _KEY.format(f"{name}/{number}")):
        yield reader.get_tensor(key)
        number += 1


@contextlib.contextmanager
def _without_info() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _sync_files(folder: pathlib.Path) -> None:
    for file in folder.iterdir():
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())
    sync_folder(folder)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)  # files of a state are never written to again
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)

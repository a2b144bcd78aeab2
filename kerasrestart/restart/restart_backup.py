"""The state of the restarts in a file, beside `keras.callbacks.BackupAndRestore`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.network.arguments import checked_path
from kerasrestart.restart.files import write_text
from kerasrestart.restart.observer import RestartObserver, Restarts
from kerasrestart.restart.records import RestartState

_KEPT = 3
"""How many epochs are kept: the other callback may be killed before it writes the last one."""


class RestartBackup(RestartObserver):
    """Makes a killed `fit` resume exactly, beside `keras.callbacks.BackupAndRestore`.

    Keras's callback keeps the model and this observer the state of the restarts: when the same
    `fit` is called again, both resume after the last completed epoch. The file is removed when
    training has ended.

    Example:
    ```python
    backup = kerasrestart.RestartBackup("backup/restarts.json")
    restart = kerasrestart.PartialRestart(observers=[backup])
    keep = keras.callbacks.BackupAndRestore("backup/model")
    model.fit(x, y, validation_split=0.1, epochs=60, callbacks=[restart, keep])
    ```

    Put `PartialRestart` before `BackupAndRestore`: then training cannot be killed after the latter
    has written an epoch and before the former has.

    Args:
        path: The file; its folder is made where it is missing.

    Raises:
        ValueError: `path` is of another kind; at the start of `fit`: the file cannot be written; at
            the first epoch: the file is damaged, belongs to other epochs, or the model has other
            weights than at its epoch.
        OSError: Later, as where the disk is full: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = checked_path("path", path, "that of a file")
        self._epochs: dict[str, Any] = {}

    def on_train_begin(self, restart: Restarts) -> None:
        """Makes the folder, and discards the epochs of an earlier training."""
        del restart
        self._check_writable()
        self._epochs = {}

    def _check_writable(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except (OSError, ValueError) as error:  # ValueError: it has a null character
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                "path must be that of a file that can be written. Received: "
                f"{str(self.path)!r} ({reason})"
            ) from error

    def on_epoch_begin(self, epoch: int, restart: Restarts) -> None:
        """Restores the state, at the first epoch of a `fit` that resumes."""
        # Not sooner: the other callback has restored the model, whichever of the two comes first.
        if epoch and not restart.rounds:
            found = self._read(epoch - 1, restart.model)
            if found is not None:
                restart.resume(*found)

    def on_decision(self, epoch: int, restart: Restarts) -> None:
        """Writes the state that the epoch has ended with."""
        self._epochs[str(epoch)] = {
            "state": restart.state.to_dict(),
            "scores": {name: of_layer.tolist() for name, of_layer in restart.scores.items()},
            "weights": _digest(restart.model),
        }
        for old in sorted(self._epochs, key=int)[:-_KEPT]:
            del self._epochs[old]
        write_text(self.path, json.dumps(self._epochs))

    def on_train_end(self, restart: Restarts) -> None:
        """Removes the file."""
        del restart
        self.path.unlink(missing_ok=True)

    def _read(
        self, epoch: int, model: keras.Model
    ) -> tuple[RestartState, Mapping[str, np.ndarray]] | None:
        """State and scores at the end of an epoch; None where there is no file."""
        try:
            self._epochs = json.loads(self.path.read_text())
            kept = self._epochs.get(str(epoch))
            found = kept and (
                RestartState.from_dict(kept["state"]),
                {name: np.array(s, np.float32) for name, s in kept["scores"].items()},
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path} is not a backup of restarts ({error}): remove it and start again."
            ) from error
        if not found:
            raise ValueError(
                f"{self.path} has the state after epochs {', '.join(sorted(self._epochs, key=int))}"
                f", but training resumes after epoch {epoch} (counted from 0): it belongs to "
                "another training, or PartialRestart came after BackupAndRestore and was killed "
                "before it wrote. Remove both backups and start again."
            )
        if kept["weights"] != _digest(model):
            raise ValueError(
                f"The model's weights must be those of the end of epoch {epoch} (counted from 0) "
                f"in {self.path}, as of BackupAndRestore with save_freq='epoch' and no other "
                "callback that changes weights: remove both backups and start again. Received: "
                "others"
            )
        self._epochs = {n: kept for n, kept in self._epochs.items() if int(n) <= epoch}
        return found


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()

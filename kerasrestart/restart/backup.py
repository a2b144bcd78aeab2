"""The restarts' state in a file, for those who resume by `keras.callbacks.BackupAndRestore`."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.restart.files import write_text
from kerasrestart.restart.records import RestartState

_KEPT = 3
"""How many epochs are kept: the other callback may have been killed before it wrote the last."""


class Backup:
    """Keeps the state that the last epochs ended with.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._epochs: dict[str, Any] = {}

    def begin(self) -> None:
        """Forgets the epochs of an earlier training."""
        self._epochs = {}

    def write(
        self,
        epoch: int,
        model: keras.Model,
        state: RestartState,
        scores: Mapping[str, np.ndarray],
    ) -> None:
        """Adds the state that an epoch has ended with.

        Raises:
            OSError: The file cannot be written.
        """
        self._epochs[str(epoch)] = {
            "state": state.to_dict(),
            "scores": {name: of_layer.tolist() for name, of_layer in scores.items()},
            "weights": _digest(model),
        }
        for old in sorted(self._epochs, key=int)[:-_KEPT]:
            del self._epochs[old]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self._epochs))

    def read(
        self, epoch: int, model: keras.Model
    ) -> tuple[RestartState, dict[str, np.ndarray]] | None:
        """Reads the state that an epoch ended with.

        Args:
            epoch: The epoch.
            model: The model, with the weights that it had then.

        Returns:
            State and scores; None where there is no file.

        Raises:
            ValueError: The file is damaged, is of other epochs, or the model has other weights.
        """
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
                f"{self.path} is no backup of restarts ({error}): remove it, and begin anew."
            ) from error
        if not found:
            raise ValueError(
                f"{self.path} has the state after epochs {', '.join(sorted(self._epochs, key=int))}"
                f", but training goes on after epoch {epoch} (counted from 0): it belongs to "
                "another training, or PartialRestart stood behind BackupAndRestore and was killed "
                "before it wrote. Remove both backups, and begin anew."
            )
        if kept["weights"] != _digest(model):
            raise ValueError(
                f"The model's weights are not those that epoch {epoch} (counted from 0) ended with "
                f"by {self.path}: expected BackupAndRestore with save_freq='epoch' and without "
                "another callback that changes weights. Remove both backups, and begin anew."
            )
        self._epochs = {n: kept for n, kept in self._epochs.items() if int(n) <= epoch}
        return found

    def remove(self) -> None:
        """Removes the file: training has ended."""
        self.path.unlink(missing_ok=True)


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()

"""The state of a run, written at the end of each epoch and taken up again."""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasrestart.experiments.run.starting_point import StartingPoint
from kerasrestart.experiments.run.state_file import StateError, write_state
from kerasrestart.restart.files import sync_folder
from kerasrestart.restart.records import RestartState
from kerasrestart.restart.slots import build_optimizer

if TYPE_CHECKING:
    from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
    from kerasrestart.restart.callback import PartialRestart


class RunCheckpoint(keras.callbacks.Callback):
    """Writes all that a run needs to go on as if it had never stopped.

    That is the model's variables (those of its random generators among them), the optimizer's, the
    state of the restarts, the scores of the last epoch and what the evaluator holds. The order of
    the images and the draws of a restart are functions of the seed and of how far the run is, so
    that they need no state.

    It goes behind all callbacks that change the model or the logs.

    Args:
        path: Where the state goes.
        restart: The run's `PartialRestart`.
        evaluator: Its `RoundEvaluator`.
        identity: What a run must have in common with the one that it goes on with: plain data.
        baseline: Where the state before the last epoch of the first round is kept for good, so that
            other runs can go on from there. Defaults to None: nowhere.
        begin: Where the run begins in this process. Defaults to its beginning.

    Attributes:
        rollbacks: For each time that the run was rolled back, the `epoch` and `batch`, counted from
            0, in which its loss had diverged.
        epochs_saved: How many epochs the state on disk has behind it; None where there is none.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        restart: PartialRestart,
        evaluator: RoundEvaluator,
        identity: Mapping[str, Any],
        baseline: str | os.PathLike | None = None,
        begin: StartingPoint | None = None,
    ):
        super().__init__()
        self.path, self.baseline = pathlib.Path(path), baseline and pathlib.Path(baseline)
        self.restart, self.evaluator, self.identity = restart, evaluator, identity
        begin = begin or StartingPoint()
        self.rollbacks: list[dict[str, int]] = list(begin.rollbacks)
        self.epochs_saved = begin.epoch if self.path.exists() else None
        self._first_epoch = begin.epoch
        self._since = time.monotonic() - begin.seconds

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, those before it was killed included."""
        return time.monotonic() - self._since

    def on_train_begin(self, logs=None):
        """Writes the state that the run begins with, unless it has one already."""
        build_optimizer(self.model)  # that of a state has all its variables from the beginning
        if self.epochs_saved is None:
            self._write(next_epoch=self._first_epoch, done=False)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the state."""
        rounds = self.restart.rounds
        if self.baseline and rounds[0].ended and not self.baseline.exists() and self.path.exists():
            _copy_whole(self.path, self.baseline)
        done = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        self._write(next_epoch=epoch + 1, done=done)

    def _write(self, next_epoch: int, done: bool) -> None:
        variables = [*self.model.variables, *self.model.optimizer.variables]
        arrays = {f"variable/{n}": np.asarray(v.value) for n, v in enumerate(variables)}
        arrays |= {f"scores/{name}": scores for name, scores in self.restart.scores.items()}
        held, evaluations = self.evaluator.get_state()
        arrays |= {f"evaluator/{name}": array for name, array in held.items()}
        content = {
            "next_epoch": next_epoch,
            "done": done,
            "identity": self.identity,
            "variables": [variable.path for variable in variables],
            "restart": self.restart.state.to_dict(),
            "evaluator": evaluations,
            "rollbacks": self.rollbacks,
            "seconds": round(self.seconds, 1),
        }
        write_state(self.path, arrays, content)
        self.epochs_saved = next_epoch


def restore_run(
    arrays: Mapping[str, np.ndarray],
    content: Mapping[str, Any],
    model: keras.Model,
    restart: PartialRestart,
    evaluator: RoundEvaluator,
) -> None:
    """Puts a state into the objects of a run, all or nothing.

    Args:
        arrays: Arrays of the state, and
        content: its content, as `read_state` returns them.
        model: The compiled model, built as that of the state was.
        restart: The run's `PartialRestart`; its next `fit` goes on from the state.
        evaluator: The run's `RoundEvaluator`.

    Raises:
        StateError: The state is that of another model or optimizer.
    """
    build_optimizer(model)
    variables = [*model.variables, *model.optimizer.variables]
    try:
        if len(content["variables"]) != len(variables):
            raise StateError(
                f"The state has {len(content['variables'])} variables, the model and its optimizer "
                f"{len(variables)}."
            )
        values = [arrays[f"variable/{n}"] for n in range(len(variables))]
        for path, variable, value in zip(content["variables"], variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise StateError(
                    f"Variable '{path}' has shape {value.shape} in the state, but that of the "
                    f"model is {tuple(variable.shape)}."
                )
        state = RestartState.from_dict(content["restart"])
        held = _part(arrays, "evaluator/")
        evaluator.set_state(held, content["evaluator"])
    except (KeyError, TypeError) as error:
        raise StateError(f"The state lacks a part of a run: {error}") from error
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    restart.resume(state, _part(arrays, "scores/"))


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _copy_whole(source: pathlib.Path, target: pathlib.Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)  # the source is never written to, only replaced
    except OSError:  # a file system without hard links
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    sync_folder(target.parent)

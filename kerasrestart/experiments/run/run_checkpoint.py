"""The state of a run: saved at the end of each epoch, and restored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasrestart.experiments.records.growing_files import GrowingFiles
from kerasrestart.experiments.run.starting_point import StartingPoint, with_closed_records
from kerasrestart.experiments.run.state_folder import SavedState, StateError, StateFolder
from kerasrestart.restart.records import RestartState
from kerasrestart.restart.slots import build_optimizer

if TYPE_CHECKING:
    from kerasrestart.experiments.records.run_folder import RunFolder
    from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
    from kerasrestart.restart.callback import PartialRestart


class RunCheckpoint(keras.callbacks.Callback):
    """Saves all that a run needs to continue as if it had never stopped.

    That is the model's variables (the state of its random generators included), those of the
    optimizer, the state of the restarts, the scores of the last epoch and the evaluator's weights.
    The order of the images and the random numbers of a restart are functions of the seed and of the
    progress of the run, so that they need no state.

    Put it behind all callbacks that change the model or the logs.

    Args:
        folder: The run's folder.
        restart: The run's `PartialRestart`.
        evaluator: Its `RoundEvaluator`.
        identity: What the process that resumes the run must have in common with this one: plain
            data, see `identity_of`.
        keeps_baseline: Whether the state before the last epoch of the first round is kept, so that
            other runs can continue from it. Defaults to True.
        begin: Where the run starts in this process. Defaults to its beginning.

    Attributes:
        rollbacks: For each rollback of the run, the `epoch` and `batch`, counted from 0, in which
            its loss had diverged.
        epochs_saved: How many epochs the last saved state comes after; None where there is none.
    """

    def __init__(
        self,
        folder: RunFolder,
        restart: PartialRestart,
        evaluator: RoundEvaluator,
        identity: Mapping[str, Any],
        keeps_baseline: bool = True,
        begin: StartingPoint | None = None,
    ):
        super().__init__()
        begin = begin or StartingPoint()
        self.states = StateFolder(folder.state)
        self.baseline = folder.baseline if keeps_baseline else None
        self.files = GrowingFiles(folder.path)
        self.restart, self.evaluator, self.identity = restart, evaluator, identity
        self.rollbacks: list[dict[str, int]] = list(begin.rollbacks)
        self.epochs_saved = begin.epoch if self.states.last else None
        self._first_epoch = begin.epoch
        self._since = time.monotonic() - begin.seconds

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds, that of killed processes included."""
        return time.monotonic() - self._since

    def on_train_begin(self, logs=None):
        """Saves the state that the run starts with, unless it has one already."""
        build_optimizer(self.model)  # each state has all its variables, the first one too
        if self.epochs_saved is None:
            self._save(next_epoch=self._first_epoch, done=False)

    def on_epoch_end(self, epoch, logs=None):
        """Saves the state."""
        first_round_is_over = bool(self.restart.rounds[0].ended)
        if self.baseline and first_round_is_over and not self.baseline.exists():
            self.states.copy_last(self.baseline)
        done = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        self._save(next_epoch=epoch + 1, done=done)

    def read_last(self) -> SavedState:
        """Reads the last saved state."""
        state, _ = self.states.read_last_good()
        return with_closed_records(state, self.files.folder)

    def replace(self, state: SavedState) -> None:
        """Saves a state that was made of `read_last`: a process that resumes starts from it."""
        self._write(dict(state.content), state)

    def _save(self, next_epoch: int, done: bool) -> None:
        variables = variables_of(self.model)
        run_best, round_best, evaluations = self.evaluator.get_state()
        content = {
            "next_epoch": next_epoch,
            "done": done,
            "identity": self.identity,
            "variables": [variable.path for variable in variables],
            "restart": self.restart.state.to_dict(),
            "scores": {name: scores.tolist() for name, scores in self.restart.scores.items()},
            "evaluator": evaluations,
            "rollbacks": self.rollbacks,
            "seconds": round(self.seconds, 1),
        }
        values = [np.asarray(variable.value) for variable in variables]
        self._write(content, SavedState(content, values, run_best, round_best))
        self.epochs_saved = next_epoch

    def _write(self, content: dict[str, Any], state: SavedState) -> None:
        restart = content["restart"]
        self.files.append_closed(restart["events"][:-1], restart["rounds"][:-1])
        content["restart"] = {
            **restart,
            "events": restart["events"][-1:],
            "rounds": restart["rounds"][-1:],
        }
        content["files"] = self.files.marks()
        self.states.write(SavedState(content, state.variables, state.run_best, state.round_best))


def restore_run(
    state: SavedState, model: keras.Model, restart: PartialRestart, evaluator: RoundEvaluator
) -> None:
    """Puts a state into the objects of a run, all or nothing.

    Args:
        state: The state, all its restarts and rounds included.
        model: The compiled model, built as that of the state was.
        restart: The run's `PartialRestart`; its next `fit` continues from the state.
        evaluator: The run's `RoundEvaluator`.

    Raises:
        StateError: The state is that of another model or optimizer.
    """
    build_optimizer(model)
    variables = variables_of(model)
    _check_variables(variables, state)
    weights = [tuple(weight.shape) for weight in model.weights]
    for best in (state.run_best, state.round_best):
        if best and [array.shape for array in best] != weights:
            raise StateError(f"The best weights of {state.folder} are not those of the model.")
    try:
        restarts = RestartState.from_dict(state.content["restart"])
        scores = {
            name: np.array(of_layer, np.float32)
            for name, of_layer in state.content["scores"].items()
        }
        evaluator.set_state(state.run_best, state.round_best, state.content["evaluator"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{state.folder} lacks a part of a run: {error!r}.") from error
    for variable, value in zip(variables, state.variables, strict=True):
        variable.assign(value)
    restart.resume(restarts, scores)


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """The variables of a compiled model and of its optimizer, in the order of a state."""
    return [*model.variables, *model.optimizer.variables]


def _check_variables(variables: Sequence[keras.Variable], state: SavedState) -> None:
    if len(state.variables) != len(variables):
        raise StateError(
            f"{state.folder} has {len(state.variables)} variables, the model and its optimizer "
            f"have {len(variables)}."
        )
    for variable, value in zip(variables, state.variables, strict=True):
        if tuple(variable.shape) != value.shape or variable.dtype != value.dtype.name:
            raise StateError(
                f"Variable '{variable.path}' is {value.dtype.name} {value.shape} in "
                f"{state.folder}, but {variable.dtype} {tuple(variable.shape)} in the model."
            )

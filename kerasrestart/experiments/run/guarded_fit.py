"""Trains a run to its end, through divergence where that is asked for; says how to go on if not."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from kerasrestart.experiments.interruption import RunStoppedError, exit_status
from kerasrestart.experiments.records.run_folder import RunFolder
from kerasrestart.experiments.run.divergence import (
    MOST_ROLLBACKS,
    DivergedError,
    divergence_context,
    with_lower_rate,
)
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint, restore_run
from kerasrestart.experiments.run.state_file import read_last_good, write_state

# What TensorFlow makes of a full disk, a folder that is gone, memory that is used up.
_SYSTEM_ERRORS = (
    *(tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError, tf.errors.UnknownError),
    *(tf.errors.PermissionDeniedError, tf.errors.NotFoundError, tf.errors.UnavailableError),
)


def fit_to_end(
    fit: Callable[[int], None],
    first_epoch: int,
    model: keras.Model,
    checkpoint: RunCheckpoint,
    *,
    on_nan: str,
    learning_rate_factor: float,
) -> None:
    """Trains; where the loss diverges, goes back to the last good state, if so asked.

    Args:
        fit: Trains from the epoch that it is given until the run is over.
        first_epoch: That epoch.
        model: The model that it trains.
        checkpoint: What keeps the run's state.
        on_nan: `"stop"`, or `"rollback"`: takes up the state of the last epoch that has ended, with
            the learning rate lowered, up to three times in a run.
        learning_rate_factor: What the learning rate is then multiplied by.

    Raises:
        DivergedError: The loss has diverged, and there is nothing more to be done.
    """
    while True:
        try:
            return fit(first_epoch)
        except DivergedError as error:
            arrays, content, _ = read_last_good(checkpoint.path)
            before = divergence_context(checkpoint.restart.events, arrays, content["variables"])
            told = f"{error}. {before}"
            rollbacks = [*checkpoint.rollbacks, {"epoch": error.epoch, "batch": error.batch}]
            why_not = None
            if on_nan != "rollback":
                why_not = (
                    "Pass the same command with --on_nan=rollback, or a lower --learning_rate in a "
                    "new run"
                )
            elif len(rollbacks) > MOST_ROLLBACKS:
                why_not = f"Rolled back {MOST_ROLLBACKS} times already"
            if why_not:
                raise DivergedError(f"{told}. {why_not}", error.epoch, error.batch) from error
            arrays, content = with_lower_rate(arrays, content, learning_rate_factor)
            content["rollbacks"] = rollbacks
            write_state(checkpoint.path, arrays, content)  # so that a killed run goes on with it
            restore_run(arrays, content, model, checkpoint.restart, checkpoint.evaluator)
            checkpoint.rollbacks, first_epoch = rollbacks, content["next_epoch"]
            print(
                f"{told}. Went back to the end of epoch {first_epoch}; learning rate times "
                f"{learning_rate_factor:g}.",
                flush=True,
            )


@contextlib.contextmanager
def explain_interruption(folder: RunFolder, checkpoint: RunCheckpoint) -> Iterator[None]:
    """Turns what ends a run from outside into one line that says what is saved.

    Raises:
        RunStoppedError: The block was interrupted, could not write, or the loss has diverged.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise RunStoppedError(
            f"Stopped. {_go_on(folder, checkpoint)}", exit_status(error)
        ) from error
    except DivergedError as error:
        raise RunStoppedError(f"{error}. {_saved(checkpoint)}") from error
    except (OSError, MemoryError, *_SYSTEM_ERRORS) as error:
        raise RunStoppedError(f"{_reason(error)}. {_go_on(folder, checkpoint)}") from error


@contextlib.contextmanager
def explain_startup_failure() -> Iterator[None]:
    """Turns what the system refuses before training, such as memory, into one line.

    Raises:
        RunStoppedError: It has refused something.
    """
    try:
        yield
    except (MemoryError, *_SYSTEM_ERRORS) as error:
        raise RunStoppedError(f"{_reason(error)}. Training had not begun.") from error


def _reason(error: BaseException) -> str:
    return (getattr(error, "message", None) or str(error) or type(error).__name__).splitlines()[0]


def _saved(checkpoint: RunCheckpoint) -> str:
    epochs = checkpoint.epochs_saved
    if epochs is None:
        return "Nothing was trained yet."
    return f"All up to the end of epoch {epochs} is saved." if epochs else "No epoch has ended yet."


def _go_on(folder: RunFolder, checkpoint: RunCheckpoint) -> str:
    path = folder.path
    command = shlex.join(
        [
            *("python", "-m", "kerasrestart.main", f"--flagfile={path / 'flags.txt'}"),
            *(f"--logdir={path.parent}", f"--run_name={path.name}"),
        ]
    )
    return f"{_saved(checkpoint)} Go on with: {command}"

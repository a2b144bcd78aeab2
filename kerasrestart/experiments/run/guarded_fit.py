"""Trains a run to its end, through divergence where asked to; explains what stopped it if not."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from kerasrestart.experiments.interruption import RunStoppedError, exit_status
from kerasrestart.experiments.records.run_folder import RunFolder
from kerasrestart.experiments.run.divergence import (
    MAX_ROLLBACKS,
    DivergedError,
    divergence_context,
    with_lower_rate,
)
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint, restore_run

# What TensorFlow raises for a full disk, a missing folder, or exhausted memory.
_SYSTEM_ERRORS = (
    *(tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError, tf.errors.UnknownError),
    *(tf.errors.PermissionDeniedError, tf.errors.NotFoundError, tf.errors.UnavailableError),
    *(tf.errors.FailedPreconditionError, tf.errors.DataLossError),
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
    """Trains; where the loss diverges, returns to the last good state when asked to.

    Args:
        fit: Trains from the epoch that it is given until the run is over.
        first_epoch: That epoch.
        model: The model that it trains.
        checkpoint: What saves the run's state.
        on_nan: `"stop"`, or `"rollback"`: restores the state of the last completed epoch with the
            learning rate lowered, up to `MAX_ROLLBACKS` times in a run.
        learning_rate_factor: What the learning rate is then multiplied by.

    Raises:
        DivergedError: The loss has diverged, and the run is not rolled back.
    """
    while True:
        try:
            return fit(first_epoch)
        except DivergedError as error:
            state = checkpoint.read_last()
            message = f"{error}. {divergence_context(checkpoint.restart.events, state)}"
            rollbacks = [*checkpoint.rollbacks, {"epoch": error.epoch, "batch": error.batch}]
            why_not = None
            if on_nan != "rollback":
                why_not = (
                    "Run the same command with --on_nan=rollback, or start a new run with a lower "
                    "--learning_rate"
                )
            elif len(rollbacks) > MAX_ROLLBACKS:
                why_not = f"Rolled back {MAX_ROLLBACKS} times already"
            if why_not:
                raise DivergedError(f"{message}. {why_not}", error.epoch, error.batch) from error
            state = with_lower_rate(state, learning_rate_factor)
            state = dataclasses.replace(state, content={**state.content, "rollbacks": rollbacks})
            checkpoint.replace(state)  # a killed run resumes from it
            restore_run(state, model, checkpoint.restart, checkpoint.evaluator)
            checkpoint.rollbacks, first_epoch = rollbacks, state.content["next_epoch"]
            print(
                f"{message}. Rolled back to the end of epoch {first_epoch}; learning rate times "
                f"{learning_rate_factor:g}.",
                flush=True,
            )


@contextlib.contextmanager
def explain_interruption(folder: RunFolder, checkpoint: RunCheckpoint) -> Iterator[None]:
    """Turns what stops a run from outside into one line that says what is saved.

    Raises:
        RunStoppedError: The block was interrupted, could not write, or the loss has diverged.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        message = f"Stopped. {_how_to_resume(folder, checkpoint)}"
        raise RunStoppedError(message, exit_status(error)) from error
    except DivergedError as error:
        raise RunStoppedError(f"{error}. {_what_is_saved(checkpoint)}") from error
    except (OSError, MemoryError, *_SYSTEM_ERRORS) as error:
        raise RunStoppedError(f"{_reason(error)}. {_how_to_resume(folder, checkpoint)}") from error


@contextlib.contextmanager
def explain_startup_failure() -> Iterator[None]:
    """Turns what the system refuses before training, such as memory, into one line.

    Raises:
        RunStoppedError: The system has refused something.
    """
    try:
        yield
    except (MemoryError, *_SYSTEM_ERRORS) as error:
        raise RunStoppedError(f"{_reason(error)}. Training had not begun.") from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    # TensorFlow adds the names of its operations.
    return re.sub(r"^\{\{.*?\}\} |\s*\[Op:.*$", "", text.splitlines()[0]).rstrip(".")


def _what_is_saved(checkpoint: RunCheckpoint) -> str:
    epochs = checkpoint.epochs_saved
    if epochs is None:
        return "Nothing was trained yet."
    return f"All up to the end of epoch {epochs} is saved." if epochs else "No epoch has ended yet."


def _how_to_resume(folder: RunFolder, checkpoint: RunCheckpoint) -> str:
    path = folder.path
    command = shlex.join(
        [
            *("python", "-m", "kerasrestart.main", f"--flagfile={path / 'flags.txt'}"),
            *(f"--logdir={path.parent}", f"--run_name={path.name}"),
        ]
    )
    return f"{_what_is_saved(checkpoint)} Resume with: {command}"

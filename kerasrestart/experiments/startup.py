"""What a process needs before it loads Keras and TensorFlow."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from absl import logging

from kerasrestart.network.keras_backend import check_keras


def open_closed_streams() -> None:
    """Opens standard input, output and error on the null device where they are closed.

    A shell's `>&-`, a daemon and cron close them. Python's streams are then None, and the next file
    that is opened would get the output of C libraries.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


@contextlib.contextmanager
def held_back_libraries() -> Iterator[None]:
    """Holds back what C libraries write to standard error, and shows it only if the block fails.

    It stays hidden where data are wrong: a DataError says all of it in one line.

    TensorFlow writes several lines while it is imported and looks for GPUs, whatever its log level.
    Python's `sys.stderr` and absl's log stay visible. Where TensorFlow is imported already, or the
    system cannot fork, nothing is held back.
    """
    if "tensorflow" in sys.modules or not hasattr(os, "fork"):
        yield
        return
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # there is no folder for temporary files
        yield
        return
    with held, contextlib.ExitStack() as at_end:
        visible, python = os.dup(2), sys.stderr
        at_end.callback(os.close, visible)
        at_end.enter_context(_shown_after_crash(held.fileno(), visible))
        python.flush()
        sys.stderr = os.fdopen(visible, "w", buffering=1, errors=python.errors, closefd=False)
        log = logging.get_absl_handler().python_handler
        log.setStream(sys.stderr)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception as error:
            from kerasrestart.experiments.data.errors import DataError  # brings NumPy

            if not isinstance(error, DataError):
                _copy(held.fileno(), visible)
            raise
        finally:
            os.dup2(visible, 2)
            sys.stderr = python
            log.setStream(python)


@contextlib.contextmanager
def _shown_after_crash(held: int, visible: int) -> Iterator[None]:
    """Shows what is held back if this process dies inside, as from a signal."""
    watched, alive = os.pipe()
    if (watcher := os.fork()) == 0:
        try:
            os.close(alive)
            os.setpgid(0, 0)  # Ctrl-C is not for this process
            if not os.read(watched, 1):  # closed without a word
                _copy(held, visible)
        finally:
            os._exit(0)
    os.close(watched)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.write(alive, b".")
        os.close(alive)
        os.waitpid(watcher, 0)


def _copy(source: int, target: int) -> None:
    position = 0
    while some := os.pread(source, 1 << 16, position):
        position += os.write(target, some)


def choose_backend() -> None:
    """Makes Keras use TensorFlow, whatever `keras.json` says; call it before Keras is imported.

    Raises:
        ValueError: The environment asks for another backend, or for fewer epochs or steps.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    os.environ["KERAS_BACKEND"] = backend
    if backend != "tensorflow":
        raise ValueError(f"KERAS_BACKEND must be 'tensorflow' or unset. Received: {backend!r}")
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        if value := os.environ.get(name):
            raise ValueError(f"{name} must be unset, it would shorten the run. Received: {value!r}")


def load_keras() -> None:
    """Imports Keras, and with it TensorFlow.

    Raises:
        ValueError: It cannot be loaded, as where `keras.json` is damaged.
    """
    try:
        check_keras()
    except ImportError as error:
        raise ValueError(str(error)) from error

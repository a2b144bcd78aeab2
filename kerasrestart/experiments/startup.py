"""What a process needs before it loads Keras and TensorFlow."""

from __future__ import annotations

import os
import sys

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

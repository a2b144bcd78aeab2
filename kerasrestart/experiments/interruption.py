"""Ctrl-C and SIGTERM as errors, and the error of a run that was stopped."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class RunStoppedError(RuntimeError):
    """A run ended early for a reason outside the program, such as a signal or a full disk.

    Attributes:
        status: The exit status of the process.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received, as from a scheduler that needs the machine."""


def exit_status(error: KeyboardInterrupt) -> int:
    """The exit status that a shell expects after a signal: 128 plus the signal's number."""
    number = signal.SIGTERM if isinstance(error, TerminatedError) else signal.SIGINT
    return 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first Ctrl-C or SIGTERM inside into an error; the second ends the process at once.

    Raises:
        KeyboardInterrupt: At the first signal, wherever the block is; `TerminatedError` if the
            signal was SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def first(number: int, frame: FrameType | None) -> None:
        del frame
        for each in numbers:
            # The system's handler: one of Python's would wait until TensorFlow returns.
            signal.signal(each, signal.SIG_DFL)
        raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, first) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

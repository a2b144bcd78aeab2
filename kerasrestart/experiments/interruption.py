"""What ends a run before its work is done, such as Ctrl-C or a scheduler's SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class RunStoppedError(RuntimeError):
    """A run that has ended before its end, for a reason that is not in the program.

    Attributes:
        status: The exit status of the process.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come: a scheduler wants the machine back."""


def exit_status(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that a signal has ended: 128 and the signal's number."""
    number = signal.SIGTERM if isinstance(error, TerminatedError) else signal.SIGINT
    return 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first Ctrl-C or SIGTERM inside into an error; the second ends the process at once.

    Raises:
        KeyboardInterrupt: At the first signal, where the block then is; `TerminatedError` where it
            was SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread alone
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def first(number: int, frame: FrameType | None) -> None:
        del frame
        for each in numbers:
            # Not a handler of Python, which would wait for TensorFlow to return.
            signal.signal(each, signal.SIG_DFL)
        raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, first) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

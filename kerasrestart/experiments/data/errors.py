"""Errors of this package, and the checks of integer arguments that raise them."""

import operator

from kerasrestart.network.text import one_line


class DataError(ValueError):
    """Raised for an argument that is not valid, or for data that cannot be used.

    The message is one line: what is valid, and last the value received.
    """


class UnavailableError(DataError):
    """Raised when a data set is not on disk and cannot be downloaded."""


def check_integer(name: str, value: int, low: int, high: int | None = None) -> int:
    """Returns `value` as an `int` after checking that it is an integer in `low..high`.

    Args:
        name: Name of the argument, for the error message.
        value: Any integer, NumPy's included. A `bool` is refused.
        low: Smallest valid value.
        high: Largest valid value. Defaults to `None`: no limit.

    Returns:
        The value as a Python `int`.

    Raises:
        DataError: If `value` is not an integer, or is out of range.
    """
    valid = f"of at least {low}" if high is None else f"in {low}..{high}"
    message = f"{name} must be an integer {valid}. Received: {value!r}"
    if isinstance(value, bool):
        raise DataError(message)
    try:
        number = operator.index(value)
    except TypeError:
        raise DataError(message) from None
    if number < low or (high is not None and number > high):
        raise DataError(message)
    return number


def check_seed(seed: int) -> int:
    """Returns `seed` as an `int` after checking that it is valid for NumPy and TensorFlow.

    Args:
        seed: An integer in 0..2^63-1.

    Raises:
        DataError: If `seed` is not an integer, or is out of range.
    """
    return check_integer("seed", seed, 0, 2**63 - 1)


def error_line(error: BaseException) -> str:
    """An error's type and message as one line of at most 200 characters."""
    return one_line(f"{type(error).__name__}: {error}", longest=200)

"""The one error of this package, and the check of whole-number arguments that raises it."""

import operator


class DataError(ValueError):
    """A data set, or a request for one, that cannot be used.

    The message is one line, written for whoever typed the command: what was wrong, what was
    received and what would be right.
    """


class UnavailableError(DataError):
    """A data set that is neither on disk nor within reach of a download."""


def check_integer(name: str, value: int, low: int, high: int | None = None) -> int:
    """Returns `value` as an `int` if it is a whole number in `low..high`.

    Args:
        name: The argument's name, for the error.
        value: Any integer, NumPy's included; a `bool` is refused.
        low: Least value allowed.
        high: Greatest value allowed; `None` (the default) for no limit.

    Returns:
        The value as a Python `int`.

    Raises:
        DataError: If `value` is not a whole number, or out of range.
    """
    wanted = (
        f"a whole number of at least {low}" if high is None else f"a whole number {low}..{high}"
    )
    message = f"{name} must be {wanted}, but is {value!r}"
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
    """Returns `seed` as an `int` if it is in 0..2^63-1, which both NumPy and TensorFlow take.

    Raises:
        DataError: Otherwise.
    """
    return check_integer("seed", seed, 0, 2**63 - 1)


def one_line(error: BaseException, limit: int = 200) -> str:
    """Returns an error's type and text as one line of at most about `limit` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= limit else text[: limit - 3] + "..."

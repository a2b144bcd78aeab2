"""Checks of arguments, made before any work; readable without TensorFlow."""

from __future__ import annotations

import math
import numbers
import os
import pathlib
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from kerasrestart.network.text import did_you_mean, shown


def check(name: str, value: Any, right: bool, expected: str) -> None:
    """Refuses an argument that is out of range.

    Args:
        name: Its name.
        value: The value received.
        right: Whether that value can be used.
        expected: The values that can, as in "1 or more".

    Raises:
        ValueError: The value cannot be used.
    """
    if not right:
        raise ValueError(f"{name} must be {expected}. Received: {shown(value)}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses a value that is not one of `choices`; ValueError."""
    if not isinstance(value, Hashable) or value not in choices:  # an array compares by element
        words = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {list(choices)}. Received: {shown(value)}{hint}")


def check_whole(name: str, value: Any, lowest: int) -> None:
    """Refuses a value that is not a whole number of at least `lowest`; ValueError."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    check(name, value, is_whole and value >= lowest, f"a whole number, {lowest} or more")


def check_share(name: str, value: Any, *, low: bool = False, high: bool = False) -> None:
    """Refuses a value that is not a number between 0 and 1; ValueError.

    Args:
        name: The argument's name.
        value: The value received.
        low: Whether 0 can be used. Defaults to False.
        high: Whether 1 can be used. Defaults to False.
    """
    right = is_number(value) and (0 < value < 1 or (low and value == 0) or (high and value == 1))
    bounds = {
        (False, False): "between 0 and 1, both excluded",
        (False, True): "above 0 and at most 1",
        (True, False): "0 or more and below 1",
        (True, True): "between 0 and 1, both included",
    }
    check(name, value, right, f"a number {bounds[low, high]}")


def checked_path(name: str, value: Any, what: str) -> pathlib.Path:
    """Returns a path; ValueError where the value is none.

    Args:
        name: The argument's name.
        value: The value received.
        what: What the path is to be, as in "that of a folder".
    """
    right = isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)
    check(name, value, right, f"a path, {what}")
    return pathlib.Path(value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )


def checked_layers(layers: Any) -> str | tuple[str, ...] | None:
    """Checks the argument that names the layers that take part.

    Args:
        layers: A regular expression, names, or None for the default.

    Returns:
        The same, names as a tuple.

    Raises:
        ValueError: It is something else.
    """
    if layers is None:
        return None
    if isinstance(layers, str):
        try:
            re.compile(layers)
        except re.error as error:
            raise ValueError(
                "layers must be a regular expression or a list of names. Received: "
                f"{layers!r} ({error})"
            ) from None
        return layers
    names = tuple(layers) if isinstance(layers, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "layers must be a regular expression or a list of at least one name. "
            f"Received: {shown(layers)}"
        )
    return names

"""Checks of arguments, made before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def check(name: str, value: Any, right: bool, expected: str) -> None:
    """Refuses an argument that is out of range.

    Args:
        name: Its name.
        value: What was received.
        right: Whether that can be used.
        expected: What could be, as in "1 or more".

    Raises:
        ValueError: It cannot.
    """
    if not right:
        raise ValueError(f"{name} must be {expected}. Received: {value}")


def checked_layers(layers: Any) -> str | tuple[str, ...] | None:
    """Checks the argument that says which layers take part.

    Args:
        layers: A regular expression, names, or None: what goes without saying.

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
            "layers must be a regular expression or a list of names, one at least. "
            f"Received: {layers!r}"
        )
    return names

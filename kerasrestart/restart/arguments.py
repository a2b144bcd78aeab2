"""Checks of arguments, made before any work."""

from __future__ import annotations

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

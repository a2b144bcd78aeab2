"""Checks of arguments, made before any work; readable without TensorFlow."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# Arguments of parts that are easily taken for arguments of `PartialRestart`: by name, the part and
# how it is given.
PARTS = {
    "threshold": ("BelowMean", "select=BelowMean(0.1)"),
    "scope": ("GlobalFraction", "select=GlobalFraction(0.1)"),
    "cap": ("GlobalFraction and BelowMean", "select=GlobalFraction(0.1, cap=0.5)"),
    "normalize": ("GlobalFraction", "select=GlobalFraction(0.1, normalize='l2')"),
    "min_survivors": ("Fraction", "select=Fraction(0.1, min_survivors=2)"),
    "round_epochs": ("EveryEpochs", "when=EveryEpochs(15)"),
    "mode": ("OnPlateau", "when=OnPlateau('metric', mode='max')"),
    "min_delta": ("OnPlateau", "when=OnPlateau(min_delta=0.001)"),
    "target": ("OnPlateau and EveryEpochs", "when=OnPlateau(target=0.1)"),
    "learning_rate_drops": ("OnPlateau and EveryEpochs", "when=OnPlateau(learning_rate_drops=1)"),
    "learning_rate_factor": (
        "OnPlateau and EveryEpochs",
        "when=OnPlateau(learning_rate_drops=1, learning_rate_factor=0.5)",
    ),
    "recovery_epochs": ("OnPlateau and EveryEpochs", "when=OnPlateau(recovery_epochs=3)"),
    "stop_when_done": ("OnPlateau and EveryEpochs", "when=OnPlateau(stop_when_done=False)"),
    "outgoing": ("Reset", "reset=Reset('uniform', outgoing='zero')"),
    "grace_restarts": ("Reset", "reset=Reset('uniform', outgoing='zero', grace_restarts=2)"),
    "second_moment": ("Reset", "reset=Reset('uniform', second_moment='survivors')"),
    "reset_norm": ("Reset", "reset=Reset('uniform', norms=False)"),
    "norms": ("Reset", "reset=Reset('uniform', norms=False)"),
    "compensate_bias": ("Reset", "reset=Reset('uniform', outgoing='zero', compensate_bias=True)"),
    "score_every": ("Scoring", "criterion=Scoring('taylor', every=8)"),
    "score_window": ("Scoring", "criterion=Scoring('taylor', window=1)"),
    "backup": ("RestartBackup", "observers=[RestartBackup(path)]"),
    "verbose": ("fit", "model.fit(..., verbose=0)"),
}
# Short forms, by the part that replaces them.
SHORT_FORMS = {"reset": ("initializer",), "select": ("fraction",), "when": ("monitor", "patience")}


def explain_parts(init: Callable[..., None]) -> Callable[..., None]:
    """Makes `PartialRestart.__init__` refuse arguments of its parts, and short forms beside them.

    Args:
        init: The method.

    Returns:
        A method of the same signature. It raises TypeError for an argument of a part, and
        ValueError for a short form beside the part that replaces it.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> None:
        for name in (name for name in kwargs if name in PARTS):
            part, example = PARTS[name]
            raise TypeError(f"{name} is an argument of {part} now: {example}")
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # `init` raises it, with its own name
        for part, short_forms in SHORT_FORMS.items():
            both = [name for name in short_forms if name in given and given.get(part) is not None]
            if both:
                raise ValueError(
                    f"{both[0]} is replaced by {part}: expected one of them. Received: "
                    f"{both[0]}={given[both[0]]!r}, {part}={given[part]!r}"
                )
        if getattr(given.get("when"), "replacement_rate", None) is not None:
            for name in ("select", "fraction"):
                if given.get(name) is not None:
                    raise ValueError(
                        f"replacement_rate says how many filters are restarted: expected no {name} "
                        f"beside it. Received: {name}={given[name]!r}, when={given['when']!r}"
                    )
        init(*args, **kwargs)

    return checked


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
        raise ValueError(f"{name} must be {expected}. Received: {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses a value that is not one of `choices`; ValueError."""
    check(name, value, value in choices, f"one of {list(choices)}")


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
            f"Received: {layers!r}"
        )
    return names

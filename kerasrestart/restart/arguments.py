"""Explains arguments that belong to a part of `PartialRestart`; readable without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.when import EveryEpochs, OnPlateau
from kerasrestart.scoring.scoring import Scoring

# The argument that takes each part.
PARTS: Mapping[type, str] = {
    **dict.fromkeys((Fraction, BelowMean, GlobalFraction), "select"),
    **dict.fromkeys((OnPlateau, EveryEpochs, EverySteps), "when"),
    Reset: "reset",
    Scoring: "criterion",
}
# Short forms, by the part that replaces them.
SHORT_FORMS = {"reset": ("initializer",), "select": ("fraction",), "when": ("monitor", "patience")}
# What an example has beside the misplaced argument: arguments without a default, and those without
# which the misplaced one has no effect.
_NEEDED = {"epochs": 15, "steps": 1000}
_BESIDE: Mapping[str, Mapping[str, Any]] = {
    "learning_rate_factor": {"learning_rate_drops": 1},
    "compensate_bias": {"outgoing": "zero"},
    "grace_restarts": {"outgoing": "zero"},
    "drop_epochs": {"outgoing": "zero"},
}


def explain_parts(
    *parts: type, of_fit: Sequence[str] = (), refused: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes an `__init__` refuse arguments of its parts, and what is not used beside them.

    Args:
        *parts: The classes in `PARTS` that the `__init__` accepts.
        of_fit: Arguments of `fit` that are easily taken for its own. Defaults to none.
        refused: Arguments of these parts that it does not accept. Defaults to none.

    Returns:
        A decorator. The method it returns has the same signature. It raises TypeError for an
        argument of a part, and ValueError for a short form beside the part that replaces it.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        return _explaining(init, parts, of_fit, refused)

    return decorate


def _explaining(
    init: Callable[..., None],
    parts: Sequence[type],
    of_fit: Sequence[str],
    refused: Sequence[str],
) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> None:
        for name in (n for n in kwargs if n not in (*signature.parameters, *refused)):
            if name in of_fit:
                raise TypeError(
                    f"{name} is an argument of fit: model.fit(..., {name}={_value(kwargs[name])})"
                )
            having = [part for part in parts if name in _fields(part)]
            if having:
                raise TypeError(
                    f"{name} is an argument of {_joined(having)}: {_example(name, having, kwargs)}"
                )
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # `init` raises it, with its own name
        for part, short_forms in SHORT_FORMS.items():
            both = [name for name in short_forms if name in given and given.get(part) is not None]
            if both:
                raise ValueError(
                    f"{both[0]} is replaced by {part}: one of them must be left out. Received: "
                    f"{both[0]}={given[both[0]]!r}, {part}={given[part]!r}"
                )
        for part, why in _selects_itself(given).items():
            for name in ("select", "fraction"):
                if given.get(name) is not None:
                    raise ValueError(
                        f"{why}: {name} must be left out. Received: "
                        f"{name}={given[name]!r}, {part}={given[part]!r}"
                    )
        init(*args, **kwargs)

    return checked


def _selects_itself(given: Mapping[str, Any]) -> dict[str, str]:
    """The parts beside which a selection is not used: by name, why."""
    parts = {}
    if getattr(given.get("when"), "replacement_rate", None) is not None:
        parts["when"] = "replacement_rate says how many filters are restarted"
    reset = given.get("reset")
    if not isinstance(reset, Reset) and (hasattr(reset, "apply") or callable(reset)):
        parts["reset"] = "A remedy selects no filters"
    return parts


def _fields(part: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(part)}


def _joined(parts: Sequence[type]) -> str:
    *first, last = (part.__name__ for part in parts)
    return f"{', '.join(first)} and {last}" if first else last


def _example(name: str, parts: Sequence[type], given: Mapping[str, Any]) -> str:
    """A part with a misplaced argument, as it is written: the class given, or the first that fits.

    Args:
        name: The argument.
        parts: The classes that have it.
        given: All arguments by name.
    """
    argument = PARTS[parts[0]]
    present = given.get(argument)
    part = type(present) if type(present) in parts else parts[0]
    values: dict[str, Any] = dict(_BESIDE.get(name, {}))
    for other, field in _fields(part).items():
        if field.default is dataclasses.MISSING:
            values[other] = getattr(present, other, _NEEDED[other])
    values[name] = given[name]
    shown = ", ".join(f"{n}={_value(value)}" for n, value in values.items())
    return f"{argument}={part.__name__}({shown})"


def _value(value: Any) -> str:
    """A value in one line: in full if it is a number or a text, else dots."""
    return repr(value) if isinstance(value, bool | int | float | str | None) else "..."

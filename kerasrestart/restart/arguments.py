"""Explains arguments that belong to a part of `PartialRestart`; readable without TensorFlow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kerasrestart.restart.reset import Reset

# Arguments of parts that are easily taken for arguments of `PartialRestart`: by name, the part and
# how it is given.
PARTS = {
    "cap": ("GlobalFraction and BelowMean", "select=GlobalFraction(0.1, cap=0.5)"),
    "normalize": ("GlobalFraction", "select=GlobalFraction(0.1, normalize='l2')"),
    "min_survivors": ("Fraction", "select=Fraction(0.1, min_survivors=2)"),
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
    "norms": ("Reset", "reset=Reset('uniform', norms=False)"),
    "compensate_bias": ("Reset", "reset=Reset('uniform', outgoing='zero', compensate_bias=True)"),
    "verbose": ("fit", "model.fit(..., verbose=0)"),
}
# Short forms, by the part that replaces them.
SHORT_FORMS = {"reset": ("initializer",), "select": ("fraction",), "when": ("monitor", "patience")}


def explain_parts(init: Callable[..., None]) -> Callable[..., None]:
    """Makes an `__init__` refuse arguments of its parts, and what is not used beside them.

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
            raise TypeError(f"{name} is an argument of {part}: {example}")
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
        for part, why in _selects_itself(given).items():
            for name in ("select", "fraction"):
                if given.get(name) is not None:
                    raise ValueError(
                        f"{why}: expected no {name} beside it. Received: "
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

"""Which options of a restart go together: for arguments and for flags, read without TensorFlow."""

from __future__ import annotations

from typing import Any

from kerasrestart.restart.names import OUTGOING, SLOTS
from kerasrestart.restart.selection import Selection


def check_combination(
    selection: Selection,
    *,
    initializer: Any,
    reverses: bool,
    outgoing: str,
    compensate_bias: bool,
) -> None:
    """Checks all that can be told of a restart's options before there is a network.

    Args:
        selection: Which filters; what does not go together in it, it has refused itself.
        initializer: What they are initialised with: a name; what has none goes with all else.
        reverses: Whether the criterion is a reversed one.
        outgoing: What becomes of outgoing weights.
        compensate_bias: Whether biases are to take up what filters gave.

    Raises:
        ValueError: `outgoing` is not known, or two options exclude each other.
    """
    check_outgoing(outgoing, compensates=compensate_bias)
    if isinstance(initializer, str) and initializer == SLOTS:
        check_slots_alone(outgoing)
    if isinstance(initializer, str) and initializer == "zeros" and outgoing == "zero":
        raise ValueError(
            "With weights of zero on both sides a filter would never learn again: expected another "
            "initializer, or outgoing='keep'. Received: initializer='zeros', outgoing='zero'"
        )
    if reverses and selection.threshold is not None:
        raise ValueError(
            "threshold is a share of the mean score, and needs scores of 0 or more: expected a "
            f"fraction with a reversed criterion. Received: threshold={selection.threshold}"
        )


def check_slots_alone(outgoing: str) -> None:
    """Refuses `outgoing="zero"` with an initializer that keeps the weights; ValueError."""
    if outgoing != "keep":
        raise ValueError(
            "initializer='slots' changes no weight: expected outgoing='keep'. "
            f"Received: outgoing={outgoing!r}"
        )


def check_outgoing(outgoing: str, *, compensates: bool = False) -> None:
    """Checks the name of an outgoing rule, and that there is something to make up for; ValueError.

    Args:
        outgoing: The name.
        compensates: Whether biases are to take up what filters gave.
    """
    if outgoing not in OUTGOING:
        raise ValueError(f"outgoing must be one of {list(OUTGOING)}. Received: {outgoing!r}")
    if compensates and outgoing != "zero":
        raise ValueError(
            "A bias makes up for outgoing weights that are set to zero: expected outgoing='zero' "
            "with compensate_bias=True or reader_input_means. Received: "
            f"outgoing={outgoing!r}"
        )

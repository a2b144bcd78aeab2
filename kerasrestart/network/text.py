"""Text of the messages of all packages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def one_line(value: Any, longest: int | None = None) -> str:
    """A value as text without line breaks; an error without a message as the name of its type.

    Args:
        value: The value.
        longest: Length in characters to which the text is cut. Defaults to None: it is not cut.
    """
    text = " ".join(str(value).split())
    if not text and isinstance(value, BaseException):
        text = type(value).__name__
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."


def shown(value: Any) -> str:
    """A value in a message: its `repr` in one line, cut to 200 characters."""
    return one_line(repr(value), 200)


def cause_of(error: BaseException) -> str:
    """The line of an error of Keras or TensorFlow that says what was wrong, or ""."""
    lines = (re.sub("\x1b\\[[0-9;]*m", "", line).strip() for line in str(error).splitlines())
    causes = (re.sub(r"^\(0\) [A-Z_]+: +", "", line) for line in lines if not _AROUND.match(line))
    return next(causes, "")


# What Keras and TensorFlow write around it: the layer, or the node and its stack.
_AROUND = re.compile(
    r"$|Exception encountered|Graph execution error|Detected at node|File \"|\d+ root error"
)


def listed(names: Sequence[str], width: int = 60) -> str:
    """Joins names, as many as there is room for: "relu3, conv7 and 5 more".

    Args:
        names: The names; at least the first is shown.
        width: Length in characters, without the last words. Defaults to 60.
    """
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= width:
        shown += 1
    more = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + more


def listed_reasons(reasons: Mapping[str, str], width: int = 200) -> str:
    """Joins names, each with its reason: "conv1 (it is frozen), conv2 (it is shared) and 5 more".

    Args:
        reasons: By name, the reason; at least the first is shown.
        width: As in `listed`. Defaults to 200.
    """
    return listed([f"{name} ({why})" for name, why in reasons.items()], width)


def did_you_mean(value: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """The end of a message about a word that is not known.

    Args:
        value: The word.
        known: The words that are known.
        cutoff: How similar a word must be, from 0 to 1. Defaults to 0.6.

    Returns:
        ". Did you mean uniform?", or "" where no known word is similar.
    """
    close = difflib.get_close_matches(value, known, n=1, cutoff=cutoff)
    return f". Did you mean {close[0]}?" if close else ""

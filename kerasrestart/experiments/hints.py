"""What a message suggests in place of a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def did_you_mean(value: str, known: Collection[str]) -> str:
    """The end of a message about a word that is not known.

    Args:
        value: The word.
        known: The words that are known.

    Returns:
        ". Did you mean uniform?", or "" where no known word is similar.
    """
    close = difflib.get_close_matches(value, known, n=1)
    return f". Did you mean {close[0]}?" if close else ""

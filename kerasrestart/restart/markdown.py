"""Texts in Markdown: tables, and values that stand as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def align(header: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Makes a Markdown table of columns that stand below each other in a terminal too.

    Args:
        header: The names of the columns.
        lines: The rows, a text for each column.
        right: For each column whether it is set to the right, as numbers are.
    """
    # Three, for a rule of a colon alone is none.
    widths = [max(3, *map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    cells = (
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for line in (header, rule, *lines)
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, all set to the left; arguments as in `align`."""
    return align(header, rows, right=[False] * len(header))


def code(value: Any) -> str:
    """A value as inline code in a cell of a table, where `_`, `*`, `<` and `|` are themselves."""
    text = one_line(value).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


def one_line(value: Any) -> str:
    """A value as text without line breaks."""
    return " ".join(str(value).split())

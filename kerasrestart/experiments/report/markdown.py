"""Markdown: tables, and texts that keep their characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kerasrestart.network.text import one_line


def align(header: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Formats a Markdown table with aligned columns, so that it reads well as plain text.

    Args:
        header: The names of the columns.
        lines: The rows, a text for each column.
        right: For each column whether it is right-aligned, as numbers are.
    """
    # At least three characters, as a rule of a single colon is not valid.
    widths = [max(3, *map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    cells = (
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for line in (header, rule, *lines)
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of left-aligned texts; arguments as in `align`."""
    return align(header, rows, right=[False] * len(header))


def code(value: Any) -> str:
    """A value as inline code in a cell of a table; `_`, `*`, `<` and `|` are literal."""
    text = one_line(value).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else ""


def escape(value: Any) -> str:
    """A value as one line of text without any markup: links, images and emphasis are literal."""
    # An underscore inside a word is not markup.
    markup = r"([\\`*\[\]<>|#]|(?<!\w)_|_(?!\w)|&(?=#?\w+;))"
    return re.sub(markup, r"\\\1", one_line(value))

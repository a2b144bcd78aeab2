"""Tables and texts for a terminal, through rich; plain where the output is redirected."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table

WIDTH = 80


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[int] = (0,),
    wrapped: Collection[int] | None = None,
    file: TextIO | None = None,
) -> None:
    """Prints a table in at most 80 columns.

    Args:
        header: The names of the columns.
        rows: The rows, a text for each column.
        texts: The columns of words, left-aligned; the others hold numbers, right-aligned. Defaults
            to the first.
        wrapped: Those of them that are wrapped where the table is too wide. Defaults to None: all
            but the first.
        file: Where to. Defaults to None: standard output.
    """
    console = _console(file)
    wrapped = [number for number in texts if number > 0] if wrapped is None else wrapped
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for number, name in enumerate(header):
        if number in texts:
            name = name if number in wrapped else name.replace(" ", "\n")
            table.add_column(name, overflow="fold", no_wrap=number not in wrapped)
        else:  # as narrow as its numbers
            table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_text(text: str, file: TextIO | None = None) -> None:
    """Prints a paragraph, wrapped at 80 columns in a terminal; as one line otherwise."""
    console = _console(file)
    console.print(text, soft_wrap=not console.is_terminal)


def _console(file: TextIO | None) -> Console:
    file = file or sys.stdout or io.StringIO()  # a daemon has no standard output
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    # Redirected output has no width of its own.
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console

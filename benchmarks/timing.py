"""What all measurements are made of: costs, the ratios of pairs, and a table of them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds that a piece of work took.

    Attributes:
        cpu: CPU time of all threads of the process, user and system.
        wall: Time on the wall clock.
    """

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Cost:
        """The two clocks; the difference of two readings is a cost."""
        return cls(time.process_time(), time.perf_counter())

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.wall - other.wall)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what was measured, and what it is to be."""

    what: str
    network: str
    values: Sequence[float]
    unit: str = ""
    target: str = ""

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)

    def cells(self) -> list[str]:
        """The cells of the line."""
        spread = f"{min(self.values):.3f} to {max(self.values):.3f}"
        median = f"{self.median:.3f}{self.unit and ' ' + self.unit}"
        return [self.what, self.network, median, spread, str(len(self.values)), self.target]


def ratios(of: Sequence[Cost], to: Sequence[Cost], clock: str = "cpu") -> list[float]:
    """For each pair the cost of the first over that of the second, by `"cpu"` or `"wall"`."""
    return [getattr(a, clock) / getattr(b, clock) for a, b in zip(of, to, strict=True)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown: medians with their range over n measurements."""
    head = ["what", "network", "median", "range", "n", "target"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def report(title: str, rows: Sequence[Row], notes: Sequence[str], output: str | None) -> None:
    """Prints a table, and writes it where a file is named.

    Args:
        title: The command that made it.
        rows: Its rows.
        notes: Lines above it.
        output: The file; None for none.
    """
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    notes = [f"{cores()} cores; load at the end {load}.", *notes]
    text = "\n".join([f"`{title}`", "", *(f"- {note}" for note in notes), "", table(rows), ""])
    print(text, flush=True)
    if output:
        path = pathlib.Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

"""`StudyResult`: what a study has written, for Python."""

from __future__ import annotations

import csv
import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """The result of `kerasrestart.experiments.study`, read from its files.

    Example:
    ```python
    from kerasrestart import experiments
    from nets import tiny

    result = experiments.study(study_name="mine", network=tiny, arms=["uniform"], seeds=range(4))
    for row in result.table:
        print(row["arm"], row["difference"], row["low"], row["high"])
    ```

    Attributes:
        path: The study's folder, with the folder of each run.
        report: Its report as one HTML page; `report.md` is beside it.
    """

    path: pathlib.Path
    report: pathlib.Path

    @property
    def table(self) -> list[dict[str, str | float | None]]:
        """A row for each arm: its difference from the control in points, with its interval."""
        return _rows(self.report.parent / "tables" / "differences.csv")

    @property
    def runs(self) -> list[dict[str, str | float | None]]:
        """A row for each run: arm, seed, outcome (0..1), epochs, seconds and folder."""
        return _rows(self.report.parent / "runs.csv")

    def __str__(self):
        table = self.report.with_name("tables") / "differences.md"
        return table.read_text().rstrip() if table.exists() else f"No report in {self.path}"


def _rows(path: pathlib.Path) -> list[dict[str, str | float | None]]:
    with path.open(newline="") as file:
        return [{n: _value(text) for n, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> str | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None

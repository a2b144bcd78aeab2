"""The results of a study in a terminal: differences from the control, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from kerasrestart.experiments.report.terminal import print_table, print_text
from kerasrestart.experiments.study.comparison import Arm, Group
from kerasrestart.experiments.study.statistics import p_cell


def print_verdicts(groups: Sequence[Group], file: TextIO | None = None) -> None:
    """Prints for each model and variation a table of differences, and the verdicts.

    Args:
        groups: The study.
        file: Where to. Defaults to None: standard output.
    """
    header = ("arm", "n", "outcome", "difference", "95% interval", "p (Holm)")
    for group in groups:
        print_text(f"\n{group.name}: {group.outcome}, in percent", file=file)
        print_table(header, [_row(arm) for arm in group.arms], texts=(0,), file=file)
        for sentence in group.sentences():
            print_text(f"- {sentence.replace('**', '')}", file=file)


def _row(arm: Arm) -> list[str]:
    cells = [arm.name, str(arm.summary.n), arm.summary.text]
    if (found := arm.difference) is None:
        return [*cells, "", "", ""]
    return [*cells, f"{found.mean:+.2f}", found.interval, p_cell(arm.adjusted_p)]

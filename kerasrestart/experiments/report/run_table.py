"""The table of a run for a page and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from kerasrestart.experiments.report.markdown import align, escape
from kerasrestart.experiments.report.terminal import print_table, print_text

_ACCURACIES = {
    "train last": "train_accuracy_last",
    "val. best": "validation_accuracy",
    "test best": "test_accuracy",
    "test last": "test_accuracy_last",
}

LEGEND = "Accuracy in percent, at the last epoch of a round and at its best one."


def run_table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a run's table, accuracies in percent.

    Layers are summed up, and measures without any value have no column.

    Args:
        record: A run's record, of which `table` and `events` are read.
    """
    rows = record["table"]
    shown = {
        name: key for name, key in _ACCURACIES.items() if any(row[key] is not None for row in rows)
    }
    header = ["round", "epochs", "best epoch", *shown, "filters restarted"]
    events = {f"restart {event['restart']}": event for event in record["events"]}
    lines = [
        [
            str(row["round"]),
            str(row["epochs"]),
            str(row["best_epoch"] + 1),
            *("" if row[key] is None else f"{100 * row[key]:.2f}" for key in shown.values()),
            _restarted(row["restarted"], events.get(row["round"])),
        ]
        for row in rows
    ]
    return header, lines


def run_table_markdown(record: Mapping[str, Any]) -> str:
    """The table of a run in Markdown."""
    header, lines = run_table(record)
    lines = [[escape(cell) for cell in line] for line in lines]
    return align(header, lines, right=[0 < n < len(header) - 1 for n in range(len(header))])


def print_run_table(record: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Prints the table of a run in at most 80 columns.

    Args:
        record: As in `run_table`.
        file: Where to. Defaults to None: standard output.
    """
    header, lines = run_table(record)
    print_table(header, lines, texts=(0, len(header) - 1), file=file)
    print_text(LEGEND, file=file)


def _restarted(restarted: Mapping[str, int], event: Mapping[str, Any] | None) -> str:
    """Such as `68 of 688 in 19 layers`."""
    if not restarted:
        return "none"
    total = ""
    if event is not None:
        sizes = [len(event["layers"][name]["scores"]) for name in restarted]
        total = f" of {sum(sizes)}"
    layers = "1 layer" if len(restarted) == 1 else f"{len(restarted)} layers"
    return f"{sum(restarted.values())}{total} in {layers}"

"""The report of a log folder: one run, or all runs in it compared."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records.run_folder import is_run
from kerasrestart.experiments.records.run_record import RECORD
from kerasrestart.experiments.report.html_page import to_html
from kerasrestart.experiments.report.markdown import align, escape
from kerasrestart.experiments.report.run_report import REPORT, load_record, write_run_report
from kerasrestart.experiments.report.terminal import print_table, print_text
from kerasrestart.restart.files import write_text

_HEADER = ["run", "model", "init", "epochs", "best round", "val. best", "test best", "gain"]
_LEGEND = (
    "Accuracy in percent at the run's best epoch (by validation accuracy); gain: points of "
    "validation accuracy above the run's own baseline."
)

_NO_RECORD = "Runs without a record, which is written when their first round ends"


def write_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into the folder of a run, or into a folder of runs.

    For a folder of runs it also prints the table of the runs, in their order by name.

    Args:
        folder: The folder.

    Returns:
        The file.

    Raises:
        ValueError: There is no run record in the folder or its sub-folders, or a damaged one.
        OSError: The file cannot be written.
    """
    runs = [run for run in _sub_folders(folder) if os.path.lexists(run / RECORD)]
    if os.path.lexists(folder / RECORD) or not runs:
        return write_run_report(folder)
    rows = [_row(run, load_record(run)) for run in runs]
    others = [run.name for run in _sub_folders(folder) if is_run(run) and run not in runs]
    legend = f"{_LEGEND} {_NO_RECORD}: {', '.join(others)}." if others else _LEGEND
    print_table(_HEADER, rows, texts=(0, 1, 2, 4))
    print_text(legend)
    title = f"Runs in {folder.resolve().name}"
    cells = [[escape(cell) for cell in row] for row in rows]
    right = [name in ("epochs", "val. best", "test best", "gain") for name in _HEADER]
    text = "\n\n".join([f"# {escape(title)}", align(_HEADER, cells, right), escape(legend)]) + "\n"
    write_text(folder / REPORT, to_html(text, title, {}))
    return folder / REPORT


def _sub_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _row(run: pathlib.Path, record: Mapping[str, Any]) -> list[str]:
    try:
        settings, table = record["settings"], record["table"]
        row = [run.name, str(settings["model"]), str(settings["init"])]
        row.append(str(sum(line["epochs"] for line in table)))
        measured = [line for line in table if line["validation_accuracy"] is not None]
        if not measured:
            return [*row, "", "", "", ""]
        best = max(measured, key=lambda line: line["validation_accuracy"])
        gain = best["validation_accuracy"] - measured[0]["validation_accuracy"]
        values = (best["validation_accuracy"], best["test_accuracy"])
        return [
            *(*row, str(best["round"])),
            *("" if value is None else f"{100 * value:.2f}" for value in values),
            f"{100 * gain:+.2f}",
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run / RECORD} is not a valid run record: {error!r}.") from error

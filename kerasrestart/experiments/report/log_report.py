"""The report of a log folder: one run, or all runs in it compared."""

from __future__ import annotations

import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.records.run_folder import is_run
from kerasrestart.experiments.records.run_record import RECORD
from kerasrestart.experiments.report.html_page import to_html
from kerasrestart.experiments.report.markdown import align, escape
from kerasrestart.experiments.report.run_report import REPORT, load_record, write_run_report
from kerasrestart.experiments.report.terminal import print_table, print_text
from kerasrestart.experiments.settings import SETTINGS
from kerasrestart.restart.files import write_text

_MEASURES = ["epochs", "best round", "val. best", "test best", "gain"]
_PLACES = ("baseline", "data_dir")  # settings that say where files are
_RUN_WIDTH = 40  # characters of a line about a run, beside its measures
_LEGEND = (
    "Accuracy in percent at the run's best epoch (by validation accuracy); gain: points of "
    "validation accuracy above the run's own baseline."
)
_SETTINGS_LEGEND = "Below a run: those of its settings that are not the same in all runs."
_NO_RECORD = "Runs without a record, which is written when their first round ends"


def write_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into the folder of a run, or into a folder of runs.

    For a folder of runs it also prints the table of the runs, in their order by name, with the
    settings that are not the same in all of them.

    Args:
        folder: The folder.

    Returns:
        The file.

    Raises:
        ValueError: It is not a folder, or there is no run record in it or its sub-folders, or a
            damaged one.
        OSError: The file cannot be written.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise ValueError(
            "FOLDER must be the folder of a run or of runs, such as tf_logs/RUN. Received: "
            f"{str(folder)!r}, {what}"
        )
    runs = [run for run in _sub_folders(folder) if os.path.lexists(run / RECORD)]
    if os.path.lexists(folder / RECORD) or not runs:
        return write_run_report(folder)
    records = {run: load_record(run) for run in runs}
    measures = [_measures(run, record) for run, record in records.items()]
    settings = _differing([_settings(run, record) for run, record in records.items()])
    others = [run.name for run in _sub_folders(folder) if is_run(run) and run not in runs]
    legend = f"{_LEGEND} {_NO_RECORD}: {', '.join(others)}." if others else _LEGEND
    rows = [
        [_about_run(run, {name: column[n] for name, column in settings.items()}), *measures[n]]
        for n, run in enumerate(runs)
    ]
    print_table(["run", *_MEASURES], rows, texts=(0, 2), wrapped=(0,))
    print_text(f"{_SETTINGS_LEGEND} {legend}" if settings else legend)
    title = f"Runs in {folder.resolve().name}"
    header = ["run", *settings, *_MEASURES]
    columns = [[run.name for run in runs], *settings.values(), *zip(*measures, strict=True)]
    cells = [[escape(cell) for cell in row] for row in zip(*columns, strict=True)]
    right = [name in _MEASURES and name != "best round" for name in header]
    text = "\n\n".join([f"# {escape(title)}", align(header, cells, right), escape(legend)]) + "\n"
    write_text(folder / REPORT, to_html(text, title, {}))
    return folder / REPORT


def _sub_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _settings(run: pathlib.Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run but its places, with the data set that was loaded."""
    try:
        defaults = {name: setting.default for name, setting in SETTINGS.items()}
        settings = {**defaults, **record["settings"], "dataset": record["data"]["name"]}
        return {name: value for name, value in settings.items() if name not in _PLACES}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run / RECORD} is not a valid run record: {error!r}.") from error


def _differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By name, a text for each run, of the settings that are not the same in all runs."""
    columns = {name: [of_run.get(name) for of_run in settings] for name in settings[0]}
    return {
        name: ["" if value is None else str(value) for value in column]
        for name, column in columns.items()
        if any(value != column[0] for value in column)
    }


def _about_run(run: pathlib.Path, settings: Mapping[str, str]) -> str:
    """The name of a run, and its settings in the lines below."""
    words = " ".join(f"{name}={value}" for name, value in settings.items() if value)
    lines = textwrap.wrap(words, _RUN_WIDTH - 2, break_on_hyphens=False)
    return "\n".join([*textwrap.wrap(run.name, _RUN_WIDTH), *(f"  {line}" for line in lines)])


def _measures(run: pathlib.Path, record: Mapping[str, Any]) -> list[str]:
    try:
        table = record["table"]
        row = [str(sum(line["epochs"] for line in table))]
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

"""Writes the report of a study from the files in its folder."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence

from kerasrestart.experiments.study.comparison import compare
from kerasrestart.experiments.study.hparams import write_hparams
from kerasrestart.experiments.study.plan import Job
from kerasrestart.experiments.study.report import ReportSettings, write_report
from kerasrestart.experiments.study.results import CellResult, load_cell
from kerasrestart.experiments.study.runner import is_done
from kerasrestart.experiments.study.verdicts import print_verdicts
from kerasrestart.restart.files import write_text

RUNS = "runs.csv"


def collect(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    failed: Mapping[str, str],
    report: ReportSettings,
) -> pathlib.Path:
    """Writes the report of the finished runs and the records for TensorBoard; prints the verdicts.

    `runs.csv` has a row for each run: its cell, accuracies (0..1), epochs, seconds and folder.

    Args:
        jobs: The runs of the study.
        folder: Its folder.
        failed: Failed run -> the reason.
        report: Where the report is written, and what it says of the study.

    Returns:
        The path of `report.html`; `report.md` is beside it.

    Raises:
        ValueError: No run has finished, one has other settings, or an accuracy is not a number
            between 0 and 1. Nothing is written.
    """
    results: list[CellResult] = []
    missing: dict[str, str] = {}
    for job in jobs:
        if job.cell is None:
            continue
        found = load_cell(folder / job.name, job.cell) if is_done(job, folder) else None
        if found is None:
            missing[job.name] = failed.get(job.name, "not finished")
        else:
            results.append(found)
    if not results:
        raise ValueError(f"No run in {folder} has finished: nothing to report.")
    groups = compare(results)
    write_hparams(report.folder / "hparams", results)
    path = write_report(results, report, missing)
    write_text(report.folder / RUNS, _runs_csv(results))
    print_verdicts(groups)
    return path.with_suffix(".html")


def _runs_csv(results: Sequence[CellResult]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (
        "model",
        "variation",
        "arm",
        "seed",
        "outcome",
        "last",
        "epochs",
        "seconds",
        "folder",
    )
    writer.writerow(columns)
    for result in results:
        cell, seconds = result.cell, result.record.get("timing", {}).get("seconds")
        place = (cell.model, cell.variation, cell.arm, cell.seed)
        writer.writerow((*place, result.chosen, result.last, result.epochs, seconds, cell.name))
    return text.getvalue()

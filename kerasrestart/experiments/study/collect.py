"""Writes the report of a study from the files in its folder."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence

from kerasrestart.experiments.study.comparison import compare
from kerasrestart.experiments.study.hparams import write_hparams
from kerasrestart.experiments.study.plan import Job
from kerasrestart.experiments.study.report import write_report
from kerasrestart.experiments.study.results import CellResult, common_settings, load_cell
from kerasrestart.experiments.study.runner import is_done
from kerasrestart.experiments.study.tuning import Tuning
from kerasrestart.experiments.study.verdicts import print_verdicts
from kerasrestart.restart.files import write_text

RUNS = "runs.csv"


def collect(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    failed: Mapping[str, str],
    *,
    title: str | None,
    command: str,
    tuning: Tuning | None = None,
) -> pathlib.Path:
    """Writes the report of the finished runs and the records for TensorBoard; prints the verdicts.

    `runs.csv` has a row for each run: its cell, accuracies (0..1), epochs, seconds and folder.

    Args:
        jobs: The runs of the study.
        folder: Its folder.
        failed: Failed run -> the reason.
        title: Title of the report, or None: made from the folder's name.
        command: The command line of the study.
        tuning: The trials of its tuning. Defaults to None: nothing was tuned.

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
    write_hparams(folder / "hparams", results)
    report = write_report(
        folder,
        results,
        title=title or f"Study {folder.name}",
        settings=common_settings(results),
        command=command,
        missing=missing,
        tuning=tuning,
    )
    write_text(folder / RUNS, _runs_csv(results))
    print_verdicts(groups)
    return report.with_suffix(".html")


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

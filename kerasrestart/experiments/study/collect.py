"""From the folder of a study to its report."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from kerasrestart.experiments.study.hparams import write_hparams
from kerasrestart.experiments.study.plan import Job
from kerasrestart.experiments.study.report import write_report
from kerasrestart.experiments.study.results import CellResult, common_settings, load_cell
from kerasrestart.experiments.study.runner import is_done


def collect(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    failed: Mapping[str, str],
    *,
    title: str | None,
    command: str,
) -> pathlib.Path:
    """Writes the report of the runs that are there, and what TensorBoard's HParams tab shows.

    Args:
        jobs: The runs of the study.
        folder: Its folder.
        failed: Why runs failed, by name.
        title: Head of the report, or None: made from the folder's name.
        command: The command line that made the study.

    Returns:
        Where the report is.

    Raises:
        ValueError: No run has ended yet, or one was made with other settings.
    """
    results: list[CellResult] = []
    missing: dict[str, str] = {}
    for job in jobs:
        if job.cell is None:
            continue
        found = load_cell(folder / job.name, job.cell) if is_done(job, folder) else None
        if found is None:
            missing[job.name] = failed.get(job.name, "has not ended")
        else:
            results.append(found)
    if not results:
        raise ValueError(f"No run in {folder} has ended yet: nothing to report.")
    write_hparams(folder / "hparams", results)
    return write_report(
        folder,
        results,
        title=title or f"Study {folder.name}",
        settings=common_settings(results),
        command=command,
        missing=missing,
    )

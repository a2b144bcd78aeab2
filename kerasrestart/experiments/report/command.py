"""Writes the report of a run, or of all runs in a folder, as one HTML file.

python -m kerasrestart.report tf_logs/RUN
python -m kerasrestart.report tf_logs
"""

from __future__ import annotations

import pathlib

from absl import flags

from kerasrestart.experiments.command_line import fail, start


def main(argv: list[str]) -> None:
    """Writes the report of each given folder."""
    if not argv[1:]:
        fail(
            "expected the folder of a run or of runs, such as tf_logs/RUN. Received: no argument",
            status=2,
        )
    from kerasrestart.experiments.report.log_report import write_report

    for name in argv[1:]:
        try:
            print(f"Report: {write_report(pathlib.Path(name))}", flush=True)
        except (ValueError, OSError) as error:
            fail(str(error))


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(str(error), status=2)


def entry_point() -> None:
    """Entry point of the console script."""
    start(main, _parse)

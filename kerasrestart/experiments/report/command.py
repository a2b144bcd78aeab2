"""The command line that writes the report of a run, or of all runs in a folder."""

from __future__ import annotations

from typing import NoReturn

from kerasrestart.experiments.command_line import Parsed, Program, fail
from kerasrestart.experiments.paths import user_path

TEXT = """
Writes the report of a run, or compares all runs in a folder, as one HTML file.

  python -m kerasrestart.report tf_logs/RUN
  python -m kerasrestart.report tf_logs
"""
PROGRAM = Program("kerasrestart.report", TEXT, {}, arguments="FOLDER [FOLDER ...]")


def main(parsed: Parsed) -> None:
    """Writes the report of each given folder."""
    if not parsed.arguments:
        fail(
            "FOLDER must be the folder of a run or of runs, such as tf_logs/RUN. Received: nothing",
            status=2,
        )
    from kerasrestart.experiments.report.log_report import write_report

    for name in parsed.arguments:
        report = write_report(user_path(name, "FOLDER"))
        print(f"Report: {report}", flush=True)


def entry_point() -> NoReturn:
    """Starts the command; the console script calls this."""
    PROGRAM.start(main)

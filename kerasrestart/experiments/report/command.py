"""The command line that writes the report of runs."""

from __future__ import annotations

import pathlib
from typing import NoReturn

from kerasrestart.experiments.command_line import Parsed, Program, fail

TEXT = """
Writes the report of a run as one HTML file.

  python -m kerasrestart.report tf_logs/RUN
"""
PROGRAM = Program("kerasrestart.report", TEXT, {}, arguments="RUN [RUN ...]")


def main(parsed: Parsed) -> None:
    """Writes the report of each folder that is named."""
    if not parsed.arguments:
        fail("Expected the folder of a run, such as tf_logs/RUN. Received: nothing", status=2)
    from kerasrestart.experiments.report.run_report import write_run_report

    for name in parsed.arguments:
        print(f"Report: {write_run_report(pathlib.Path(name))}", flush=True)


def entry_point() -> NoReturn:
    """Starts the command; the console script calls this."""
    PROGRAM.start(main)

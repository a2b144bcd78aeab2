"""The experiments: one run and studies of many, from Python and from the command line."""

import importlib

# The packages of these names are imported first: importing them later would replace the functions.
for _package in ("run", "study"):
    importlib.import_module(f"{__name__}.{_package}")

from kerasrestart.experiments.api import run, study  # noqa: E402
from kerasrestart.experiments.run_result import RunResult  # noqa: E402
from kerasrestart.experiments.study_result import StudyResult  # noqa: E402

__all__ = ["RunResult", "StudyResult", "run", "study"]

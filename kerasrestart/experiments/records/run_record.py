"""`run.json`: what was run, and its results."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from kerasrestart.experiments.records import schema
from kerasrestart.restart.files import write_text

RECORD = "run.json"


def write_record(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Writes the record of a run atomically.

    Args:
        folder: The run's folder.
        record: As `kerasrestart.experiments.records.schema.RunRecord` describes it.

    Raises:
        OSError: It cannot be written.
    """
    write_text(pathlib.Path(folder) / RECORD, json.dumps(record, indent=1) + "\n")


def read_record(folder: str | os.PathLike, *, ended: bool = True) -> dict[str, Any] | None:
    """Reads the record of a run.

    Args:
        folder: The run's folder.
        ended: Whether to return the record of an ended run only. Defaults to True.

    Returns:
        The record; None where there is none, or where the run has not ended.

    Raises:
        RecordError: It is damaged, or not the record of a run.
    """
    try:
        record = schema.read(pathlib.Path(folder) / RECORD, schema.RunRecord)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if ended and not record["finished"] else record

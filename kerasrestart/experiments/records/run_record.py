"""`run.json`: what was run, and its results."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records import schema
from kerasrestart.restart.files import write_text

RECORD = "run.json"


def write_record(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Writes the record of a run atomically, with the hash by which a reader notices damage.

    Args:
        folder: The run's folder.
        record: As `kerasrestart.experiments.records.schema.RunRecord` describes it.

    Raises:
        OSError: It cannot be written.
    """
    timing = {**record["timing"], "sha256": _digest(record)}
    text = json.dumps({**record, "timing": timing}, indent=1)
    write_text(pathlib.Path(folder) / RECORD, text + "\n")


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
    path = pathlib.Path(folder) / RECORD
    try:
        record = schema.read(path, schema.RunRecord)
    except (FileNotFoundError, NotADirectoryError):
        return None
    written = record["timing"].get("sha256")
    if written is not None and written != _digest(record):
        raise schema.RecordError(
            f"{path} was changed since the run wrote it: its content must have the hash under "
            "timing, sha256. Restore the file, or remove that line to use it as it is."
        )
    return None if ended and not record["finished"] else record


def _digest(record: Mapping[str, Any]) -> str:
    """The hash of a record without the hash in it, whatever its line breaks."""
    timing = {name: value for name, value in record["timing"].items() if name != "sha256"}
    text = json.dumps({**record, "timing": timing}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

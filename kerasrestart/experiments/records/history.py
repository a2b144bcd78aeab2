"""`history.csv`: the logs of each epoch."""

from __future__ import annotations

import csv
import io
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records.file_mark import read_marked
from kerasrestart.experiments.records.schema import RecordError

HISTORY = "history.csv"


def read_history(
    folder: str | os.PathLike, mark: Mapping[str, Any] | None = None
) -> dict[str, tuple[float, ...]]:
    """Reads the logs of each epoch of a run, which may not have ended yet.

    Args:
        folder: The run's folder.
        mark: What the run's record says of the file, see `read_marked`. Defaults to None: nothing.

    Returns:
        By column, one number an epoch; NaN where there is none. Columns without any number are left
        out, such as those that `keras.callbacks.CSVLogger` makes for a missing validation.

    Raises:
        RecordError: The file is not CSV, or not that of the record.
    """
    path = pathlib.Path(folder) / HISTORY
    content = read_marked(path, mark)
    try:
        text = content.decode()
        # A last line without its end was cut short when the process was killed.
        text = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (ValueError, csv.Error) as error:
        raise RecordError(f"{path} is not a valid history: {error}.") from error
    columns = {
        name: tuple(_number(row[name]) for row in rows)
        for name in (rows[0] if rows else ())
        if name is not None  # what a line has beyond the header
    }
    return {name: of for name, of in columns.items() if not all(map(math.isnan, of))}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

"""Reads a file up to where a state or a record ends, if it is still the file of that run."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records.schema import RecordError


def read_marked(path: pathlib.Path, mark: Mapping[str, Any] | None) -> bytes:
    """Reads the part of a file that a mark describes.

    Args:
        path: The file; one that is missing is empty.
        mark: The `bytes` and `sha256` of its beginning, see
            `kerasrestart.experiments.records.schema.FileMark`; None: all of it.

    Raises:
        RecordError: It cannot be read, is missing or was changed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:  # such as a folder of that name
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
    if mark is None:
        return content
    content = content[: mark["bytes"]]
    if mark["bytes"] and hashlib.sha256(content).hexdigest() != mark["sha256"]:
        raise RecordError(
            f"{path} is missing or was changed: its first {mark['bytes']} bytes must be those that "
            "the run wrote. Restore the file, or start the run in another folder."
        )
    return content

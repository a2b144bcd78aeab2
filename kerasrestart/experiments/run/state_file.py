"""Arrays and plain data in one file that is written whole or not at all, and read without pickle.

The file is a NumPy archive (`.npz`): a zip whose every member has a checksum.
"""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasrestart.restart.files import atomic_write

_CONTENT = "content"
_FORMAT = 1


class StateError(ValueError):
    """A file that is no whole state."""


def write_state(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]
) -> None:
    """Writes a state; the file that was there before is kept as `previous_of(path)`.

    Whenever the process is killed, one of the two files is whole.

    Args:
        path: Where to; its folder is there.
        arrays: By name, arrays of any numeric type, `bfloat16` and the like included.
        content: Plain data, as JSON knows it.

    Raises:
        OSError: The file cannot be written; the one that was there still is.
    """
    kinds = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    text = json.dumps({"format": _FORMAT, "arrays": kinds, "content": content})
    members = {
        # Raw bytes, since an archive knows NumPy's own types only.
        f"array/{number}": np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        for number, array in enumerate(arrays.values())
    }
    members[_CONTENT] = np.frombuffer(text.encode(), np.uint8)
    with atomic_write(path, keep=previous_of(path)) as file:
        np.savez(file, **members)  # type: ignore[arg-type]  # a bool is allow_pickle


def read_state(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write_state` wrote.

    Returns:
        Arrays by name, and the content.

    Raises:
        StateError: The file is cut short, altered, or something else.
        OSError: The file cannot be read.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # reads every member against its checksum
        if damaged is not None:
            raise StateError(f"{path} is damaged: the checksum of '{damaged}' is wrong.")
        with np.load(path, allow_pickle=False) as members:
            written = json.loads(members[_CONTENT].tobytes())
            if written["format"] != _FORMAT:
                raise StateError(
                    f"{path} has format {written['format']}: expected {_FORMAT}, that of this "
                    "version of kerasrestart."
                )
            arrays = {
                name: np.frombuffer(members[f"array/{n}"].tobytes(), _dtype(kind)).reshape(shape)
                for n, (name, (kind, shape)) in enumerate(written["arrays"].items())
            }
            return arrays, written["content"]
    except StateError:
        raise
    except (
        # What the zip reader raises on altered bytes is not one family.
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(ValueError, KeyError, TypeError, OverflowError, MemoryError, UnicodeError),
    ) as error:
        raise StateError(f"{path} is no whole state of a run: {error}") from error


def read_last_good(
    path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, Any], str | None] | None:
    """Reads a state, or where that is missing or damaged the one before it.

    Returns:
        Arrays, content, and what was wrong with the newer file, in one line, or None; None alone
        where there is neither file.

    Raises:
        StateError: There are files, and none is whole.
    """
    path, wrong = pathlib.Path(path), None
    for candidate in (path, previous_of(path)):
        if not candidate.exists():
            continue
        try:
            return (*read_state(candidate), wrong)
        except StateError as error:
            wrong = f"{wrong} {error}" if wrong else str(error)
    if wrong:
        raise StateError(f"{wrong} Remove the run's folder to begin it anew.")
    return None


def previous_of(path: str | os.PathLike) -> pathlib.Path:
    """Where the state before the last is kept."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # comes with TensorFlow; knows bfloat16 and the 8-bit floats

        return np.dtype(getattr(ml_dtypes, name))

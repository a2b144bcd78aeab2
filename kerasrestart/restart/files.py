"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file that replaces `path` when the block ends without an error.

    If the process is killed or the machine loses power, either the old or the new file is there.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: The file cannot be written; the old one is kept.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    sync_folder(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text, completely or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="replace"))  # such as a file name that is not UTF-8


def sync_folder(folder: str | os.PathLike) -> None:
    """Makes renames in a folder survive a loss of power, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Paths as a user types them."""

from __future__ import annotations

import os
import pathlib


def user_path(path: str | os.PathLike, name: str) -> pathlib.Path:
    """A path in which a leading `~` is replaced by the home folder.

    Args:
        path: The path.
        name: The argument that it was given as, for the error.

    Raises:
        ValueError: The home folder is not known, as in a container whose user has no name.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name} must not begin with '~', as the home folder is not known: pass another path, "
            f"or set HOME. Received: {os.fspath(path)!r}"
        ) from error


def is_utf8(text: str) -> bool:
    """Whether a text means the same file to Python and to TensorFlow, which uses UTF-8.

    It does not where it holds other bytes, or where the system's encoding is another one.
    """
    try:
        return os.fsencode(text) == text.encode()
    except UnicodeError:
        return False


def as_utf8(text: str) -> str:
    """A text in which what is not UTF-8 is replaced, so that it can be written."""
    return text.encode(errors="replace").decode()

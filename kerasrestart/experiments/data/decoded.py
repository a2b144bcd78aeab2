"""Decoded images on disk: decoding CIFAR-10 takes ten seconds of each run, reading it takes one."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable

import numpy as np

from kerasrestart.experiments.data.dataset import Split
from kerasrestart.restart.files import atomic_write


def decoded_once(folder: pathlib.Path, name: str, decode: Callable[[], Split]) -> Split:
    """Reads a split that was decoded before, or decodes it and keeps it.

    The file is in `$XDG_CACHE_HOME/kerasrestart`, by default `~/.cache/kerasrestart`. It is named
    after the data files with their sizes and times, and is not used where one of them differs or
    the file is damaged. Where it cannot be written, the split is decoded each time.

    Args:
        folder: The data set's folder.
        name: The split.
        decode: Decodes it.

    Returns:
        The split.
    """
    try:
        path = _cache() / f"{folder.parent.name}-{name}-{_fingerprint(folder)}.npz"
    except (OSError, RuntimeError):  # no home folder
        return decode()
    try:
        with np.load(path, allow_pickle=False) as arrays:  # checks sums as it reads
            return Split(arrays["images"], arrays["labels"])
    except Exception:  # NumPy, zipfile and zlib raise errors of many classes
        pass  # new, or damaged
    split = decode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, images=split.images, labels=split.labels)
    except OSError:
        pass  # a full disk, or a home folder that is read-only
    return split


def _cache() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(root) if root else pathlib.Path.home() / ".cache") / "kerasrestart"


def _fingerprint(folder: pathlib.Path) -> str:
    """A hash of the names, sizes and times of all files of a data set."""
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    text = repr([(folder.resolve(), *((n, s.st_size, s.st_mtime_ns) for n, s in stats))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""`FolderLock`: a folder that one process uses at a time."""

from __future__ import annotations

import errno
import pathlib
import warnings

import filelock

LOCK_NAMES = (".lock", ".lock.process")
"""Names of the files of a lock; the second is where the file system has no locks."""
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class FolderLock:
    """Holds a folder until `release`, or until the process ends.

    Where the file system has no locks, a file names the process that holds the folder. If that has
    ended on this machine, the file does not count.

    Args:
        folder: The folder.
        what: What uses it, for the error: "run" or "study".
        flags: The flags that name another folder.

    Raises:
        ValueError: Another process holds the folder.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: pathlib.Path, what: str, flags: str):
        native, by_process = (folder / name for name in LOCK_NAMES)
        self._lock: filelock.BaseFileLock = filelock.FileLock(native)
        hint = ""
        try:
            try:
                with warnings.catch_warnings(action="ignore"):  # of a lock that filelock replaces
                    self._lock.acquire(blocking=False)
            except (OSError, NotImplementedError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                self._lock = filelock.SoftFileLock(by_process)
                hint = f" If it was killed on another machine, remove {by_process}."
                self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ValueError(
                f"{folder} is in use by a {what} that has not ended: wait for it, or pass another "
                f"{flags}.{hint}"
            ) from error

    def remove(self) -> None:
        """Deletes the lock's files, before the folder is deleted."""
        for name in LOCK_NAMES:
            pathlib.Path(self._lock.lock_file).with_name(name).unlink(missing_ok=True)

    def release(self) -> None:
        """Lets other processes have the folder."""
        self._lock.release()

"""Fetches a published file of weights, whole and checked, or says how to get it."""

from __future__ import annotations

import hashlib
import os
import pathlib
from http.client import HTTPException

from kerasrestart.experiments.web import open_url
from kerasrestart.restart.files import atomic_write

_BLOCK = 2**20


def fetch_weights(url: str, sha256_prefix: str, timeout: float = 5.0) -> pathlib.Path:
    """Returns a file in the cache of Keras, downloaded where it is not there.

    The cache is `$KERAS_HOME/models`, else `~/.keras/models`.

    Args:
        url: Where it is published.
        sha256_prefix: First hex digits of the file's SHA-256, as PyTorch's files have them in their
            names.
        timeout: Longest wait in seconds for the server, and for each block. Defaults to 5.

    Raises:
        ValueError: The file that is there, or that came, has another SHA-256.
        OSError: The file cannot be downloaded or written.
    """
    name = url.rpartition("/")[2]
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    path = pathlib.Path(home).expanduser() / "models" / name
    if path.exists():
        _check(path, _digest(path), sha256_prefix)
        return path
    print(f"Downloading {url} to {path}", flush=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with open_url(url, timeout) as response, atomic_write(path) as file:
            while block := response.read(_BLOCK):
                digest.update(block)
                file.write(block)
            _check(url, digest.hexdigest(), sha256_prefix)  # before the file takes its name
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{url} cannot be downloaded ({_reason(error)}): fetch it where there is a network and "
            f"put it at {path}, or name a file of weights by its path."
        ) from error
    return path


def _digest(path: str | os.PathLike) -> str:
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(source: object, digest: str, prefix: str) -> None:
    if not digest.startswith(prefix):
        raise ValueError(
            f"{source} is damaged: its SHA-256 must begin with {prefix}. Received: {digest[:16]}…; "
            "remove the file to have it downloaded anew."
        )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""CIFAR-10 (Krizhevsky 2009) through TensorFlow Datasets, decoded into arrays.

TFDS on its own retries an unreachable download for minutes. This module checks the disk first and
starts a download only after the server has answered.
"""

import functools
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.data.decoded import decoded_once
from kerasrestart.experiments.data.errors import DataError, UnavailableError, error_line
from kerasrestart.experiments.data.web import open_url
from kerasrestart.experiments.paths import user_path

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
DOWNLOAD_HOST = "www.cs.toronto.edu"
DEFAULT_DATA_DIR = "~/tensorflow_datasets"

_DOWNLOAD_URL = f"https://{DOWNLOAD_HOST}/~kriz/cifar-10-binary.tar.gz"  # TFDS's address
_COUNTS = {"train": 50_000, "test": 10_000}
_IMAGE_SHAPE = (32, 32, 3)
_DECODE_BATCH = 1000


def resolve_data_dir(data_dir: str | os.PathLike | None = None) -> Path:
    """Returns the TFDS folder to use: the argument, else `$TFDS_DATA_DIR`, else TFDS's default.

    Raises:
        ValueError: If the folder is in a home folder that is not known.
        UnavailableError: The same, of TFDS's default.
    """
    if chosen := data_dir or os.environ.get("TFDS_DATA_DIR"):
        return user_path(chosen, "data_dir" if data_dir else "TFDS_DATA_DIR")
    try:
        return user_path(DEFAULT_DATA_DIR, "data_dir")
    except ValueError:
        raise _unavailable(Path(DEFAULT_DATA_DIR), "the home folder is not known") from None


def find_prepared(data_dir: Path) -> Path | None:
    """Returns the folder of the newest prepared CIFAR-10 under `data_dir`, or `None`.

    Only looks for names: a folder counts as prepared once it holds `dataset_info.json`, which TFDS
    writes last.
    """
    return newest_version(info.parent for info in data_dir.glob("cifar10/*/dataset_info.json"))


def newest_version(folders: Iterable[Path]) -> Path | None:
    """Returns the folder that is named after the highest version, or `None`.

    An interrupted TFDS run leaves "<version>.incompleteXXXXXX", which is not a version.
    """
    versions = [
        folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name, re.ASCII)
    ]
    return max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")], default=None)


def load_cifar10(data_dir: str | os.PathLike | None = None) -> tuple[Split, Split]:
    """Returns CIFAR-10's official splits, and downloads and prepares the data if necessary.

    Example:
    ```python
    train, test = load_cifar10("~/tensorflow_datasets")
    ```

    Args:
        data_dir: TFDS folder, the parent of `cifar10/`. Defaults to `$TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`. Created if a download needs it.

    Returns:
        `(train, test)`: 50,000 and 10,000 images, uint8 `[n, 32, 32, 3]`.

    Raises:
        UnavailableError: If no copy is prepared and none can be downloaded. Raised within 15
            seconds if the server does not answer.
        DataError: If the prepared copy is incomplete or damaged.
    """
    root = resolve_data_dir(data_dir)
    folder = find_prepared(root) or _download(root)
    # TFDS, protobuf, TensorFlow and the file system each raise their own errors for a damaged
    # file. They all mean the same to the user.
    try:
        return _read(folder)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(folder, error_line(error)) from error


def download_obstacle(timeout: float = 4.0) -> str | None:
    """Returns the reason why CIFAR-10 cannot be downloaded, or `None` if its server answers.

    Args:
        timeout: Maximum wait in seconds, name resolution included. Defaults to 4.
    """
    try:
        with open_url(_DOWNLOAD_URL, timeout, method="HEAD"):
            return None
    except OSError as error:
        return str(error)


def _download(root: Path) -> Path:
    obstacle = download_obstacle()
    if obstacle is not None:
        raise _unavailable(root, f"{DOWNLOAD_HOST} cannot be reached ({obstacle})")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder("cifar10", data_dir=str(root))
        builder.download_and_prepare()
    except Exception as error:  # network, full disk, ...: TFDS has no common base class
        raise _unavailable(root, f"its download failed ({error_line(error)})") from error
    return Path(builder.data_dir)


def _unavailable(root: Path, reason: str) -> UnavailableError:
    return UnavailableError(
        f"CIFAR-10 is not prepared in {root}, and {reason}. Put a copy prepared by TFDS there, "
        "name its folder with --data_dir (or TFDS_DATA_DIR), make the network available, or use "
        "--dataset=shapes."
    )


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(
        f"The copy of CIFAR-10 in {folder} is incomplete or damaged: {reason}. Delete that folder "
        "to prepare it again, or name another with --data_dir."
    )


def _read(folder: Path) -> tuple[Split, Split]:
    _check_listing(folder)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    names = tuple(builder.info.features["label"].names)
    if names != CLASSES:
        raise _damaged(folder, f"its labels must be {', '.join(CLASSES)}. Received: {names!r}")
    train, test = (
        decoded_once(folder, name, functools.partial(_decode, builder, name, folder))
        for name in ("train", "test")
    )
    return train, test


def _check_listing(folder: Path) -> None:
    """Checks `dataset_info.json` against CIFAR-10's counts and the files in the folder."""
    info: dict[str, Any] = json.loads((folder / "dataset_info.json").read_text())
    splits = {split["name"]: split for split in info.get("splits", [])}
    for name, expected in _COUNTS.items():
        shards = [int(n) for n in splits.get(name, {}).get("shardLengths", [])]
        if sum(shards) != expected:
            raise _damaged(folder, f"{name} must have {expected} images and has {sum(shards)}")
        present = len(list(folder.glob(f"cifar10-{name}.*-of-{len(shards):05d}")))
        if present != len(shards):
            raise _damaged(folder, f"{name} must have {len(shards)} data files and has {present}")


def _decode(builder: Any, name: str, folder: Path) -> Split:
    expected = _COUNTS[name]
    images = np.empty((expected, *_IMAGE_SHAPE), np.uint8)
    labels = np.empty(expected, np.int32)
    # TFDS decodes in parallel and, without shuffle_files, in a fixed order.
    batches = builder.as_dataset(split=name, shuffle_files=False, as_supervised=True)
    start = 0
    for some_images, some_labels in batches.batch(_DECODE_BATCH).as_numpy_iterator():
        stop = start + len(some_labels)
        images[start:stop], labels[start:stop] = some_images, some_labels
        start = stop
    if start != expected:
        raise _damaged(folder, f"{name} must have {expected} images and only {start} are readable")
    return Split(images, labels)

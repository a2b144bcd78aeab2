"""CIFAR-10 (Krizhevsky 2009) through TensorFlow Datasets."""

import os

from kerasrestart.experiments.data import tfds_copy
from kerasrestart.experiments.data.dataset import Split

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
COUNTS = {"train": 50_000, "test": 10_000}
DOWNLOAD_HOST = "www.cs.toronto.edu"

_DOWNLOAD_URL = f"https://{DOWNLOAD_HOST}/~kriz/cifar-10-binary.tar.gz"  # TFDS's address


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
    copy = tfds_copy.TfdsCopy.prepare(
        tfds_copy.resolve_data_dir(data_dir),
        "cifar10",
        download_obstacle,
        title="CIFAR-10",
        instead=", or use --dataset=shapes",
    )
    with copy.damage_in_one_line():
        check_listing(copy)
        images = copy.images()
        if images.classes != CLASSES:
            raise copy.damaged(
                f"its labels must be {', '.join(CLASSES)}. Received: {images.classes!r}"
            )
        train, test = (images.split(name, count) for name, count in COUNTS.items())
    return train, test


def download_obstacle() -> str | None:
    """Returns the reason why CIFAR-10 cannot be downloaded, or `None` if its server answers."""
    return tfds_copy.download_obstacle(_DOWNLOAD_URL)


def check_listing(copy: tfds_copy.TfdsCopy) -> None:
    """Checks the listing of a copy against CIFAR-10's counts and the files in its folder.

    Raises:
        DataError: A split has another count, or a data file is missing.
    """
    counts = copy.counts()
    for name, expected in COUNTS.items():
        if (count := counts.get(name, 0)) != expected:
            raise copy.damaged(f"{name} must have {expected} images and has {count}")

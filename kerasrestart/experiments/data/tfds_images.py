"""Image data sets of TensorFlow Datasets by name: MNIST, CIFAR-100 and others."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kerasrestart.experiments.data.arrays import assemble, plain_name
from kerasrestart.experiments.data.dataset import ImageData
from kerasrestart.experiments.data.errors import DataError
from kerasrestart.experiments.data.tfds_copy import (
    TfdsCopy,
    download_obstacle,
    resolve_data_dir,
)
from kerasrestart.network.text import did_you_mean


def load_tfds(
    name: str, data_dir: str | os.PathLike | None = None, image_size: int | None = None
) -> ImageData:
    """Loads a data set of labelled images, and downloads and prepares it if necessary.

    Its split `test` (if there is none, `validation`) is the test split, and a tenth of `train`
    becomes the validation split; without either, another tenth of `train` becomes the test split.

    Example:
    ```python
    from kerasrestart.experiments.data.tfds_images import load_tfds

    data = load_tfds("mnist")
    ```

    Args:
        name: Its name; `NAME/CONFIG` where it has several configurations.
        data_dir: TFDS folder. Defaults to `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        image_size: Height and width to which images are resized (bilinear). Defaults to None: as
            they are stored, which must be one size.

    Raises:
        UnavailableError: No copy is prepared, and none can be downloaded. Raised within seconds if
            the server does not answer.
        DataError: The copy is damaged, it is not a set of labelled images, or it has images of
            several sizes and there is no `image_size`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+(/[A-Za-z0-9_.+-]+)?", name):
        raise DataError(f"--dataset=tfds:NAME must be such as tfds:mnist. Received: {name!r}")
    root = resolve_data_dir(data_dir)
    copy = TfdsCopy.prepare(root, name, lambda: _obstacle(name, root))
    with copy.damage_in_one_line():
        counts = copy.counts()
        if not counts.get("train"):
            raise DataError(
                f"--dataset=tfds:{name} must have a split train. Received: "
                f"{', '.join(counts) or 'none'}"
            )
        images = copy.images()
        if None in images.shape and image_size is None:
            raise DataError(
                f"--dataset=tfds:{name} has images of several sizes: --image_size must be their "
                "height and width in pixels, as in --image_size=64. Received: no --image_size"
            )
        test = next((split for split in ("test", "validation") if split in counts), None)
        wanted = {"train": "train", **({"test": test} if test else {})}
        splits = {
            split: images.split(source, counts[source], image_size)
            for split, source in wanted.items()
        }
        return assemble(plain_name(name), images.classes, splits)


def _obstacle(name: str, root: Path) -> str | None:
    """Why a data set cannot be downloaded, found within seconds; TFDS itself tries for minutes.

    Raises:
        DataError: TFDS does not know it.
    """
    import tensorflow_datasets as tfds

    base = name.partition("/")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        raise DataError(
            f"--dataset=tfds:NAME must name a data set of TFDS, or one prepared in {root}. "
            f"Received: {base!r}{did_you_mean(base, known)}"
        )
    builder = tfds.builder_cls(base)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return "its files must be downloaded by hand, see its page in the catalogue of TFDS"
    url = next(iter(builder.url_infos or ()), None)
    return None if url is None else download_obstacle(url)

"""Image data sets of TensorFlow Datasets by name: MNIST, CIFAR-100 and others."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasrestart.experiments.data.arrays import assemble, plain_name
from kerasrestart.experiments.data.cifar10 import newest_version, resolve_data_dir
from kerasrestart.experiments.data.dataset import CHANNELS, ImageData, Split
from kerasrestart.experiments.data.decoded import decoded_once
from kerasrestart.experiments.data.errors import DataError, UnavailableError, error_line
from kerasrestart.experiments.data.web import open_url
from kerasrestart.experiments.hints import did_you_mean

_TIMEOUT = 4.0  # seconds, name resolution included


def load_tfds(
    name: str, data_dir: str | os.PathLike | None = None, image_size: int | None = None
) -> ImageData:
    """Loads a data set of labelled images, and downloads and prepares it if necessary.

    Its split `test` (if there is none, `validation`) is the test split, and a tenth of `train`
    becomes the validation split; without either, another tenth of `train` becomes the test split.

    Example:
    ```python
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
        raise DataError(f"--dataset=tfds:NAME must be such as tfds:mnist. Received: {name!r}.")
    root = resolve_data_dir(data_dir)
    folder = find_prepared(root, name) or _download(root, name)
    try:  # TFDS, protobuf, TensorFlow and the file system each raise errors of their own
        return _read(folder, name, image_size)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"The copy of {name} in {folder} is incomplete or damaged: {error_line(error)}. Delete "
            "that folder to prepare it again, or name another with --data_dir."
        ) from error


def find_prepared(root: Path, name: str) -> Path | None:
    """Returns the folder of the newest prepared copy, or None.

    Args:
        root: TFDS folder.
        name: As in `load_tfds`.

    Raises:
        DataError: Several configurations are prepared, and none is named.
    """
    found = [info.parent for info in root.glob(f"{name}/*.*.*/dataset_info.json")]
    if not found and "/" not in name:
        found = [info.parent for info in root.glob(f"{name}/*/*.*.*/dataset_info.json")]
        configs = sorted({folder.parent.name for folder in found})
        if len(configs) > 1:
            raise DataError(
                f"--dataset=tfds:{name} has several configurations. Received: none; expected one "
                f"of {', '.join(f'tfds:{name}/{config}' for config in configs)}."
            )
    return newest_version(found)


def _download(root: Path, name: str) -> Path:
    import tensorflow_datasets as tfds

    base = name.partition("/")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        raise DataError(
            f"--dataset=tfds:NAME must name a data set of TFDS, or one prepared in {root}. "
            f"Received: {base!r}{did_you_mean(base, known)}"
        )
    if (obstacle := _obstacle(tfds.builder_cls(base))) is not None:
        raise _unavailable(root, name, obstacle)
    try:
        builder = tfds.builder(name, data_dir=str(root))
        builder.download_and_prepare()
    except Exception as error:  # network, full disk, ...: TFDS has no common base class
        raise _unavailable(root, name, f"its download failed ({error_line(error)})") from error
    return Path(builder.data_dir)


def _obstacle(builder: Any) -> str | None:
    """Why a data set cannot be downloaded, found within seconds; TFDS itself tries for minutes."""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return "its files must be downloaded by hand, see its page in the catalogue of TFDS"
    url = next(iter(builder.url_infos or ()), None)
    if url is None:
        return None
    try:
        with open_url(url, _TIMEOUT, method="HEAD"):
            return None
    except OSError as error:
        return f"{url.split('/')[2]} cannot be reached ({error})"


def _unavailable(root: Path, name: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"{name} is not prepared in {root}, and {reason}. Put a copy prepared by TFDS there, name "
        "its folder with --data_dir (or TFDS_DATA_DIR), or make the network available."
    )


def _read(folder: Path, name: str, image_size: int | None) -> ImageData:
    import tensorflow_datasets as tfds

    counts = _split_counts(folder, name)
    builder = tfds.builder_from_directory(str(folder))
    features = builder.info.features
    image, label = builder.info.supervised_keys or ("image", "label")
    labelled = (
        isinstance(features, tfds.features.FeaturesDict)
        and {image, label} <= set(features)
        and isinstance(features[image], tfds.features.Image)
        and isinstance(features[label], tfds.features.ClassLabel)
    )
    if not labelled or features[image].np_dtype != np.uint8:
        raise DataError(
            f"--dataset=tfds:{name} must have uint8 images and one class each. Received: "
            f"{' '.join(str(features).split())}."
        )
    height, width, channels = features[image].shape
    if channels not in CHANNELS:
        raise DataError(
            f"--dataset=tfds:{name} must have images of 1 or 3 channels. Received: {channels}."
        )
    size = (height, width)
    if None in size:
        if image_size is None:
            raise DataError(
                f"--dataset=tfds:{name} has images of several sizes. Received: no --image_size; "
                "expected their height and width in pixels, as in --image_size=64."
            )
        size = (image_size, image_size)
    test = next((split for split in ("test", "validation") if split in counts), None)
    wanted = {"train": "train", **({"test": test} if test else {})}
    splits = {}
    for split, source in wanted.items():
        decode = functools.partial(
            _decode, builder, source, counts[source], (*size, channels), (image, label)
        )
        # Images that were resized are another copy.
        suffix = "" if (height, width) == size else f"-{image_size}"
        splits[split] = decoded_once(folder, f"{source}{suffix}", decode)
    return assemble(plain_name(name), features[label].names, splits)


def _split_counts(folder: Path, name: str) -> dict[str, int]:
    """The number of images of each split; checks that its data files are there."""
    info = json.loads((folder / "dataset_info.json").read_text())
    counts = {}
    for split in info.get("splits", []):
        shards = [int(n) for n in split.get("shardLengths", [])]
        present = len(list(folder.glob(f"*-{split['name']}.*-of-{len(shards):05d}")))
        if present != len(shards):
            raise DataError(
                f"The copy of {name} in {folder} is incomplete: {split['name']} must have "
                f"{len(shards)} data files and has {present}. Delete that folder to prepare it "
                "again, or name another with --data_dir."
            )
        counts[split["name"]] = sum(shards)
    if not counts.get("train"):
        raise DataError(
            f"--dataset=tfds:{name} must have a split train. Received: "
            f"{', '.join(counts) or 'none'}."
        )
    return counts


def _decode(
    builder: Any, split: str, count: int, shape: tuple[int, int, int], keys: tuple[str, str]
) -> Split:
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int32)
    read = 0
    for image, label in _examples(builder, split, shape, keys):
        images[read], labels[read] = image, label
        read += 1
    if read != count:
        raise DataError(
            f"{split} of {builder.name} must have {count} images and only {read} are readable."
        )
    return Split(images, labels)


def _examples(
    builder: Any, split: str, shape: tuple[int, int, int], keys: tuple[str, str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    import tensorflow as tf

    def one_size(example: dict[str, Any]) -> tuple[Any, Any]:
        image = example[keys[0]]
        if image.shape[:2] != shape[:2]:
            resized = tf.image.resize(image, shape[:2], method="bilinear")
            image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        return image, example[keys[1]]

    # TFDS decodes in parallel and, without shuffle_files, in a fixed order.
    examples = builder.as_dataset(split=split, shuffle_files=False)
    yield from examples.map(one_size).as_numpy_iterator()

"""Copies of image data sets on disk, as TensorFlow Datasets prepares them.

TFDS on its own retries an unreachable download for minutes. Here the disk is checked first, and a
download starts only after its server has answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasrestart.experiments.data.dataset import CHANNELS, Split
from kerasrestart.experiments.data.decoded import decoded_once
from kerasrestart.experiments.data.errors import DataError, UnavailableError, error_line
from kerasrestart.experiments.data.web import open_url
from kerasrestart.experiments.paths import user_path

DEFAULT_DATA_DIR = "~/tensorflow_datasets"

_DECODE_BATCH = 256


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
        raise UnavailableError(
            f"There are no data in {DEFAULT_DATA_DIR}, as the home folder is not known: name a "
            "folder with --data_dir (or TFDS_DATA_DIR), or use --dataset=shapes."
        ) from None


def find_prepared(root: Path, name: str) -> Path | None:
    """Returns the folder of the newest prepared copy of a data set, or None.

    Only looks for names: a folder counts as prepared once it holds `dataset_info.json`, which TFDS
    writes last.

    Args:
        root: TFDS folder.
        name: The data set; `NAME/CONFIG` where it has several configurations.

    Raises:
        DataError: Several configurations are prepared, and none is named.
    """
    found = [info.parent for info in root.glob(f"{name}/*.*.*/dataset_info.json")]
    if not found and "/" not in name:
        found = [info.parent for info in root.glob(f"{name}/*/*.*.*/dataset_info.json")]
        configs = sorted({folder.parent.name for folder in found})
        if len(configs) > 1:
            raise DataError(
                f"--dataset=tfds:{name} must name one of its configurations: "
                f"{', '.join(f'tfds:{name}/{config}' for config in configs)}. Received: none"
            )
    # An interrupted TFDS run leaves "<version>.incompleteXXXXXX", which is not a version.
    versions = [folder for folder in found if re.fullmatch(r"\d+\.\d+\.\d+", folder.name, re.ASCII)]
    return max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")], default=None)


def download_obstacle(url: str, timeout: float = 4.0) -> str | None:
    """Returns the reason why a file cannot be downloaded, or `None` if its server answers.

    Args:
        url: The file.
        timeout: Maximum wait in seconds, name resolution included. Defaults to 4.
    """
    try:
        with open_url(url, timeout, method="HEAD"):
            return None
    except OSError as error:
        return f"{url.split('/')[2]} cannot be reached ({error})"


@dataclasses.dataclass(frozen=True)
class TfdsCopy:
    """A data set that TFDS has prepared.

    Attributes:
        folder: The folder of its version.
        title: Its name in messages.
    """

    folder: Path
    title: str

    @classmethod
    def prepare(
        cls,
        root: Path,
        name: str,
        obstacle: Callable[[], str | None],
        title: str | None = None,
        instead: str = "",
    ) -> TfdsCopy:
        """Finds the newest copy; where there is none, downloads and prepares one.

        Args:
            root: TFDS folder. Created if a download needs it.
            name: As in `find_prepared`.
            obstacle: Returns within seconds why the data set cannot be downloaded, or None.
            title: Its name in messages. Defaults to None: `name`.
            instead: What else the user can do, for the error. Defaults to "".

        Raises:
            UnavailableError: No copy is prepared, and none can be downloaded.
            DataError: As `find_prepared` does.
        """
        title = title or name
        folder = find_prepared(root, name)
        if folder is None and (reason := obstacle()) is None:
            import tensorflow_datasets as tfds

            try:
                builder = tfds.builder(name, data_dir=str(root))
                builder.download_and_prepare()
                folder = Path(builder.data_dir)
            except Exception as error:  # network, full disk, ...: TFDS has no common base class
                reason = f"its download failed ({error_line(error)})"
        if folder is None:
            raise UnavailableError(
                f"{title} is not prepared in {root}, and {reason}. Put a copy prepared by TFDS "
                "there, name its folder with --data_dir (or TFDS_DATA_DIR), or make the network "
                f"available{instead}."
            )
        return cls(folder, title)

    def damaged(self, reason: str) -> DataError:
        """Returns the error that says why the copy cannot be used, and what to do."""
        return DataError(
            f"The copy of {self.title} in {self.folder} is incomplete or damaged: {reason}. Delete "
            "that folder to prepare it again, or name another with --data_dir."
        )

    @contextlib.contextmanager
    def damage_in_one_line(self) -> Iterator[None]:
        """Says in one line, as a DataError, whatever is raised for damaged files."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # TFDS, protobuf, TensorFlow, files: each has errors of its own
            raise self.damaged(error_line(error)) from error

    def counts(self) -> dict[str, int]:
        """The number of images of each split; checks that its data files are there."""
        info = json.loads((self.folder / "dataset_info.json").read_text())
        counts = {}
        for split in info.get("splits", []):
            name, shards = split["name"], [int(n) for n in split.get("shardLengths", [])]
            present = len(list(self.folder.glob(f"*-{name}.*-of-{len(shards):05d}")))
            if present != len(shards):
                raise self.damaged(f"{name} must have {len(shards)} data files and has {present}")
            counts[name] = sum(shards)
        return counts

    def images(self) -> LabelledImages:
        """Returns what the copy holds.

        Raises:
            DataError: It is not a set of uint8 images of 1 or 3 channels, with one class each.
        """
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(self.folder))
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
                f"{self.title} must have uint8 images and one class each. Received: "
                f"{' '.join(str(features).split())}"
            )
        if features[image].shape[-1] not in CHANNELS:
            raise DataError(
                f"{self.title} must have images of 1 or 3 channels. Received: "
                f"{features[image].shape[-1]}"
            )
        return LabelledImages(self, builder, image, label)


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """The images of a copy, with their labels.

    Attributes:
        copy: The copy.
        builder: Its builder of TFDS.
        image: The feature of an example that is the image.
        label: That which is its label.
    """

    copy: TfdsCopy
    builder: Any
    image: str
    label: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(self.builder.info.features[self.label].names)

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels; None where they differ from image to image."""
        return self.builder.info.features[self.image].shape

    def split(self, name: str, count: int, image_size: int | None = None) -> Split:
        """Decodes the images of a split, or reads them as they were decoded before.

        Args:
            name: The split.
            count: The number of its images.
            image_size: Height and width to which they are resized (bilinear), where they differ in
                size. Defaults to None.

        Raises:
            DataError: Fewer images are readable.
        """
        height, width, channels = self.shape
        resized = None in (height, width)
        shape = (image_size, image_size, channels) if resized else (height, width, channels)
        return decoded_once(
            self.copy.folder,
            f"{name}-{image_size}" if resized else name,
            functools.partial(self._decode, name, count, shape),
        )

    def _decode(self, name: str, count: int, shape: tuple[int, int, int]) -> Split:
        import tensorflow as tf

        def one_size(example: dict[str, Any]) -> tuple[Any, Any]:
            image = example[self.image]
            if image.shape[:2] != shape[:2]:
                resized = tf.image.resize(image, shape[:2], method="bilinear")
                image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
            return image, example[self.label]

        images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int32)
        # TFDS decodes in parallel and, without shuffle_files, in a fixed order.
        examples = self.builder.as_dataset(split=name, shuffle_files=False).map(one_size)
        start = 0
        for some_images, some_labels in examples.batch(_DECODE_BATCH).as_numpy_iterator():
            stop = start + len(some_labels)
            images[start:stop], labels[start:stop] = some_images, some_labels
            start = stop
        if start != count:
            raise self.copy.damaged(
                f"{name} must have {count} images and only {start} are readable"
            )
        return Split(images, labels)

"""`load`: returns a data set by name, split into training, validation and test."""

import dataclasses
import os

from kerasrestart.experiments import references
from kerasrestart.experiments.data import cifar10, shapes, tfds_copy
from kerasrestart.experiments.data.arrays import from_arrays, load_npz, plain_name
from kerasrestart.experiments.data.dataset import ImageData, split_validation, subset
from kerasrestart.experiments.data.errors import (
    DataError,
    UnavailableError,
    check_integer,
    check_seed,
)
from kerasrestart.experiments.data.folders import load_folder
from kerasrestart.experiments.data.regimes import with_label_noise
from kerasrestart.experiments.data.tfds_images import load_tfds
from kerasrestart.experiments.paths import as_utf8
from kerasrestart.experiments.setting import SettingError, as_arguments
from kerasrestart.experiments.settings import DATASETS, SETTINGS
from kerasrestart.experiments.sources import errors_name_reference


def load(
    name: str = "auto",
    data_dir: str | os.PathLike | None = None,
    *,
    validation_examples: int | None = None,
    train_examples: int | None = None,
    eval_examples: int | None = None,
    image_size: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    shapes_examples: int = 20_000,
) -> ImageData:
    """Loads a data set into memory.

    Example:
    ```python
    from kerasrestart.experiments.data import load

    data = load("shapes", shapes_examples=1_000, train_examples=500, seed=0)
    data.train.images.shape  # (500, 32, 32, 3)
    ```

    Args:
        name: `"cifar10"`; `"shapes"`, which is generated and needs no file; or `"auto"`: CIFAR-10
            if it is prepared on disk or can be downloaded, else shapes with a `note` that says so.
            Of your own: `"tfds:NAME"` (`load_tfds`), `"folder:PATH"` (`load_folder`),
            `"npz:FILE"` (`load_npz`), or a reference to a function that returns arrays
            (`from_arrays`). Defaults to `"auto"`.
        data_dir: TFDS folder. Defaults to `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        validation_examples: Size of the validation split of CIFAR-10 and shapes, which is taken
            from the training images. Defaults to 5,000 for CIFAR-10 and to a tenth of the images
            for shapes.
        train_examples: Number of training images to keep, stratified by class. Defaults to `None`:
            all of them.
        eval_examples: Number of validation images and of test images to keep, stratified by class.
            Defaults to `None`: all of them.
        image_size: Height and width to which images of several sizes are resized, in a folder or a
            data set of TFDS. Defaults to `None`.
        label_noise: Fraction of the training images with a wrong label, 0..1. Validation and test
            labels stay correct. Defaults to 0.
        seed: Seeds the validation split, the images kept, the wrong labels and the shapes. It is
            separate from a run's seed, so that runs with different seeds use the same data.
            Defaults to 0.
        shapes_examples: Number of shapes in all three splits, at least 100. A tenth of them is the
            test split. Defaults to 20,000.

    Returns:
        The data set, images uint8 `[n, height, width, channels]`: 32, 32 and 3 for CIFAR-10 and
        shapes.

    Raises:
        DataError: If an argument is out of range, if a data set is not available, or if a prepared
            copy is damaged (also with `"auto"`).
        SettingError: If a reference leads to nothing, or its function fails.
    """
    try:
        SETTINGS["dataset"].check(name)
    except SettingError as error:
        raise DataError(as_arguments(str(error))) from error
    check_seed(seed)
    check_integer("shapes_examples", shapes_examples, 100)
    for argument, value in (
        ("validation_examples", validation_examples),
        ("train_examples", train_examples),
        ("eval_examples", eval_examples),
    ):
        if value is not None:
            check_integer(argument, value, 1)

    if name not in DATASETS:
        data = _load_own(name, data_dir, image_size)
    elif name == "shapes":
        data = _load_shapes(shapes_examples, validation_examples, seed)
    else:
        try:
            data = _load_cifar10(data_dir, validation_examples, seed)
        except UnavailableError:
            if name == "cifar10":
                raise
            data = _load_shapes(shapes_examples, validation_examples, seed, _note(data_dir))
    if eval_examples is not None:
        validation, test = (
            subset(split, eval_examples, seed, "eval_examples")
            for split in (data.validation, data.test)
        )
        data = dataclasses.replace(data, validation=validation, test=test)
    train = data.train
    if train_examples is not None:
        train = subset(train, train_examples, seed)
    if label_noise:
        train = with_label_noise(train, label_noise, len(data.classes), seed)
    return data if train is data.train else dataclasses.replace(data, train=train)


def _load_own(name: str, data_dir: str | os.PathLike | None, image_size: int | None) -> ImageData:
    kind, _, place = name.partition(":")
    if SETTINGS["dataset"].references(name):
        with errors_name_reference("dataset", name):
            found = references.load(name)
            if callable(found):
                found = references.call(name)
        return from_arrays(found, plain_name(references.short_name(name)))
    if kind == "tfds":
        return load_tfds(place, data_dir, image_size)
    if kind == "folder":
        return load_folder(place, image_size)
    return load_npz(place)


def _load_cifar10(
    data_dir: str | os.PathLike | None, validation_examples: int | None, seed: int
) -> ImageData:
    train, test = cifar10.load_cifar10(data_dir)
    count = 5_000 if validation_examples is None else validation_examples
    train, validation = split_validation(train, count, seed)
    return ImageData("cifar10", cifar10.CLASSES, train, validation, test)


def _load_shapes(
    examples: int, validation_examples: int | None, seed: int, note: str = ""
) -> ImageData:
    test = examples // 10
    validation = test if validation_examples is None else validation_examples
    check_integer("validation_examples", validation, 1, examples - test - 1)
    splits = shapes.shapes_data(examples - test - validation, validation, test, seed)
    return ImageData("shapes", shapes.CLASSES, *splits, note)


def _note(data_dir: str | os.PathLike | None) -> str:
    # The reason of the failure is left out: the note is part of a run's record, equal runs have
    # equal records, and the reason differs from one attempt to the next.
    try:
        folder = str(tfds_copy.resolve_data_dir(data_dir))
    except UnavailableError:  # the home folder is not known
        folder = tfds_copy.DEFAULT_DATA_DIR
    return (
        f"CIFAR-10 is not prepared in {' '.join(as_utf8(folder).split())} and cannot be "
        f"downloaded from {cifar10.DOWNLOAD_HOST}: using the built-in set shapes; "
        "numbers are NOT CIFAR-10's"
    )

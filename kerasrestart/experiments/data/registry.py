"""`load`: a data set by its name, divided into training, validation and test."""

import dataclasses
import os

from kerasrestart.experiments.data import cifar10, shapes
from kerasrestart.experiments.data.dataset import ImageData, split_validation, subset
from kerasrestart.experiments.data.errors import (
    DataError,
    UnavailableError,
    check_integer,
    check_seed,
)
from kerasrestart.experiments.data.regimes import with_label_noise
from kerasrestart.experiments.settings import DATASETS


def load(
    name: str = "auto",
    data_dir: str | os.PathLike | None = None,
    *,
    validation_examples: int | None = None,
    train_examples: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    shapes_examples: int = 20_000,
) -> ImageData:
    """Loads a data set into memory.

    Args:
        name: `"cifar10"`; `"shapes"`, which is drawn here and needs no file; or `"auto"` (the
            default): CIFAR-10 where it is prepared on disk or can be downloaded, else shapes,
            with a `note` that says so.
        data_dir: The TFDS folder that holds, or is to hold, CIFAR-10. Default: `$TFDS_DATA_DIR`,
            else `~/tensorflow_datasets`. Not used for shapes.
        validation_examples: Size of the validation split, which comes out of what would else be
            training. Default: 5,000 of CIFAR-10, a tenth of shapes.
        train_examples: Keep this many of the training images, evenly over the classes. Default:
            all of them.
        label_noise: Share of the training images that get a wrong label, 0..1, default 0.
            Validation and test keep theirs.
        seed: Fixes which examples are validation, which are kept, which labels are wrong, and what
            shapes are drawn.
            Default 0. It is apart from a run's seed, so that runs which differ in their seed see
            the same data.
        shapes_examples: How many shapes to draw in all, default 20,000, at least 100. A tenth of
            them is the test split.

    Returns:
        The data set, images uint8 `[n, 32, 32, 3]`.

    Raises:
        DataError: If an argument is out of range, or CIFAR-10 was asked for by name and cannot be
            had, or a prepared copy is damaged (`"auto"` does not pass over one in silence).
    """
    if name not in DATASETS:
        raise DataError(f"dataset must be one of {', '.join(DATASETS)}, but is {name!r}")
    check_seed(seed)
    check_integer("shapes_examples", shapes_examples, 100)
    for argument, value in (
        ("validation_examples", validation_examples),
        ("train_examples", train_examples),
    ):
        if value is not None:
            check_integer(argument, value, 1)

    if name == "shapes":
        data = _load_shapes(shapes_examples, validation_examples, seed)
    else:
        try:
            data = _load_cifar10(data_dir, validation_examples, seed)
        except UnavailableError:
            if name == "cifar10":
                raise
            data = _load_shapes(shapes_examples, validation_examples, seed, _note(data_dir))
    train = data.train
    if train_examples is not None:
        train = subset(train, train_examples, seed)
    if label_noise:
        train = with_label_noise(train, label_noise, len(data.classes), seed)
    return data if train is data.train else dataclasses.replace(data, train=train)


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
    # Without the reason of the failure, which differs from one try to the next: the note is
    # part of a run's record, and equal runs have equal records.
    return (
        f"CIFAR-10 is not prepared in {cifar10.resolve_data_dir(data_dir)} and cannot be "
        f"downloaded from {cifar10.DOWNLOAD_HOST}: using the built-in set shapes; "
        "numbers are NOT CIFAR-10's"
    )

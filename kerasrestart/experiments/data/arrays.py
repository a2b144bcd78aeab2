"""Your own images as arrays, in memory or in a NumPy file."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasrestart.experiments.data.dataset import CHANNELS, ImageData, Split, split_tenth
from kerasrestart.experiments.data.errors import DataError, error_line
from kerasrestart.experiments.paths import user_path
from kerasrestart.restart.files import atomic_write

SPLITS = ("train", "validation", "test")
_NAMES = "x_train, y_train, x_test, y_test; or x, y"


def load_npz(path: str | os.PathLike) -> ImageData:
    """Loads images and labels from a NumPy file.

    Example:
    ```python
    import numpy as np
    from kerasrestart.experiments.data.arrays import load_npz

    np.savez("birds.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    data = load_npz("birds.npz")
    ```

    Args:
        path: A file as `np.savez` writes it, with the arrays `x_train, y_train, x_test, y_test`, or
            `x, y`; see `from_arrays`. Further: `x_validation, y_validation`, and `classes`, the
            names of the classes. Nothing in it is unpickled.

    Raises:
        DataError: There is no such file, it is damaged, or `from_arrays` refuses the arrays.
    """
    file = user_path(path, "dataset")
    if not file.is_file():
        raise DataError(f"--dataset=npz:FILE must name a NumPy file. Received: {str(path)!r}")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{file} must hold the arrays {_NAMES}. Received: one array")
        with loaded:
            content = {name: _array(file, loaded, name) for name in loaded.files}
    except DataError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many classes
        raise DataError(f"{file} is damaged or not a NumPy file: {error_line(error)}.") from error
    try:
        return from_arrays(content, plain_name(file.stem))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _array(file: pathlib.Path, loaded: Any, name: str) -> np.ndarray:
    try:
        return loaded[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{file} must hold arrays of numbers, or of texts for labels: save {name} as "
            f"{name}.astype('uint8') for images, 'int64' or 'str' for labels. Received: Python "
            f"objects in {name!r}, which are not unpickled"
        ) from error


def save_npz(path: pathlib.Path, data: ImageData) -> None:
    """Writes a data set as `load_npz` reads it, atomically.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"classes": np.array(data.classes)}
    for name in SPLITS:
        split = getattr(data, name)
        arrays |= {f"x_{name}": split.images, f"y_{name}": split.labels}
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def from_arrays(value: Any, name: str) -> ImageData:
    """Makes a data set of arrays.

    Example:
    ```python
    from kerasrestart.experiments.data.arrays import from_arrays

    data = from_arrays((x, y), "birds")  # or keras.datasets.mnist.load_data(), "mnist"
    ```

    Splits that are not given are taken from the training images: a tenth each, see `split_tenth`.

    Args:
        value: `(x, y)`; `((x_train, y_train), (x_test, y_test))`, as `keras.datasets` has it; a
            dict of arrays with the names of `load_npz`; or an `ImageData`, which is returned as it
            is. Images are uint8 `[n, height, width]` or with 1 or 3 channels last; or
            floating-point in 0..1, which are rounded to 256 levels. Labels are whole numbers from
            0, or texts, `[n]` or `[n, 1]`, as arrays, lists or columns of pandas.
        name: Name of the data set.

    Raises:
        DataError: The value has another form, or arrays do not fit together.
    """
    if isinstance(value, ImageData):
        return value
    arrays = _by_name(value)
    names = arrays.pop("classes", None)
    parts = {split: arrays[split] for split in SPLITS if split in arrays}
    images = {split: _images(x) for split, (x, _) in parts.items()}
    labels, classes = _labels({split: y for split, (_, y) in parts.items()}, names)
    return assemble(name, classes, {split: Split(images[split], labels[split]) for split in parts})


def assemble(name: str, classes: Sequence[str], splits: Mapping[str, Split]) -> ImageData:
    """Makes a data set of its splits; those that are missing are taken from the training split.

    Args:
        name: Name of the data set.
        classes: Name of each class.
        splits: By name, "train" and any of "validation" and "test".

    Raises:
        DataError: Images of two splits differ in size, or there are too few images or classes.
    """
    if len(classes) < 2:
        raise DataError(f"There must be two classes or more. Received: {list(classes)!r}")
    _check_class_sizes(classes, splits)
    found = dict(splits)
    for split in ("test", "validation"):
        if split not in found:
            found["train"], found[split] = split_tenth(found["train"], seed=0)
    shape = found["train"].images.shape[1:]
    for split, images in found.items():
        if not len(images):
            raise DataError(f"There must be images in each split. Received: none in {split}")
        if images.images.shape[1:] != shape:
            raise DataError(
                f"All images must have one shape. Received: {list(shape)} in train, "
                f"{list(images.images.shape[1:])} in {split}"
            )
    return ImageData(name, tuple(classes), found["train"], found["validation"], found["test"])


def plain_name(text: str) -> str:
    """A name for folders and tables: letters, digits and _.+-."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).lstrip(".-+") or "data"


def _by_name(value: Any) -> dict[str, Any]:
    """The pairs `(images, labels)` by split, and `classes`."""
    if isinstance(value, Mapping):
        names = {"x": "train", **{f"x_{split}": split for split in SPLITS}, "x_val": "validation"}
        found = {}
        for x, split in names.items():
            y = x.replace("x", "y", 1)
            if (x in value) != (y in value):
                raise DataError(
                    f"Each x must have its y, as in {_NAMES}. Received: {sorted(value)}"
                )
            if x in value:
                found[split] = (value[x], value[y])
        known = {*names, *(x.replace("x", "y", 1) for x in names), "classes"}
        if "train" not in found or not value.keys() <= known or ("x" in value and len(found) > 1):
            raise DataError(f"The arrays must be {_NAMES}. Received: {sorted(value)}")
        return {**found, **({"classes": value["classes"]} if "classes" in value else {})}
    if isinstance(value, Sequence) and len(value) == 2 and not isinstance(value, str):
        first, second = value
        pairs = [of for of in value if isinstance(of, Sequence) and len(of) == 2]
        if len(pairs) == 2:
            return {"train": tuple(first), "test": tuple(second)}
        if not pairs and np.ndim(first) >= 3:
            return {"train": (first, second)}
    raise DataError(
        "Images must be (x, y), ((x_train, y_train), (x_test, y_test)), a dict of arrays or an "
        f"ImageData. Received: {type(value).__name__!r}"
    )


def _check_class_sizes(classes: Sequence[str], splits: Mapping[str, Split]) -> None:
    """Refuses a class from which no image can be taken for each split that is missing."""
    missing = [split for split in ("test", "validation") if split not in splits]
    labels, sizes = np.unique(splits["train"].labels, return_counts=True)
    if missing and len(sizes) and sizes.min() <= len(missing):
        few = int(sizes.argmin())
        raise DataError(
            f"Each class must have {len(missing) + 1} images or more, of which at least one is "
            f"taken for {' and one for '.join(missing)}: add images, or a split of your own for "
            f"{' and '.join(missing)}. Received: {sizes[few]} of class {classes[labels[few]]!r}"
        )


def _images(array: Any) -> np.ndarray:
    images = np.asarray(array)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    wrong = f"Received: {images.dtype} {list(images.shape)}"
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or not images.size:
        raise DataError("Images must be [n, height, width], or with 1 or 3 channels last. " + wrong)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "fiu":
        raise DataError(f"Images must be numbers. {wrong}")
    if wrong_numbers := images.size - int(np.isfinite(images).sum()):
        raise DataError(
            f"Images must be finite numbers. {wrong}, of which {wrong_numbers} of {images.size} "
            "values are NaN or infinite"
        )
    low, high = images.min(), images.max()
    limits = f"{wrong}, from {low} to {high}"
    if images.dtype.kind == "f":
        if low < 0 or high > 1:
            raise DataError(
                "Images must be whole numbers in 0..255, or floating-point in 0..1. " + limits
            )
        return np.round(images * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise DataError("Images of whole numbers must be in 0..255. " + limits)
    return images.astype(np.uint8)


def _labels(labels: Mapping[str, Any], names: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels as int32 by split, and the names of the classes."""
    arrays = {split: _label_array(of) for split, of in labels.items()}
    classes = None if names is None else tuple(str(text) for text in np.asarray(names).ravel())
    if any(array.dtype.kind == "U" for array in arrays.values()):
        return _numbered({split: array.astype(str) for split, array in arrays.items()}, classes)
    lowest = min((int(a.min()) for a in arrays.values() if len(a)), default=0)
    highest = max((int(a.max()) for a in arrays.values() if len(a)), default=0)
    if classes is None:
        classes = tuple(str(n) for n in range(highest + 1))
    if lowest < 0 or highest >= max(len(classes), 1):
        raise DataError(
            f"Labels must be from 0 to {max(len(classes) - 1, 0)}. Received: {lowest} to {highest}"
        )
    return {split: array.astype(np.int32) for split, array in arrays.items()}, classes


def _label_array(labels: Any) -> np.ndarray:
    """The labels of a split, `[n]`, of integers or of texts."""
    array = np.asarray(labels)
    if array.dtype.kind in "OT":  # a column of texts of pandas is of objects
        values = array.ravel().tolist()
        for kind, to in ((str, np.str_), (int, np.int64)):
            if all(isinstance(of, kind) and not isinstance(of, bool) for of in values):
                array = array.astype(to)
                break
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataError(
            "Labels must be whole numbers or texts, one for each image. Received: "
            f"{array.dtype} {list(array.shape)}"
        )
    return array


def _numbered(
    texts: Mapping[str, np.ndarray], classes: tuple[str, ...] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The numbers of labels that are texts, and the classes; without their order, sorted."""
    known = np.unique(np.concatenate(list(texts.values()))).tolist()
    classes = tuple(known) if classes is None else classes
    if unknown := [text for text in known if text not in classes]:
        raise DataError(
            f"Labels must be among the classes {', '.join(classes)}. Received: {unknown[0]!r}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return {
        split: np.array([numbers[text] for text in of.tolist()], np.int32)
        for split, of in texts.items()
    }, classes

"""Labelled images in memory: one split, a data set of three splits, and subsets of a split."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed

# np.bincount converts its input to 8 bytes per value, so images are counted in blocks.
_BLOCK = 1024

CHANNELS = (1, 3)
"""Numbers of channels that images can have: grey and RGB."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 `[n, height, width, channels]`: 3 channels, RGB, or 1, grey.
        labels: int32 `[n]`, each an index into the data set's classes.

    Raises:
        DataError: If an array has a different type or shape.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in CHANNELS:
            raise DataError(
                "images must be uint8 [n, height, width, 3], or 1 for grey. Received: "
                f"{images.dtype} {list(images.shape)}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise DataError(
                f"labels must be int32 [{len(images)}], one per image. Received: {labels.dtype} "
                f"{list(labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the examples at `indices` (int `[k]`), in that order, as a copy."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set ready for training.

    Attributes:
        name: The data set that was actually loaded, such as `"cifar10"` or `"shapes"`.
        classes: Name of each class; a label is an index into it.
        train: Training split.
        validation: Validation split, used to detect plateaus and to choose epochs.
        test: Test split, used only for reporting.
        note: A warning to show beside every result measured on this data; `""` for none.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    note: str = ""

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel of the training pixels in 0..1: float32 `[channels]`."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each channel, as `mean`."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        images = self.train.images
        channels = images.shape[-1]
        counts = np.zeros((channels, 256), np.int64)
        for start in range(0, len(images), _BLOCK):
            for channel in range(channels):
                values = images[start : start + _BLOCK, ..., channel].ravel()
                counts[channel] += np.bincount(values, minlength=256)
        levels = np.arange(256) / 255.0
        weights = counts / counts.sum(axis=1, keepdims=True)
        mean = weights @ levels
        variance = (weights * (levels - mean[:, np.newaxis]) ** 2).sum(axis=1)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of every label and pixel of the three splits, in order."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(repr(split.images.shape).encode())
            digest.update(np.ascontiguousarray(split.labels, "<i4").data)
            digest.update(np.ascontiguousarray(split.images).data)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """Returns the description of the data for a run's record, in JSON types.

        Returns:
            A dict with `name`, `note`, `classes` (list), `examples` (count per split),
            `image_shape` (height, width, channels) and `sha256` (the fingerprint).
        """
        return {
            "name": self.name,
            "note": self.note,
            "classes": list(self.classes),
            "examples": {
                "train": len(self.train),
                "validation": len(self.validation),
                "test": len(self.test),
            },
            "image_shape": list(self.train.images.shape[1:]),
            "sha256": self.fingerprint,
        }


def in_colour(data: ImageData) -> ImageData:
    """Returns grey images as RGB, as pretrained networks expect them; others as they are."""
    if data.train.images.shape[-1] == 3:
        return data
    train, validation, test = (
        Split(np.repeat(split.images, 3, axis=-1), split.labels)
        for split in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def split_validation(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Splits off a validation set, stratified by class.

    Args:
        split: The split to divide.
        count: Size of the validation split, 1..n-1. Class counts differ by at most one.
        seed: At least 0. The result is a pure function of the labels, `count` and `seed`.

    Returns:
        `(train, validation)`: every example is in exactly one of them, in the order of `split`.

    Raises:
        DataError: If `count` is out of range, or a class has too few examples.
    """
    count = check_integer("validation_examples", count, 1, len(split) - 1)
    chosen = stratified(split.labels, count, seed, "validation_examples")
    rest = np.setdiff1d(np.arange(len(split)), chosen, assume_unique=True)
    return split.take(rest), split.take(chosen)


def split_tenth(split: Split, seed: int) -> tuple[Split, Split]:
    """Splits off a tenth of a split, at random in each class.

    Classes have equally many examples in it, as in `split_validation`, where none would lose more
    than half of its examples; otherwise in proportion, at least one each.

    Args:
        split: The split to divide.
        seed: At least 0. The result is a pure function of the labels and `seed`.

    Returns:
        `(rest, tenth)`: every example is in exactly one of them, in the order of `split`.

    Raises:
        DataError: If a class has a single example.
    """
    classes, sizes = np.unique(split.labels, return_counts=True)
    count = max(len(split) // 10, len(classes))
    if sizes.min() >= 2 * -(-count // len(classes)):
        return split_validation(split, count, seed)
    rng = np.random.default_rng(check_seed(seed))
    chosen = []
    for label, size in zip(classes, sizes, strict=True):
        if size < 2:
            raise DataError(
                "A class must have two examples or more where a split is taken from it. Received: "
                f"{size} of class {label}"
            )
        members = np.flatnonzero(split.labels == label)
        chosen.append(rng.choice(members, max(1, round(size / 10)), replace=False))
    tenth = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(split)), tenth, assume_unique=True)
    return split.take(rest), split.take(tenth)


def subset(split: Split, count: int, seed: int, argument: str = "train_examples") -> Split:
    """Returns a random subset of a split, stratified by class.

    Args:
        split: The split to choose from.
        count: Number of examples to keep, 1..n. Class counts differ by at most one, except that
            `count = n` keeps everything.
        seed: At least 0. The result is a pure function of the labels, `count` and `seed`.
        argument: Name of `count` in an error. Defaults to `"train_examples"`.

    Returns:
        The chosen examples, in the order of `split`.

    Raises:
        DataError: If `count` is out of range, or a class has too few examples.
    """
    count = check_integer(argument, count, 1, len(split))
    if count == len(split):
        return split
    return split.take(stratified(split.labels, count, seed, argument))


def stratified(labels: np.ndarray, count: int, seed: int, argument: str = "count") -> np.ndarray:
    """Returns `count` random indices in ascending order; class counts differ by at most one.

    An error names `count` by the name `argument`.
    """
    rng = np.random.default_rng(check_seed(seed))
    classes, sizes = np.unique(labels, return_counts=True)
    share, left_over = divmod(count, len(classes))
    # A class with exactly `share` examples cannot provide one more.
    larger = np.flatnonzero(sizes > share)
    if sizes.min() < share or len(larger) < left_over:
        raise DataError(
            f"{argument} must be at most {sizes.min() * len(classes)}, equally many of each class: "
            f"the smallest of {len(classes)} has {sizes.min()} examples. Received: {count}"
        )
    shares = np.full(len(classes), share)
    shares[rng.choice(larger, left_over, replace=False)] += 1
    chosen = [
        rng.choice(np.flatnonzero(labels == label), size, replace=False)
        for label, size in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen))

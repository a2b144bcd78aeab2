"""Labelled images in memory: a split, a data set of three splits, and choices from a split."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed

# np.bincount widens its input to 8 bytes a value, so images are counted a block at a time.
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 `[n, height, width, 3]`, RGB.
        labels: int32 `[n]`, each an index into the data set's classes.

    Raises:
        DataError: If an array has another type or shape.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise DataError(
                f"images must be uint8 [n, height, width, 3], but are "
                f"{images.dtype} {list(images.shape)}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise DataError(
                f"labels must be int32 [{len(images)}], one for each image, but are "
                f"{labels.dtype} {list(labels.shape)}"
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
        name: `"cifar10"` or `"shapes"`: the set that this really is.
        classes: Name of each class, by label.
        train: What gradients are computed from.
        validation: What plateaus are found and choices are made on.
        test: What is only reported.
        note: A warning that belongs beside every number measured here; `""` for none.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    note: str = ""

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel over the training images: float32 `[3]`, pixels being 0..1."""
        return self._moments[0]

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of each channel over the training images: float32 `[3]`, as `mean`."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        images = self.train.images
        counts = np.zeros((3, 256), np.int64)
        for start in range(0, len(images), _BLOCK):
            for channel in range(3):
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
        """Returns what a run's record says of its data, made of JSON types only.

        Returns:
            A dict of `name`, `note`, `classes` (list), `examples` (count by split), `image_shape`
            (height, width, 3) and `sha256` (the fingerprint).
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


def split_validation(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Takes a validation split out of a training split, the same share from every class.

    Args:
        split: What to divide.
        count: Size of the validation split, 1..n-1. Classes get the same number to within one.
        seed: At least 0. The division is a pure function of the labels, `count` and `seed`.

    Returns:
        `(train, validation)`: together every example once, each in the order of `split`.

    Raises:
        DataError: If `count` is out of range, or a class is smaller than its share.
    """
    count = check_integer("validation_examples", count, 1, len(split) - 1)
    chosen = stratified(split.labels, count, seed)
    rest = np.setdiff1d(np.arange(len(split)), chosen, assume_unique=True)
    return split.take(rest), split.take(chosen)


def subset(split: Split, count: int, seed: int) -> Split:
    """Keeps part of a split, the same share of every class.

    Args:
        split: What to choose from.
        count: How many examples to keep, 1..n. Classes get the same number to within one, except
            that `count = n` keeps all whatever their classes.
        seed: At least 0. The choice is a pure function of the labels, `count` and `seed`.

    Returns:
        The chosen examples, in the order of `split`.

    Raises:
        DataError: If `count` is out of range, or a class is smaller than its share.
    """
    count = check_integer("train_examples", count, 1, len(split))
    return split if count == len(split) else split.take(stratified(split.labels, count, seed))


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses `count` indices at random, as many of each class to within one, in rising order."""
    rng = np.random.default_rng(check_seed(seed))
    classes, sizes = np.unique(labels, return_counts=True)
    share, left_over = divmod(count, len(classes))
    # A class of exactly `share` examples cannot give one of the left-over places.
    larger = np.flatnonzero(sizes > share)
    if sizes.min() < share or len(larger) < left_over:
        raise DataError(
            f"cannot choose {count} examples evenly over {len(classes)} classes: the smallest "
            f"has {sizes.min()}, so choose at most {sizes.min() * len(classes)}"
        )
    shares = np.full(len(classes), share)
    shares[rng.choice(larger, left_over, replace=False)] += 1
    chosen = [
        rng.choice(np.flatnonzero(labels == label), size, replace=False)
        for label, size in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen))

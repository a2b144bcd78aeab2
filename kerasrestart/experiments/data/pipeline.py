"""Batches for `model.fit`: shuffled and augmented by rule, so that a run can be resumed exactly.

Images stay uint8 in one tensor and are gathered, normalised and augmented a batch at a time.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed
from kerasrestart.experiments.data.regimes import Regime

PADDING = 4
"""How far augmentation shifts an image at most, in pixels, each way."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Returns the number of batches in an epoch, a short last one included."""
    return -(-len(split) // check_integer("batch_size", batch_size, 1))


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    mean: np.ndarray,
    deviation: np.ndarray,
    augment: bool = False,
    image_size: int | None = None,
    first_epoch: int = 0,
    regime: Regime | None = None,
) -> tf.data.Dataset:
    """Returns endless training batches, each epoch in a new order.

    What a batch holds is a pure function of the arguments, the epoch and the place in the epoch.
    So a run that stopped after epoch k - 1 goes on exactly with `first_epoch=k`.

    Args:
        split: The examples. Every epoch has each of them once.
        batch_size: Examples a batch, at least 1. The last batch of an epoch has what is left.
        seed: At least 0. Decides the orders, and the augmentation.
        mean: Of each channel, float32 `[3]`, pixels being 0..1.
        deviation: Of each channel, as `mean`, above 0.
        augment: Whether each image is flipped left to right with probability one half and
            shifted by up to `PADDING` pixels each way (default `False`). What a shift uncovers is
            0, the mean colour (He et al. 2016).
        image_size: Height and width that images are brought to at last, at least 1, by bilinear
            interpolation without antialiasing. Default: they stay as they are stored.
        first_epoch: Number of the epoch to begin with, default 0.
        regime: What each epoch is trained on, default all of `split` as it is. An epoch that is
            made of part of it has as many batches as any other.

    Returns:
        A dataset of infinite cardinality of `(images, labels)`: float32
        `[batch, height, width, 3]`, `(pixel / 255 - mean) / deviation`; and int32 `[batch]`. Pass
        `steps_per_epoch` to `fit`.

    Raises:
        DataError: If a number is out of range.
    """
    steps = steps_per_epoch(split, batch_size)
    seed = check_seed(seed)
    first_epoch = check_integer("first_epoch", first_epoch, 0)
    fetch = _fetcher(split, mean, deviation)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        if regime is None:
            order = tf.random.experimental.stateless_shuffle(tf.range(len(split)), epoch_seed)
            labels = tf.zeros(0, tf.int32)
        else:
            kinds = (tf.int32, tf.int32)
            examples, labels = tf.numpy_function(_of_epoch(regime, len(split)), [epoch], kinds)
            order = tf.reshape(_shuffle_rows(examples, epoch_seed), [-1])[: len(split)]

        def one_step(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            indices = order[step * batch_size : (step + 1) * batch_size]
            own = () if regime is None else (tf.gather(labels, indices),)
            return indices, tf.random.fold_in(epoch_seed, step), *own

        return tf.data.Dataset.range(steps).map(one_step)

    def one_batch(
        indices: tf.Tensor, step_seed: tf.Tensor, *own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = fetch(indices)
        labels = tf.ensure_shape(own[0], labels.shape) if own else labels
        return (shift_and_flip(images, step_seed) if augment else images), labels

    batches = tf.data.Dataset.counter(first_epoch).flat_map(one_epoch).map(one_batch)
    batches = _resized(batches, image_size)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(endless).prefetch(tf.data.AUTOTUNE)


def _of_epoch(regime: Regime, count: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """A function from an epoch to its examples, repeated in rows until there are `count`; labels.

    Raises:
        DataError: If the regime is for other examples.
    """

    def of_epoch(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        examples = regime.epoch_examples(int(epoch))
        if examples is None:
            examples = np.arange(count)
        rows = -(-count // len(examples))
        labels = regime.epoch_labels(int(epoch))
        return np.tile(examples, (rows, 1)).astype(np.int32), labels

    return of_epoch


def _shuffle_rows(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shuffles each row on its own; a single one as `train_batches` shuffles without a regime."""

    def shuffle(number: tf.Tensor) -> tf.Tensor:
        own = tf.where(number > 0, tf.cast(tf.random.fold_in(seed, number), seed.dtype), seed)
        return tf.random.experimental.stateless_shuffle(rows[number], own)

    return tf.map_fn(shuffle, tf.range(tf.shape(rows)[0]), fn_output_signature=tf.int32)


def evaluation_batches(
    split: Split,
    batch_size: int,
    *,
    mean: np.ndarray,
    deviation: np.ndarray,
    image_size: int | None = None,
    class_order: tf.Variable | None = None,
) -> tf.data.Dataset:
    """Returns every example once, in the order of the split.

    Args:
        split: The examples.
        batch_size: Examples a batch, at least 1. The last batch has what is left.
        mean: Of each channel, float32 `[3]`, pixels being 0..1.
        deviation: Of each channel, as `mean`, above 0.
        image_size: Height and width that images are brought to, as in `train_batches`.
        class_order: What each class is called, int32 `[classes]`, as it stands when the examples
            are iterated over. Default: as in the split.

    Returns:
        A dataset of known cardinality of `(images, labels)`, as `train_batches` yields them.

    Raises:
        DataError: If a number is out of range.
    """
    steps = steps_per_epoch(split, batch_size)
    fetch = _fetcher(split, mean, deviation)

    def one_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = step * batch_size
        images, labels = fetch(tf.range(start, tf.minimum(start + batch_size, len(split))))
        return images, labels if class_order is None else tf.gather(class_order, labels)

    batches = _resized(tf.data.Dataset.range(steps).map(one_batch), image_size)
    return batches.prefetch(tf.data.AUTOTUNE)


def shift_and_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shifts each image by up to `PADDING` pixels each way and flips half of them left to right.

    Args:
        images: float32 `[batch, height, width, 3]`.
        seed: Integer `[2]`. The result is a pure function of `images` and `seed`.

    Returns:
        float32 of the same shape. What a shift uncovers is 0.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    shifts = 2 * PADDING + 1
    variant = tf.random.stateless_uniform([count], seed, maxval=2 * shifts**2, dtype=tf.int32)
    down, right, flip = variant // 2 // shifts, variant // 2 % shifts, variant % 2
    top = tf.cast(down - PADDING, tf.float32) / (height - 1)
    left = tf.cast(right - PADDING, tf.float32) / (width - 1)
    flip = tf.cast(flip, tf.float32)
    # One cropping op does it all at half the cost of gathers, a box whose left is its right
    # being a flip. Drawn in by a hair towards the middle, so that rounding cannot push the
    # first and last rows out of the image; the nearest pixel stays the same.
    box = tf.stack([top, left + flip, top + 1, left + 1 - flip], axis=1)
    box = 0.5 + (box - 0.5) * (1 - 1e-4)
    return tf.image.crop_and_resize(
        images, box, tf.range(count), [height, width], method="nearest", extrapolation_value=0
    )


def _resized(batches: tf.data.Dataset, side: int | None) -> tf.data.Dataset:
    """Brings the images of batches to one size.

    It comes last: behind augmentation, whose shifts are in pixels of the images as they are stored.
    With normalising, which is linear too, it could change places.
    """
    if side is None:
        return batches
    check_integer("image_size", side, 1)

    def resize(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.image.resize(images, [side, side], method="bilinear", antialias=False), labels

    # It takes one core longer than an accelerator takes to train on the batch. The order stays.
    return batches.map(resize, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _fetcher(
    split: Split, mean: np.ndarray, deviation: np.ndarray
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from indices to normalised images and their labels."""
    mean, deviation = np.asarray(mean, np.float64), np.asarray(deviation, np.float64)
    if mean.shape != (3,) or deviation.shape != (3,) or not (deviation > 0).all():
        raise DataError(
            "mean and deviation must have 3 numbers each, deviation above 0, but are "
            f"{mean.tolist()} and {deviation.tolist()}"
        )
    image_shape = split.images.shape[1:]
    # Repeated over the image: broadcasting rows of three would take five times as long.
    scale = np.broadcast_to(1 / (255 * deviation), image_shape).astype(np.float32)
    offset = np.broadcast_to(-mean / deviation, image_shape).astype(np.float32)
    with tf.device("CPU:0"):  # else the whole split would go to an accelerator and back
        images, labels = tf.constant(split.images), tf.constant(split.labels)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.cast(tf.gather(images, indices), tf.float32) * scale + offset
        return batch, tf.gather(labels, indices)

    return fetch

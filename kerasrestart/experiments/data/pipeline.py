"""Batches for `model.fit`, deterministic given the seed, so that a run can be resumed exactly.

Images stay uint8 in one tensor and are gathered, normalised and augmented one batch at a time.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed
from kerasrestart.experiments.data.regimes import Regime

PADDING = 4
"""Maximum shift of augmentation along each axis, in pixels."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Returns the number of batches in an epoch; a smaller last batch counts as one."""
    return -(-len(split) // check_integer("batch_size", batch_size, 1))


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    mean: np.ndarray,
    std: np.ndarray,
    augment: bool = False,
    image_size: int | None = None,
    first_epoch: int = 0,
    regime: Regime | None = None,
) -> tf.data.Dataset:
    """Returns training batches without end, shuffled differently in each epoch.

    The content of a batch is a pure function of the arguments, the epoch and the step. A run that
    stopped after epoch k - 1 therefore continues exactly with `first_epoch=k`.

    Example:
    ```python
    batches = train_batches(data.train, 100, seed=0, mean=data.mean, std=data.std)
    model.fit(batches, steps_per_epoch=steps_per_epoch(data.train, 100), epochs=10)
    ```

    Args:
        split: The examples. Each epoch contains every example once.
        batch_size: Examples per batch, at least 1. The last batch of an epoch may be smaller.
        seed: At least 0. Seeds shuffling and augmentation.
        mean: Mean of each channel, float32 `[channels]`, of pixels in 0..1.
        std: Standard deviation of each channel, float32 `[channels]`, above 0.
        augment: Whether to flip each image horizontally with probability 0.5 and to shift it by up
            to `PADDING` pixels along each axis. Uncovered pixels become 0, the mean colour (He et
            al. 2016). Defaults to `False`.
        image_size: Height and width of the images after augmentation, at least 1; bilinear
            interpolation without antialiasing. Defaults to `None`: the stored size.
        first_epoch: Number of the first epoch. Defaults to 0.
        regime: Examples and labels of each epoch. Defaults to `None`: all of `split`, unchanged. An
            epoch on a part of the examples has as many batches as any other.

    Returns:
        A dataset of infinite cardinality. Each element is `(images, labels)`: float32
        `[batch, height, width, channels]`, `(pixel / 255 - mean) / std`; and int32 `[batch]`. Pass
        `steps_per_epoch` to `fit`.

    Raises:
        DataError: If a number is out of range.
    """
    steps = steps_per_epoch(split, batch_size)
    seed = check_seed(seed)
    first_epoch = check_integer("first_epoch", first_epoch, 0)
    fetch = _fetcher(split, mean, std)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        if regime is None:
            order = tf.random.experimental.stateless_shuffle(tf.range(len(split)), epoch_seed)
            labels = tf.zeros(0, tf.int32)
        else:
            kinds = (tf.int32, tf.int32)
            examples, labels = tf.numpy_function(_epoch_content(regime, len(split)), [epoch], kinds)
            order = tf.reshape(_shuffle_rows(examples, epoch_seed), [-1])[: len(split)]

        def step_inputs(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            indices = order[step * batch_size : (step + 1) * batch_size]
            own = () if regime is None else (tf.gather(labels, indices),)
            return indices, tf.random.fold_in(epoch_seed, step), *own

        return tf.data.Dataset.range(steps).map(step_inputs)

    def make_batch(
        indices: tf.Tensor, step_seed: tf.Tensor, *own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = fetch(indices)
        labels = tf.ensure_shape(own[0], labels.shape) if own else labels
        return (shift_and_flip(images, step_seed) if augment else images), labels

    batches = tf.data.Dataset.counter(first_epoch).flat_map(epoch_batches).map(make_batch)
    batches = _resized(batches, image_size)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(endless).prefetch(tf.data.AUTOTUNE)


def _epoch_content(regime: Regime, count: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from an epoch to its examples and labels.

    The examples are int32 `[rows, examples]`, with the same row repeated until there are at least
    `count` entries.
    """

    def content(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        examples = regime.epoch_examples(int(epoch))
        if examples is None:
            examples = np.arange(count)
        rows = -(-count // len(examples))
        labels = regime.epoch_labels(int(epoch))
        return np.tile(examples, (rows, 1)).astype(np.int32), labels

    return content


def _shuffle_rows(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shuffles each row separately; row 0 as `train_batches` does without a regime."""

    def shuffle(number: tf.Tensor) -> tf.Tensor:
        own = tf.where(number > 0, tf.cast(tf.random.fold_in(seed, number), seed.dtype), seed)
        return tf.random.experimental.stateless_shuffle(rows[number], own)

    return tf.map_fn(shuffle, tf.range(tf.shape(rows)[0]), fn_output_signature=tf.int32)


def evaluation_batches(
    split: Split,
    batch_size: int,
    *,
    mean: np.ndarray,
    std: np.ndarray,
    image_size: int | None = None,
    class_order: tf.Variable | None = None,
) -> tf.data.Dataset:
    """Returns batches with every example once, in the order of the split.

    Args:
        split: The examples.
        batch_size: Examples per batch, at least 1. The last batch may be smaller.
        mean: Mean of each channel, float32 `[channels]`, of pixels in 0..1.
        std: Standard deviation of each channel, float32 `[channels]`, above 0.
        image_size: Height and width of the images, as in `train_batches`.
        class_order: int32 variable `[classes]` that maps the split's labels to those in use. It is
            read at each iteration. Defaults to `None`: the split's labels.

    Returns:
        A dataset of finite cardinality. Its elements are those of `train_batches`.

    Raises:
        DataError: If a number is out of range.
    """
    steps = steps_per_epoch(split, batch_size)
    fetch = _fetcher(split, mean, std)

    def make_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = step * batch_size
        images, labels = fetch(tf.range(start, tf.minimum(start + batch_size, len(split))))
        return images, labels if class_order is None else tf.gather(class_order, labels)

    batches = _resized(tf.data.Dataset.range(steps).map(make_batch), image_size)
    return batches.prefetch(tf.data.AUTOTUNE)


def shift_and_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shifts each image by up to `PADDING` pixels along each axis and flips half of them.

    Args:
        images: float32 `[batch, height, width, channels]`.
        seed: Integer `[2]`. The result is a pure function of `images` and `seed`.

    Returns:
        float32 of the same shape. Uncovered pixels are 0.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    shifts = 2 * PADDING + 1
    variant = tf.random.stateless_uniform([count], seed, maxval=2 * shifts**2, dtype=tf.int32)
    down, right, flip = variant // 2 // shifts, variant // 2 % shifts, variant % 2
    top = tf.cast(down - PADDING, tf.float32) / (height - 1)
    left = tf.cast(right - PADDING, tf.float32) / (width - 1)
    flip = tf.cast(flip, tf.float32)
    # One cropping op does both at half the cost of gathers: a box with left and right exchanged
    # flips. The box is shrunk slightly, so that rounding cannot put the first and last rows
    # outside the image; the nearest pixel stays the same.
    box = tf.stack([top, left + flip, top + 1, left + 1 - flip], axis=1)
    box = 0.5 + (box - 0.5) * (1 - 1e-4)
    return tf.image.crop_and_resize(
        images, box, tf.range(count), [height, width], method="nearest", extrapolation_value=0
    )


def _resized(batches: tf.data.Dataset, side: int | None) -> tf.data.Dataset:
    """Resizes the images of each batch to `side` by `side` pixels.

    Resizing comes after augmentation, whose shifts are in pixels of the stored images.
    """
    if side is None:
        return batches
    check_integer("image_size", side, 1)

    def resize(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.image.resize(images, [side, side], method="bilinear", antialias=False), labels

    # On one core, resizing takes longer than an accelerator's training step.
    return batches.map(resize, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _fetcher(
    split: Split, mean: np.ndarray, std: np.ndarray
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from indices to normalised images and labels."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    image_shape = split.images.shape[1:]
    channels = image_shape[-1:]
    if mean.shape != channels or std.shape != channels or not (std > 0).all():
        raise DataError(
            f"mean and std must have {channels[0]} numbers each, and std must be above 0. "
            f"Received: mean={mean.tolist()}, std={std.tolist()}"
        )
    # Full-size arrays: broadcasting along the channels takes five times as long.
    scale = np.broadcast_to(1 / (255 * std), image_shape).astype(np.float32)
    offset = np.broadcast_to(-mean / std, image_shape).astype(np.float32)
    with tf.device("CPU:0"):  # otherwise the whole split is copied to an accelerator and back
        images, labels = tf.constant(split.images), tf.constant(split.labels)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.cast(tf.gather(images, indices), tf.float32) * scale + offset
        return batch, tf.gather(labels, indices)

    return fetch

import itertools

import numpy as np
import pytest
import tensorflow as tf

from kerasrestart.experiments.data import (
    DataError,
    Split,
    evaluation_batches,
    steps_per_epoch,
    train_batches,
)

UNSCALED = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}


def numbered_split(count):
    """Images whose pixels and labels are all the image's index."""
    images = np.zeros((count, 4, 4, 3), np.uint8)
    images += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Split(images, np.arange(count, dtype=np.int32))


def textured_split(count, height=12, width=10):
    images = np.random.default_rng(0).integers(1, 256, (count, height, width, 3), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32))


def epochs_of(dataset, epochs, steps):
    """The labels of each batch, by epoch; also checks that images match their labels."""
    batches = []
    for images, labels in dataset.take(epochs * steps).as_numpy_iterator():
        np.testing.assert_array_equal(np.rint(images[:, 0, 0, 0] * 255), labels)
        batches.append(labels.tolist())
    return [batches[start : start + steps] for start in range(0, len(batches), steps)]


def shuffled(split, batch_size, epochs, seed=0, **options):
    dataset = train_batches(split, batch_size, seed=seed, **UNSCALED, **options)
    return epochs_of(dataset, epochs, steps_per_epoch(split, batch_size))


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(10, 5, 2), (11, 5, 3), (3, 8, 1)])
def test_steps_per_epoch_counts_a_smaller_last_batch(count, batch_size, steps):
    assert steps_per_epoch(numbered_split(count), batch_size) == steps


def test_every_epoch_has_each_example_once():
    for epoch in shuffled(numbered_split(53), 10, epochs=4):
        assert [len(batch) for batch in epoch] == [10, 10, 10, 10, 10, 3]
        assert sorted(itertools.chain(*epoch)) == list(range(53))


def test_order_differs_between_epochs_and_seeds():
    split = numbered_split(53)
    orders = [str(epoch) for seed in (0, 1) for epoch in shuffled(split, 10, 3, seed)]
    assert len({*orders, str([list(range(53))])}) == 7


def test_equal_seeds_give_equal_batches():
    split = textured_split(20)
    first, second = (
        list(train_batches(split, 8, seed=4, augment=True, **UNSCALED).take(9).as_numpy_iterator())
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_first_epoch_resumes_exactly():
    split = textured_split(20)
    options = {"seed": 4, "augment": True, **UNSCALED}
    whole = list(train_batches(split, 8, **options).take(12).as_numpy_iterator())
    tail = list(train_batches(split, 8, first_epoch=2, **options).take(6).as_numpy_iterator())
    for one, other in zip(whole[6:], tail, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_training_batches_are_infinite():
    dataset = train_batches(numbered_split(5), 5, seed=0, **UNSCALED)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len(list(dataset.take(40))) == 40


@pytest.mark.parametrize("augment", [False, True])
def test_batches_have_the_documented_types(augment):
    dataset = train_batches(textured_split(9), 4, seed=0, augment=augment, **UNSCALED)
    images, labels = dataset.element_spec
    assert images == tf.TensorSpec([None, 12, 10, 3], tf.float32)
    assert labels == tf.TensorSpec([None], tf.int32)


def test_images_are_normalised_per_channel():
    split = textured_split(7)
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.3, 0.5])
    expected = (split.images / 255.0 - mean) / std
    for dataset in (
        evaluation_batches(split, 3, mean=mean, std=std),
        train_batches(split, 3, seed=0, mean=mean, std=std).take(3),
    ):
        for images, labels in dataset.as_numpy_iterator():
            np.testing.assert_allclose(images, expected[labels], atol=2e-6)


def test_evaluation_batches_have_every_example_once_in_order():
    dataset = evaluation_batches(numbered_split(23), 10, **UNSCALED)
    assert dataset.cardinality() == 3
    assert epochs_of(dataset, 1, 3) == [
        [list(range(10)), list(range(10, 20)), list(range(20, 23))],
    ]


def variants_of(image):
    """All 9 x 9 x 2 shifts and flips of an image, by definition."""
    height, width, _ = image.shape
    for flipped in (image, image[:, ::-1]):
        padded = np.pad(flipped, ((4, 4), (4, 4), (0, 0)))
        for top, left in itertools.product(range(9), range(9)):
            yield padded[top : top + height, left : left + width].tobytes()


@pytest.mark.parametrize(("height", "width"), [(12, 10), (32, 32)])
def test_augmentation_gives_exactly_the_162_shifts_and_flips(height, width):
    count = 4
    split = textured_split(count, height, width)
    known = [{v: i for i, v in enumerate(variants_of(image))} for image in split.images]
    seen = np.zeros(162, int)
    dataset = train_batches(split, count, seed=0, augment=True, **UNSCALED)
    for images, labels in dataset.take(1000).as_numpy_iterator():
        for image, label in zip(np.rint(images * 255).astype(np.uint8), labels, strict=True):
            seen[known[label][image.tobytes()]] += 1
    assert seen.sum() == 4000
    # 4000 draws of 162 equal variants: chi-squared of 161 degrees, far beyond its 0.9999 quantile.
    assert ((seen - 4000 / 162) ** 2 / (4000 / 162)).sum() < 240


def test_large_images_are_shifted_exactly():
    split = textured_split(2, 224, 96)
    known = [set(variants_of(image)) for image in split.images]
    dataset = train_batches(split, 2, seed=0, augment=True, **UNSCALED)
    for images, labels in dataset.take(10).as_numpy_iterator():
        for image, label in zip(np.rint(images * 255).astype(np.uint8), labels, strict=True):
            assert image.tobytes() in known[label]


def test_uncovered_pixels_are_the_mean_colour():
    # All images are white and white is far from the mean, so a 0 is an uncovered pixel.
    split = Split(np.full((8, 8, 8, 3), 255, np.uint8), np.zeros(8, np.int32))
    options = {"mean": np.float32([0.5] * 3), "std": np.float32([0.25] * 3)}
    dataset = train_batches(split, 8, seed=0, augment=True, **options)
    values = {float(v) for images, _ in dataset.take(4) for v in np.unique(images)}
    assert values == {0.0, 2.0}


def repeated_image(count):
    return Split(np.repeat(textured_split(1).images, count, axis=0), np.zeros(count, np.int32))


def test_images_of_a_batch_are_augmented_independently():
    dataset = train_batches(repeated_image(64), 64, seed=0, augment=True, **UNSCALED)
    images, _ = next(dataset.as_numpy_iterator())
    # 64 draws of 162 leave about 53 different ones.
    assert len({image.tobytes() for image in images}) > 40


def test_augmentation_differs_between_steps_epochs_and_seeds():
    # All images are equal, so batches differ only in their augmentation.
    batches = [
        images.tobytes()
        for seed in (0, 1)
        for images, _ in train_batches(repeated_image(24), 8, seed=seed, augment=True, **UNSCALED)
        .take(6)
        .as_numpy_iterator()
    ]
    assert len(set(batches)) == len(batches) == 12


def test_augmentation_does_not_change_the_order():
    split = numbered_split(20)
    plain, augmented = (
        [
            labels.tolist()
            for _, labels in train_batches(split, 8, seed=2, augment=augment, **UNSCALED)
            .take(6)
            .as_numpy_iterator()
        ]
        for augment in (False, True)
    )
    assert plain == augmented


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1. Received: 0"),
        ({"batch_size": 2.0}, "batch_size must be an integer of at least 1. Received: 2.0"),
        ({"seed": -3}, "seed must be .* Received: -3"),
        ({"first_epoch": -1}, "first_epoch must be an integer of at least 0. Received: -1"),
        ({"std": np.float32([1, 0, 1])}, "std must be above 0"),
        ({"mean": np.float32([1])}, "3 numbers each"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(change, text):
    arguments = {"batch_size": 4, "seed": 0, **UNSCALED, **change}
    with pytest.raises(DataError, match=text) as caught:
        train_batches(numbered_split(8), **arguments)
    assert "\n" not in str(caught.value)


def bilinear(image, side):
    """Bilinear resizing in float64, pixel centres at halves, edges repeated."""

    def matrix(size):
        places = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        low = np.minimum(np.floor(places).astype(int), size - 2)
        weights = np.zeros((side, size))
        weights[np.arange(side), low] = 1 - (places - low)
        weights[np.arange(side), low + 1] += places - low
        return weights

    rows, columns = matrix(image.shape[0]), matrix(image.shape[1])
    return np.einsum("ih,hwc,jw->ijc", rows, np.float64(image), columns)


@pytest.mark.parametrize("side", [21, 5])
def test_images_are_resized_bilinearly_without_antialiasing(side):
    split = textured_split(7)
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.3, 0.5])
    expected = np.stack([bilinear((i / 255.0 - mean) / std, side) for i in split.images])
    options = {"mean": mean, "std": std, "image_size": side}
    for dataset in (
        evaluation_batches(split, 3, **options),
        train_batches(split, 3, seed=0, **options).take(3),
    ):
        assert dataset.element_spec[0].shape.as_list() == [None, side, side, 3]
        for images, labels in dataset.as_numpy_iterator():
            np.testing.assert_allclose(images, expected[labels], atol=1e-5)


def test_resizing_keeps_the_order_and_resumes_exactly():
    split = textured_split(20)
    options = {"seed": 4, "augment": True, **UNSCALED}
    stored = list(train_batches(split, 8, **options).take(9).as_numpy_iterator())
    large = list(train_batches(split, 8, image_size=24, **options).take(9).as_numpy_iterator())
    tail = train_batches(split, 8, image_size=24, first_epoch=1, **options).take(6)
    for (small, labels), (image, same) in zip(stored, large, strict=True):
        np.testing.assert_array_equal(labels, same)  # augmentation comes first, in stored pixels
        np.testing.assert_allclose(image[0], bilinear(small[0], 24), atol=1e-5)
    for one, other in zip(large[3:], tail.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_image_size_below_one_is_refused():
    with pytest.raises(DataError, match="image_size"):
        evaluation_batches(textured_split(3), 3, image_size=0, **UNSCALED)

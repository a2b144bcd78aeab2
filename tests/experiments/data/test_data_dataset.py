import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from kerasrestart.experiments.data import DataError, ImageData, Split
from kerasrestart.experiments.data.dataset import split_validation, subset


def numbered_split(labels):
    """Labelled images that store their own index in the first pixel."""
    labels = np.asarray(labels, np.int32)
    images = np.zeros((len(labels), 4, 5, 3), np.uint8)
    numbers = np.arange(len(labels))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers // 256, numbers % 256
    return Split(images, labels)


def indices_of(split):
    return (split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 0, 1]).tolist()


def random_split(count, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, [256, 100, 30], (count, 6, 7, 3)).astype(np.uint8)
    return Split(images, (np.arange(count) % 3).astype(np.int32))


@pytest.fixture
def balanced():
    return numbered_split(np.random.default_rng(0).permutation(np.arange(1000) % 10))


def test_validation_split_has_the_same_count_of_every_class(balanced):
    train, validation = split_validation(balanced, 200, seed=0)
    assert Counter(validation.labels.tolist()) == dict.fromkeys(range(10), 20)
    assert Counter(train.labels.tolist()) == dict.fromkeys(range(10), 80)


@pytest.mark.parametrize("count", [1, 7, 203, 999])
def test_class_counts_differ_by_at_most_one_for_an_uneven_validation_count(balanced, count):
    _, validation = split_validation(balanced, count, seed=0)
    per_class = np.bincount(validation.labels, minlength=10)
    assert per_class.sum() == count
    assert per_class.max() - per_class.min() <= 1


def test_train_and_validation_partition_the_split_in_order(balanced):
    train, validation = split_validation(balanced, 205, seed=3)
    assert sorted(indices_of(train) + indices_of(validation)) == list(range(1000))
    for part in (train, validation):
        numbers = indices_of(part)
        assert numbers == sorted(numbers)
        np.testing.assert_array_equal(part.labels, balanced.labels[numbers])


def test_validation_split_depends_on_the_seed_only(balanced):
    chosen = [indices_of(split_validation(balanced, 100, seed)[1]) for seed in (5, 5, 6)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_validation_split_is_spread_over_the_whole_split(balanced):
    numbers = indices_of(split_validation(balanced, 500, seed=0)[1])
    assert 400 < np.mean(numbers) < 600
    assert min(numbers) < 50
    assert max(numbers) > 950


@pytest.mark.parametrize("count", [0, -1, 1000, 5000, 2.5, "10", True])
def test_error_for_validation_count_names_the_value_and_the_range(balanced, count):
    with pytest.raises(DataError) as caught:
        split_validation(balanced, count, seed=0)
    text = str(caught.value)
    assert "\n" not in text
    assert "validation_examples" in text
    assert repr(count) in text
    assert "1..999" in text


@pytest.mark.parametrize("seed", [-1, 0.5, None, 2**63])
def test_invalid_seed_is_refused(balanced, seed):
    with pytest.raises(DataError, match="seed must be"):
        split_validation(balanced, 10, seed)


def test_subset_is_stratified_and_in_order(balanced):
    part = subset(balanced, 333, seed=1)
    per_class = np.bincount(part.labels, minlength=10)
    assert len(part) == 333
    assert set(per_class) == {33, 34}
    numbers = indices_of(part)
    assert numbers == sorted(set(numbers))
    np.testing.assert_array_equal(part.labels, balanced.labels[numbers])


def test_subset_of_everything_is_everything(balanced):
    assert indices_of(subset(balanced, 1000, seed=1)) == list(range(1000))


def test_remainder_goes_to_classes_with_enough_examples():
    split = numbered_split([0] * 5 + [1] * 4 + [2] * 5)
    for seed in range(10):
        assert np.bincount(subset(split, 13, seed).labels).tolist() in ([5, 4, 4], [4, 4, 5])


def test_error_for_a_small_class_names_the_largest_valid_count():
    split = numbered_split([0] * 50 + [1] * 3)
    with pytest.raises(DataError, match=r"train_examples must be at most 6, .* Received: 20"):
        subset(split, 20, seed=0)
    assert np.bincount(subset(split, 6, seed=0).labels).tolist() == [3, 3]


def test_mean_and_std_are_of_the_training_images():
    train = random_split(3000, 0)
    data = ImageData("x", ("a", "b", "c"), train, random_split(9, 1), random_split(9, 2))
    pixels = train.images.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32
    assert data.mean is data.mean


def test_summary_is_json():
    data = ImageData(
        "x", ("a", "b", "c"), random_split(30, 0), random_split(6, 1), random_split(9, 2), "careful"
    )
    summary = json.loads(json.dumps(data.summary()))
    digest = summary.pop("sha256")
    assert len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    assert summary == {
        "name": "x",
        "note": "careful",
        "classes": ["a", "b", "c"],
        "examples": {"train": 30, "validation": 6, "test": 9},
        "image_shape": [6, 7, 3],
    }


def test_fingerprint_changes_with_any_pixel_label_or_split():
    def fingerprint(change=lambda splits: None):
        splits = [random_split(9, seed) for seed in range(3)]
        change(splits)
        return ImageData("x", ("a", "b", "c"), *splits).fingerprint

    def pixel(splits):
        splits[2].images[-1, -1, -1, -1] ^= 1

    def label(splits):
        splits[1].labels[0] += 1

    def order(splits):
        splits[0], splits[1] = splits[1], splits[0]

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(pixel), fingerprint(label), fingerprint(order)}) == 4


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int32), "images must be uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), np.zeros(2, np.int32), "images must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), "labels must be int32"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int32), "labels must be int32"),
    ],
)
def test_split_refuses_arrays_of_wrong_type_or_shape(images, labels, text):
    with pytest.raises(DataError, match=text):
        Split(images, labels)

import hashlib
import math

import numpy as np
import pytest

from kerasrestart.experiments.data import DataError
from kerasrestart.experiments.data.outlines import OUTLINES
from kerasrestart.experiments.data.shapes import CLASSES, draw_shapes, shapes_data


def test_images_have_the_documented_types_and_balanced_classes():
    split = draw_shapes(203, 0)
    assert split.images.shape == (203, 32, 32, 3)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int32
    per_class = np.bincount(split.labels, minlength=10)
    assert set(per_class) == {20, 21}
    assert len(CLASSES) == len(set(CLASSES)) == len(per_class)


def test_labels_come_in_random_order():
    labels = draw_shapes(1000, 0).labels
    assert 0.05 < np.mean(labels[1:] == labels[:-1]) < 0.15


def test_images_depend_on_the_seed_only():
    first, again, other = (draw_shapes(50, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.images != other.images).mean() > 0.9


def test_images_are_the_same_on_every_machine():
    split = draw_shapes(40, 3)
    digest = hashlib.sha256(split.labels.astype("<i4").tobytes() + split.images.tobytes())
    assert digest.hexdigest() == "17a687e95cf5c66f4f500929e88198f6ec07e79e99f1e44a8ae99c8d8a405032"


def test_splits_have_no_common_image():
    splits = shapes_data(300, 200, 100, seed=0)
    assert [len(split) for split in splits] == [300, 200, 100]
    images = [image.tobytes() for split in splits for image in split.images]
    assert len(set(images)) == 600


def test_a_split_does_not_depend_on_the_sizes_of_the_others():
    test = shapes_data(30, 20, 50, seed=0)[2]
    np.testing.assert_array_equal(test.images, shapes_data(70, 10, 50, seed=0)[2].images)


@pytest.mark.parametrize(
    "arguments", [(0, 0), (-1, 0), (1.5, 0), (10, -1), (10, "a"), (10, (0, -1))]
)
def test_invalid_arguments_are_refused(arguments):
    with pytest.raises(DataError, match="must be an integer"):
        draw_shapes(*arguments)


AREAS = {
    "disc": math.pi * 0.9**2,
    "ring": math.pi * (0.95**2 - 0.45**2),
    "half disc": math.pi / 2,
    "triangle": 3 / 2 * math.sin(2 * math.pi / 3),
    "square": 2.0,
    "pentagon": 5 / 2 * math.sin(2 * math.pi / 5),
    "hexagon": 3 * math.sin(math.pi / 3),
    "cross": 2 * (1.9 * 0.6) - 0.6**2,
}


@pytest.mark.parametrize("name", OUTLINES)
def test_outline_encloses_the_area_of_its_shape(name):
    axis = np.linspace(-1.5, 1.5, 1501, dtype=np.float32)
    inside = OUTLINES[name](*np.meshgrid(axis, axis)) < 0
    area = inside.mean() * 9
    if name == "star":  # ten triangles from the middle, between radius 1 and the inner corners
        inner = math.cos(2 * math.pi / 5) / math.cos(math.pi / 5)
        expected = 10 * inner * math.sin(math.pi / 5) / 2
    elif name == "crescent":
        expected = math.pi - lens_area(1, 0.75, 0.5)
    else:
        expected = AREAS[name]
    assert area == pytest.approx(expected, rel=0.01)


def lens_area(big, small, apart):
    """Area common to two discs, from the formula for their circular segments."""
    first = (apart**2 + big**2 - small**2) / (2 * apart)
    second = apart - first
    return sum(
        radius**2 * math.acos(chord / radius) - chord * math.sqrt(radius**2 - chord**2)
        for radius, chord in ((big, first), (small, second))
    )


@pytest.mark.parametrize("name", OUTLINES)
def test_distance_has_unit_slope_near_the_outline(name):
    # Otherwise some classes would have wider soft edges than others.
    axis = np.linspace(-1.2, 1.2, 961, dtype=np.float32)
    distance = OUTLINES[name](*np.meshgrid(axis, axis)).astype(np.float64)
    slope = np.hypot(*np.gradient(distance, float(axis[1] - axis[0])))
    assert np.median(slope[np.abs(distance) < 0.02]) == pytest.approx(1, abs=0.01)


def test_shapes_have_contrast_against_the_background():
    # Class means, because noise and clutter hide the contrast in a single image.
    split = draw_shapes(4000, 0)
    grey = split.images.mean(-1)
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    contrast = np.abs(grey - border.mean(axis=1)[:, None, None])
    filled = contrast[split.labels == CLASSES.index("disc")].mean(axis=0)
    hollow = contrast[split.labels == CLASSES.index("ring")].mean(axis=0)
    assert filled[14:18, 14:18].mean() > 1.5 * filled[:2].mean()
    assert filled[14:18, 14:18].mean() > 1.2 * hollow[14:18, 14:18].mean()

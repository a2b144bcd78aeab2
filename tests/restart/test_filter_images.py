import numpy as np
import pytest

from kerasrestart.restart.filter_images import FRAME, draw_filters


def tiles_of(picture, count, height, width):
    """The grid cut into tiles, by its layout alone: `[count, height, width, 3]`."""
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    assert picture.shape == (rows * height, columns * width, 3)
    grid = picture.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return grid.reshape(-1, height, width, 3)[:count]


def is_framed(tile):
    ring = np.ones(tile.shape[:2], bool)
    ring[2:-2, 2:-2] = False
    return (tile[ring] == FRAME).all()


@pytest.mark.parametrize(
    ("kernel", "tile"),
    [
        ((3, 3), (50, 50)),  # 14 pixels a weight
        ((5, 5), (48, 48)),
        ((11, 11), (52, 52)),
        ((1, 1), (48, 48)),
        ((1, 7), (14, 50)),
        ((50, 50), (58, 58)),
    ],
)
def test_each_weight_is_a_square_and_the_longer_side_at_least_40_pixels(kernel, tile):
    picture = draw_filters(np.random.default_rng(0).normal(size=(8, *kernel, 3)))
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * tile[0], 4 * tile[1], 3)


def test_filters_stand_row_by_row_and_left_over_places_are_white():
    kernels = np.zeros((5, 1, 1, 1), np.float32)
    kernels[:, 0, 0, 0] = [1, -1, 0, 1, -1]
    tiles = tiles_of(draw_filters(kernels), 8, 48, 48)
    inner = tiles[:, 4:-4, 4:-4]
    assert [set(tile.ravel().tolist()) for tile in inner[:5]] == [{255}, {0}, {128}, {255}, {0}]
    assert (tiles[5:] == 255).all()


def test_exactly_the_named_filters_are_framed():
    kernels = np.random.default_rng(0).normal(size=(32, 5, 5, 3))
    plain = tiles_of(draw_filters(kernels), 32, 48, 48)
    tiles = tiles_of(draw_filters(kernels, framed=[0, 7, 31]), 32, 48, 48)
    assert [k for k, tile in enumerate(tiles) if is_framed(tile)] == [0, 7, 31]
    assert not any(is_framed(tile) for tile in plain)
    np.testing.assert_array_equal(tiles[:, 2:-2, 2:-2], plain[:, 2:-2, 2:-2])


def test_three_channels_are_red_green_and_blue():
    kernel = np.zeros((1, 1, 1, 3))
    kernel[0, 0, 0] = [2, -2, 0]
    assert draw_filters(kernel)[20, 20].tolist() == [255, 0, 128]


@pytest.mark.parametrize(("channels", "expected"), [([-4.0], 0), ([3, 5], 255), ([1, -9, 2, 2], 0)])
def test_other_numbers_of_channels_are_grey_and_their_mean(channels, expected):
    kernel = np.reshape(channels, (1, 1, 1, -1))
    assert draw_filters(kernel)[20, 20].tolist() == [expected] * 3


def test_a_weak_filter_is_drawn_as_clearly_as_a_strong_one_and_a_dead_one_grey():
    strong = np.random.default_rng(0).normal(size=(3, 3, 1))
    kernels = np.stack([strong, strong / 1024, 0 * strong])
    tiles = tiles_of(draw_filters(kernels), 3, 50, 50)[:, 4:-4, 4:-4]
    np.testing.assert_array_equal(tiles[0], tiles[1])
    assert np.ptp(tiles[0].astype(int)) > 127
    assert (tiles[2] == 128).all()


def test_a_tile_changes_only_with_its_own_filter():
    kernels = np.random.default_rng(0).normal(size=(12, 3, 3, 3)).astype(np.float32)
    changed = kernels.copy()
    changed[5] *= np.random.default_rng(1).normal(size=(3, 3, 3))
    before, after = (tiles_of(draw_filters(of), 12, 50, 50) for of in (kernels, changed))
    assert [k for k in range(12) if (before[k] != after[k]).any()] == [5]

"""Pictures of a layer's filters: arrays in, pixels out."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

FRAME = (255, 96, 0)
BACKGROUND = (255, 255, 255)
BORDER = 2  # pixels, of the frame, and again of the white between it and the filter
SMALLEST = 40  # pixels, of the longer side of a filter


def draw_filters(kernels: np.ndarray, framed: Collection[int] = ()) -> np.ndarray:
    """Draws filters as a grid of tiles, row by row, some of them framed.

    A tile shows its filter alone: mid-grey is a weight of zero, and black and white (of each
    colour) are minus and plus the largest absolute weight of that filter. So a tile changes only if
    its filter does, and weak filters can be seen as well as strong ones. Filters that read one or
    three channels are drawn in grey or in red, green and blue; of others the mean over the channels
    is drawn, in grey.

    Args:
        kernels: Real, `[filters, height, width, channels]`.
        framed: Indices of the filters that get an orange frame. Defaults to none.

    Returns:
        uint8 `[rows, columns, 3]`. The grid has about twice as many columns of tiles as rows, which
        suits TensorBoard's cards. Each weight is a square of so many pixels that the longer side of
        a filter has 40 or more. Around a filter come 2 white pixels, then a frame of 2, white too
        where none is asked for. Left-over places are white.
    """
    count, height, width, _ = kernels.shape
    zoom = math.ceil(SMALLEST / max(height, width))
    across = math.ceil(math.sqrt(2 * count))
    down = math.ceil(count / across)
    tile_height, tile_width = (side * zoom + 4 * BORDER for side in (height, width))

    tiles = np.full((down * across, tile_height, tile_width, 3), BACKGROUND, np.uint8)
    tiles[list(framed)] = FRAME
    # White sets off the frame from a filter of the same colour.
    _inside(tiles, BORDER)[:] = BACKGROUND
    _inside(tiles, 2 * BORDER)[:count] = _pixels(kernels).repeat(zoom, axis=1).repeat(zoom, axis=2)
    grid = tiles.reshape(down, across, tile_height, tile_width, 3)
    return grid.swapaxes(1, 2).reshape(down * tile_height, across * tile_width, 3)


def _inside(tiles: np.ndarray, border: int) -> np.ndarray:
    return tiles[:, border:-border, border:-border]


def _pixels(kernels: np.ndarray) -> np.ndarray:
    """One pixel a weight: uint8 `[filters, height, width, 1 or 3]`."""
    weights = np.asarray(kernels, np.float32)
    if weights.shape[-1] not in (1, 3):
        weights = weights.mean(axis=-1, keepdims=True)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    relative = weights / np.where(largest > 0, largest, 1)
    return np.round((relative + 1) * 127.5).astype(np.uint8)

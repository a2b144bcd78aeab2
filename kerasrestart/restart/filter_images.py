"""Pictures of a layer's filters: arrays in, pixels out."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

FRAME = (255, 96, 0)
BACKGROUND = (255, 255, 255)
BORDER = 2  # pixels, width of the frame, and of the white between it and the filter
SMALLEST = 40  # pixels, the longer side of a filter


def draw_filters(kernels: np.ndarray, framed: Collection[int] = ()) -> np.ndarray:
    """Draws filters as a grid of tiles, row by row, some of them framed.

    Example:
    ```python
    from kerasrestart.restart.filter_images import draw_filters

    kernel = model.get_layer("conv1").kernel.numpy()  # [height, width, channels, filters]
    picture = draw_filters(kernel.transpose(3, 0, 1, 2), framed=[3, 7])
    ```

    Each tile is scaled by itself: mid-grey is a weight of zero, and black and white (of each
    colour) are minus and plus the largest absolute weight of that filter. So a tile changes only if
    its filter does, and weak filters are as visible as strong ones. Filters that read one or three
    channels are drawn in grey or in red, green and blue; for others the mean over the channels is
    drawn in grey.

    Args:
        kernels: Real, `[filters, height, width, channels]`.
        framed: Indices of the filters with an orange frame. Defaults to none.

    Returns:
        uint8 `[rows, columns, 3]`. The grid has about twice as many columns of tiles as rows, which
        suits TensorBoard's cards. Each weight is a square, large enough that the longer side of a
        filter has 40 pixels or more. Around a filter are 2 white pixels, then a frame of 2, white
        where the filter is not framed. Empty places are white.
    """
    count, height, width, _ = kernels.shape
    zoom = math.ceil(SMALLEST / max(height, width))
    across = math.ceil(math.sqrt(2 * count))
    down = math.ceil(count / across)
    tile_height, tile_width = (side * zoom + 4 * BORDER for side in (height, width))

    tiles = np.full((down * across, tile_height, tile_width, 3), BACKGROUND, np.uint8)
    tiles[list(framed)] = FRAME
    # White separates the frame from a filter of the same colour.
    _inside(tiles, BORDER)[:] = BACKGROUND
    _inside(tiles, 2 * BORDER)[:count] = _pixels(kernels).repeat(zoom, axis=1).repeat(zoom, axis=2)
    grid = tiles.reshape(down, across, tile_height, tile_width, 3)
    return grid.swapaxes(1, 2).reshape(down * tile_height, across * tile_width, 3)


def _inside(tiles: np.ndarray, border: int) -> np.ndarray:
    return tiles[:, border:-border, border:-border]


def _pixels(kernels: np.ndarray) -> np.ndarray:
    """One pixel for each weight: uint8 `[filters, height, width, 1 or 3]`."""
    weights = np.asarray(kernels, np.float32)
    if weights.shape[-1] not in (1, 3):
        weights = weights.mean(axis=-1, keepdims=True)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    relative = weights / np.where(largest > 0, largest, 1)
    return np.round((relative + 1) * 127.5).astype(np.uint8)

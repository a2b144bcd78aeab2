"""The built-in data set: ten kinds of shapes in clutter, drawn from a seed.

It replaces CIFAR-10 where that is not available: the same image size, the same number of classes,
balanced, and hard enough that a small network neither fails nor saturates.
"""

import math
from collections.abc import Sequence

import numpy as np

from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.data.errors import check_integer, check_seed
from kerasrestart.experiments.data.outlines import OUTLINES

CLASSES = tuple(OUTLINES)

SIZE = 32
"""Height and width of an image in pixels."""

# Images drawn at a time. Another value gives other images for the same seed.
_CHUNK = 128

# These decide how hard the set is.
_STROKES_BEHIND = 3
_STROKES_IN_FRONT = 1
_RADIUS = (7.0, 12.0)  # of the shape, pixels
_OFF_CENTRE = 3.0  # of the shape along each axis, at most, pixels
_TURN = 0.5  # of the shape, at most, radians
_CONTRAST = (0.15, 0.5)  # of shape against ground in each channel, of 0..1
_NOISE = (0.05, 0.2)  # half the width of a pixel's uniform noise, of 0..1


def draw_shapes(count: int, seed: int | Sequence[int]) -> Split:
    """Draws labelled images of shapes.

    Each image has a shape of random position, size, rotation and colour on a colour gradient, with
    strokes behind it and in front of it, and noise.

    Args:
        count: Number of images, at least 1.
        seed: An integer of at least 0, or a sequence of them. The images are a pure function of
            `count` and `seed`.

    Returns:
        `count` images, uint8 `[count, 32, 32, 3]`, the classes in random order; class counts differ
        by at most one.

    Raises:
        DataError: If an argument is out of range.
    """
    count = check_integer("count", count, 1)
    seeds = [check_seed(part) for part in (seed if isinstance(seed, Sequence) else [seed])]
    rng = np.random.default_rng(seeds)
    labels = rng.permutation(np.arange(count, dtype=np.int32) % len(CLASSES))
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        images[chunk] = _draw(labels[chunk], rng)
    return Split(images, labels)


def shapes_data(train: int, validation: int, test: int, seed: int) -> tuple[Split, Split, Split]:
    """Draws three independent splits of shapes.

    Args:
        train: Size of the training split, at least 1.
        validation: Size of the validation split, at least 1.
        test: Size of the test split, at least 1.
        seed: At least 0. A split depends on the seed and its own size, not on the other sizes.

    Returns:
        `(train, validation, test)`.

    Raises:
        DataError: If an argument is out of range.
    """
    counts = (train, validation, test)
    one, two, three = (draw_shapes(n, (seed, stream)) for stream, n in enumerate(counts))
    return one, two, three


def _draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws one image per label: uint8 `[n, 32, 32, 3]`.

    The canvas has its channels first, `[n, 3, 32, 32]`, because NumPy is faster on long rows than
    on triples.
    """
    n = len(labels)
    start, end = _uniform(rng, 0.2, 0.8, n, 3), _uniform(rng, -0.25, 0.25, n, 3)
    x, y = _turned_grid(rng, n, off_centre=0, turn=math.pi)
    canvas = start + end * (x / np.float32(SIZE))

    for _ in range(_STROKES_BEHIND):
        _paint(canvas, _stroke(rng, n), _uniform(rng, 0, 1, n, 3))

    radius = _uniform(rng, *_RADIUS, n)
    x, y = _turned_grid(rng, n, _OFF_CENTRE, _TURN)
    x, y = x / radius, y / radius
    distance = np.empty_like(x)
    for label, outline in enumerate(OUTLINES.values()):
        drawn = labels == label
        distance[drawn] = outline(x[drawn], y[drawn])
    contrast = _uniform(rng, *_CONTRAST, n, 3) * rng.choice(
        np.array([-1, 1], np.float32), (n, 1, 1, 1)
    )
    _paint(canvas, distance * radius, start + contrast)

    for _ in range(_STROKES_IN_FRONT):
        _paint(canvas, _stroke(rng, n), _uniform(rng, 0, 1, n, 3))

    noise = rng.random(canvas.shape, np.float32) - np.float32(0.5)
    canvas += noise * (2 * _uniform(rng, *_NOISE, n))
    np.clip(canvas, 0, 1, out=canvas)
    return np.rint(canvas * np.float32(255)).astype(np.uint8).transpose(0, 2, 3, 1)


def _uniform(
    rng: np.random.Generator, low: float, high: float, n: int, channels: int = 1
) -> np.ndarray:
    """Draws float32 `[n, channels, 1, 1]`, for broadcasting over a canvas."""
    return rng.uniform(low, high, (n, channels, 1, 1)).astype(np.float32)


def _turned_grid(
    rng: np.random.Generator, n: int, off_centre: float, turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pixel's coordinates in randomly shifted and rotated axes.

    Args:
        rng: Random generator.
        n: Number of grids.
        off_centre: Maximum distance of an origin from the image's centre along each axis, pixels.
        turn: Maximum rotation in either direction, radians.

    Returns:
        Two float32 `[n, 1, 32, 32]`, in pixels.
    """
    axis = np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)
    x = axis - _uniform(rng, -off_centre, off_centre, n)
    y = axis[:, np.newaxis] - _uniform(rng, -off_centre, off_centre, n)
    # In double precision first: sine and cosine may differ in the last bit between machines, and
    # rounding to single precision hides that.
    angle = rng.uniform(-turn, turn, (n, 1, 1, 1))
    cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return cosine * x + sine * y, cosine * y - sine * x


def _stroke(rng: np.random.Generator, n: int) -> np.ndarray:
    """Returns the signed distance to a random straight stroke in each of `n` images, in pixels."""
    x, y = _turned_grid(rng, n, off_centre=SIZE / 2, turn=math.pi)
    half_length, half_width = _uniform(rng, 0, 7, n), _uniform(rng, 0.4, 1.8, n)
    beyond = np.maximum(np.abs(x) - half_length, np.float32(0))
    return np.sqrt(beyond * beyond + y * y) - half_width


def _paint(canvas: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> None:
    """Blends a colour into the canvas where `distance` is negative, with an edge of one pixel."""
    cover = np.clip(np.float32(0.5) - distance, 0, 1)
    canvas += cover * (colour - canvas)

"""Signed distances to the outlines of the ten built-in shapes.

Each function takes coordinates `x` and `y` (float32 arrays of equal shape, in units of the shape's
radius) and returns float32 of the same shape: the approximate distance to the outline, negative
inside. Only operations that IEEE 754 rounds exactly are used on arrays, so every machine draws the
same images.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A disc of radius 0.9."""
    return _radius(x, y) - np.float32(0.9)


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A ring between radius 0.45 and radius 0.95."""
    return np.abs(_radius(x, y) - np.float32(0.7)) - np.float32(0.25)


def crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A disc with another disc cut out at its side."""
    bite = np.float32(0.75) - _radius(x - np.float32(0.5), y)
    return np.maximum(_radius(x, y) - np.float32(1), bite)


def half_disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Half a disc, shifted so that its centre is near the origin."""
    x = x + np.float32(0.4)
    return np.maximum(_radius(x, y) - np.float32(1), -x)


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two bars at right angles."""
    along, across = np.abs(x), np.abs(y)
    long, wide = np.float32(0.95), np.float32(0.3)
    return np.minimum(
        np.maximum(along - long, across - wide), np.maximum(along - wide, across - long)
    )


def polygon(corners: int) -> Outline:
    """Returns the outline of a regular polygon with its corners at radius 1."""
    apothem = np.float32(math.cos(math.pi / corners))

    def outline(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        sides = _directions(corners, x, y)
        farthest = next(sides)
        for side in sides:
            np.maximum(farthest, side, out=farthest)
        return farthest - apothem

    return outline


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pentagram with its points at radius 1.

    A point is inside if it lies outside at most one of the five lines through the pentagram's
    points, so the second largest distance to those lines decides.
    """
    sides = _directions(5, x, y)
    largest, second = next(sides), np.full_like(x, -np.inf)
    for side in sides:
        second = np.maximum(second, np.minimum(largest, side))
        largest = np.maximum(largest, side)
    return second - np.float32(math.cos(2 * math.pi / 5))


OUTLINES: dict[str, Outline] = {
    "disc": disc,
    "ring": ring,
    "crescent": crescent,
    "half disc": half_disc,
    "triangle": polygon(3),
    "square": polygon(4),
    "pentagon": polygon(5),
    "hexagon": polygon(6),
    "star": star,
    "cross": cross,
}
"""Class name -> outline, in the order of the labels."""


def _radius(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _directions(count: int, x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the coordinate along each of `count` evenly spaced directions."""
    for k in range(count):
        angle = 2 * math.pi * k / count
        yield np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y

"""Rules for new weights that look at the surviving filters of the same layer.

They compute in float64, on the kernel as a matrix with a column for each filter: its incoming
weights in a row. Filters that are not chosen come back as they were.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

# Of filters scaled to length 1, what they share with a direction. The rounding of float32 weights
# makes about 1e-7; a direction that counts as unused makes a cosine of at most this.
RANK_TOLERANCE = 2e-6


def orthogonal_to_survivors(
    kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray
) -> tf.Tensor:
    """Directions that the surviving filters do not use, at the survivors' mean L2 norm.

    The new filters are orthogonal to each survivor and to one another, and random within what that
    leaves. Where the fan-in has room for it (filters + new filters <= fan-in) they are orthogonal
    to the old values of the chosen filters too, as in the source.

    Where the survivors leave fewer directions than there are new filters, the new filters take, in
    this order: all the directions that are left; then the directions that the survivors use least
    (the left singular vectors, of the smallest singular values, of the survivors scaled to length
    1, turned at random among themselves), which are orthogonal still to the other new filters; and,
    once there are as many new filters as the fan-in, random directions.

    Source: Prakash et al., "RePr: Improved Training of Convolutional Filters", CVPR 2019, which
    does not say what becomes of a layer without a null space.

    Args:
        kernel: The whole kernel.
        axis: Its axis along which the filters lie.
        seed: Seed of the draw.
        chosen: bool `[filters]`: those that get new weights.

    Returns:
        A new kernel, of the shape and dtype of `kernel`.

    Raises:
        ValueError: No filter survives, or the survivors are all zero.
    """
    columns = _as_columns(kernel, axis)
    fan_in, filters = columns.shape
    count = int(np.sum(chosen))
    norm = _mean_norm_of_survivors(columns, chosen)
    avoided = columns if filters + count <= fan_in else columns[:, ~chosen]
    # By TensorFlow: NumPy's LAPACK waits in busy loops, and takes 20 s where cores are shared.
    with tf.device("CPU:0"):
        directions = _unused_directions(avoided, count, np.random.default_rng(seed))
    columns[:, chosen] = directions * norm
    return _as_kernel(columns, kernel, axis)


@dataclasses.dataclass(frozen=True)
class Clone:
    """A rule: incoming weights of a surviving filter, plus Gaussian noise.

    Survivors are taken uniformly at random, none twice before all have been taken once.

    Args:
        noise: Standard deviation of the noise, as a share of the standard deviation of the weights
            of the filter that is cloned (of their root mean square if they are all equal). Defaults
            to 0.1.

    Raises:
        ValueError: `noise` is negative or not finite; at a draw: no filter survives.

    Example:
    ```python
    kerasrestart.restart_filters(model, chosen, initializer=Clone(noise=0.02))
    ```
    """

    noise: float = 0.1

    def __post_init__(self):
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be 0 or more, and finite. Received: {self.noise!r}")

    def __call__(self, kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        """Draws a kernel: arguments and result are those of `orthogonal_to_survivors`."""
        rng = np.random.default_rng(seed)
        columns = _as_columns(kernel, axis)
        survivors, count = _survivors(chosen), int(np.sum(chosen))
        turns = [rng.permutation(survivors) for _ in range(math.ceil(count / len(survivors)))]
        parents = columns[:, np.concatenate([*turns, survivors[:0]])[:count]]
        spread = np.std(parents, axis=0)
        # Of equal weights, as with a fan-in of 1: without noise they would be twins.
        spread = np.where(spread > 0, spread, np.sqrt(np.mean(parents**2, axis=0)))
        columns[:, chosen] = parents + rng.normal(size=parents.shape) * self.noise * spread
        return _as_kernel(columns, kernel, axis)


def with_norm_of_survivors(
    drawn: tf.Tensor, kernel: tf.Tensor, axis: int, chosen: np.ndarray
) -> tf.Tensor:
    """Scales each drawn filter to the mean L2 norm of the surviving ones.

    Args:
        drawn: A whole kernel that holds the new weights of the chosen filters.
        kernel: The present whole kernel.
        axis: Axis of both along which the filters lie.
        chosen: bool `[filters]`: those that get new weights.

    Returns:
        A new kernel, of the shape and dtype of `kernel`.

    Raises:
        ValueError: No filter survives, the survivors are all zero, or a drawn filter is.
    """
    columns, new = _as_columns(kernel, axis), _as_columns(drawn, axis)[:, chosen]
    norm = _mean_norm_of_survivors(columns, chosen)
    lengths = np.linalg.norm(new, axis=0)
    if not np.all(lengths > 0):
        raise ValueError("A filter drawn as zeros cannot be scaled to the norm of the survivors.")
    columns[:, chosen] = new * (norm / lengths)
    return _as_kernel(columns, kernel, axis)


def _unused_directions(avoided: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors `[fan-in, count]`: unused ones first, then the least used, then random ones."""
    basis = _basis(avoided)
    fan_in, rank = basis.shape
    unused = min(count, fan_in - rank)
    least_used = min(count - unused, rank)
    drawn = rng.normal(size=(fan_in, unused))
    for _ in range(2):  # where little is left of a vector, the first pass leaves rounding errors
        drawn -= basis @ tf.matmul(basis, drawn, transpose_a=True)
    turned = basis[:, rank - least_used :] @ rng.normal(size=(least_used, least_used))
    rest = rng.normal(size=(fan_in, count - unused - least_used))
    return np.hstack([_frame(drawn), _frame(turned), rest / np.linalg.norm(rest, axis=0)])


def _basis(vectors: np.ndarray) -> tf.Tensor:
    """Orthonormal basis `[fan-in, rank]` of the span of columns, the most used direction first.

    These are the left singular vectors of the columns scaled to length 1. They are had from the
    smaller of the two Gram matrices, as an SVD of the columns would take several times as long; by
    it they are orthogonal to about 1e-9 at worst, at the least singular value that is kept.
    """
    lengths = np.linalg.norm(vectors, axis=0)
    units = tf.constant(vectors[:, lengths > 0] / lengths[lengths > 0])
    is_wide = units.shape[1] >= units.shape[0]
    gram = tf.matmul(units, units, transpose_a=not is_wide, transpose_b=is_wide)
    squares, found = tf.linalg.eigh(gram)  # in ascending order
    found = found[:, int(np.sum(squares <= RANK_TOLERANCE**2)) :][:, ::-1]
    if is_wide:
        return found
    basis = units @ found
    return basis / tf.norm(basis, axis=0)


def _frame(vectors: tf.Tensor) -> np.ndarray:
    """Orthonormal columns of the same span: of normal ones, a uniformly distributed frame."""
    q, r = tf.linalg.qr(vectors)
    # The signs that QR chooses are no coin flips; those that make the diagonal positive are.
    return q.numpy() * np.where(np.diagonal(r) < 0, -1, 1)


def _mean_norm_of_survivors(columns: np.ndarray, chosen: np.ndarray) -> float:
    norm = float(np.mean(np.linalg.norm(columns[:, _survivors(chosen)], axis=0)))
    if norm == 0:
        raise ValueError("The surviving filters are all zero: they have no norm to scale to.")
    return norm


def _survivors(chosen: np.ndarray) -> np.ndarray:
    survivors = np.flatnonzero(~chosen)
    if not len(survivors):
        raise ValueError(f"All {len(chosen)} filters are chosen: some must survive.")
    return survivors


def _as_columns(kernel: tf.Tensor, axis: int) -> np.ndarray:
    filters_last = np.moveaxis(tf.cast(kernel, tf.float64).numpy(), axis, -1)
    return filters_last.reshape(-1, filters_last.shape[-1]).copy()


def _as_kernel(columns: np.ndarray, kernel: tf.Tensor, axis: int) -> tf.Tensor:
    shape = list(kernel.shape)
    shape.append(shape.pop(axis))
    return tf.cast(np.moveaxis(columns.reshape(shape), -1, axis), kernel.dtype)

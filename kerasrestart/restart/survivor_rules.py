"""Initializers that use the surviving filters of the same layer.

They compute in float64, on the kernel as a matrix with one column of incoming weights per filter.
Filters that are not chosen are returned unchanged. Where all survivors are zero, each falls back
to Xavier weights (`xavier`): a restart never fails in the middle of training.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check, is_number

# The largest cosine between a unit filter and a direction that counts as unused. Rounding of
# float32 weights gives about 1e-7.
RANK_TOLERANCE = 2e-6


def orthogonal_to_survivors(
    kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray
) -> tf.Tensor:
    """Draws directions that the surviving filters do not use, at the survivors' mean L2 norm.

    The new filters are orthogonal to each survivor and to one another, and otherwise random. Where
    the fan-in is large enough (filters + new filters <= fan-in) they are also orthogonal to the old
    values of the chosen filters, as in the source.

    Where the survivors leave fewer directions than there are new filters, the new filters take, in
    this order: the remaining directions; the directions that the survivors use least (the left
    singular vectors with the smallest singular values of the survivors scaled to length 1, randomly
    rotated among themselves), still orthogonal to the other new filters; and, once there are as
    many new filters as the fan-in, random directions. Where all survivors are zero, the norm is
    the mean norm of Xavier filters.

    Source: Prakash et al., "RePr: Improved Training of Convolutional Filters", CVPR 2019. The paper
    does not cover layers without a null space.

    Args:
        kernel: The whole kernel.
        axis: The axis of the filters.
        seed: Seed of the draw.
        chosen: bool `[filters]`, true for the filters that get new weights.

    Returns:
        A new kernel of the shape and dtype of `kernel`.

    Raises:
        ValueError: All filters are chosen.
    """
    columns = _as_columns(kernel, axis)
    fan_in, filters = columns.shape
    count = int(np.sum(chosen))
    norm = _mean_norm_of_survivors(columns, chosen)
    if norm == 0:
        norm = float(np.mean(np.linalg.norm(_xavier_columns(kernel, axis, seed), axis=0)))
    avoided = columns if filters + count <= fan_in else columns[:, ~chosen]
    # TensorFlow's LAPACK: NumPy's spins in busy loops and takes 20 s where cores are shared.
    with tf.device("CPU:0"):
        directions = _unused_directions(avoided, count, np.random.default_rng(seed))
    columns[:, chosen] = directions * norm
    return _as_kernel(columns, kernel, axis)


@dataclasses.dataclass(frozen=True)
class Clone:
    """Copies the incoming weights of a surviving filter and adds Gaussian noise.

    Survivors are taken uniformly at random; none is taken twice before all are taken once.
    Survivors that are all zero are not copied. Where all survivors are zero, the new weights are
    Xavier's.

    Example:
    ```python
    chosen = kerasrestart.select_filters(kerasrestart.score_filters(model, x, y), fraction=0.1)
    clone = kerasrestart.Clone(noise=0.02)
    kerasrestart.restart_filters(model, chosen, initializer=clone, seed=1)
    ```

    Args:
        noise: Standard deviation of the noise, relative to that of the copied filter's weights (to
            their root mean square if they are all equal). Defaults to 0.1.

    Raises:
        ValueError: `noise` is negative or not finite; at a draw: all filters are chosen.
    """

    noise: float = 0.1

    def __post_init__(self):
        right = is_number(self.noise) and self.noise >= 0
        check("noise", self.noise, right, "a finite number, 0 or more")

    def __call__(self, kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        """Draws a kernel: arguments and result as for `orthogonal_to_survivors`."""
        rng = np.random.default_rng(seed)
        columns = _as_columns(kernel, axis)
        survivors, count = _survivors(chosen), int(np.sum(chosen))
        # A copy of zeros would stay dead after a ReLU.
        survivors = survivors[columns[:, survivors].any(axis=0)]
        if not len(survivors):
            columns[:, chosen] = _xavier_columns(kernel, axis, seed)[:, chosen]
            return _as_kernel(columns, kernel, axis)
        turns = [rng.permutation(survivors) for _ in range(math.ceil(count / len(survivors)))]
        parents = columns[:, np.concatenate([*turns, survivors[:0]])[:count]]
        spread = np.std(parents, axis=0)
        # Equal weights, as with a fan-in of 1: without noise the copies would be identical.
        spread = np.where(spread > 0, spread, np.sqrt(np.mean(parents**2, axis=0)))
        columns[:, chosen] = parents + rng.normal(size=parents.shape) * self.noise * spread
        return _as_kernel(columns, kernel, axis)


def with_norm_of_survivors(
    drawn: tf.Tensor, kernel: tf.Tensor, axis: int, chosen: np.ndarray, seed: int = 0
) -> tf.Tensor:
    """Scales each drawn filter to the mean L2 norm of the surviving ones.

    Drawn filters that are all zero have no direction and are replaced by Xavier filters, scaled in
    the same way. Where all survivors are zero, the drawn filters keep their own norm.

    Args:
        drawn: A whole kernel with the new weights of the chosen filters.
        kernel: The present whole kernel.
        axis: The axis of the filters in both.
        chosen: bool `[filters]`, true for the filters that get new weights.
        seed: Seed of the Xavier filters. Defaults to 0.

    Returns:
        A new kernel of the shape and dtype of `kernel`.

    Raises:
        ValueError: All filters are chosen.
    """
    columns, new = _as_columns(kernel, axis), _as_columns(drawn, axis)[:, chosen]
    norm = _mean_norm_of_survivors(columns, chosen)
    lengths = np.linalg.norm(new, axis=0)
    if np.any(lengths == 0):
        new = np.where(lengths != 0, new, _xavier_columns(kernel, axis, seed)[:, chosen])
        lengths = np.linalg.norm(new, axis=0)
    columns[:, chosen] = new * (norm / lengths) if norm else new
    return _as_kernel(columns, kernel, axis)


def _unused_directions(avoided: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns unit vectors `[fan-in, count]`: unused, then least used, then random directions."""
    basis = _basis(avoided)
    fan_in, rank = basis.shape
    unused = min(count, fan_in - rank)
    least_used = min(count - unused, rank)
    drawn = rng.normal(size=(fan_in, unused))
    for _ in range(2):  # the first pass leaves rounding errors where little of a vector remains
        drawn -= basis @ tf.matmul(basis, drawn, transpose_a=True)
    turned = basis[:, rank - least_used :] @ rng.normal(size=(least_used, least_used))
    rest = rng.normal(size=(fan_in, count - unused - least_used))
    return np.hstack([_frame(drawn), _frame(turned), rest / np.linalg.norm(rest, axis=0)])


def _basis(vectors: np.ndarray) -> tf.Tensor:
    """Returns an orthonormal basis `[fan-in, rank]` of the columns, most used direction first.

    These are the left singular vectors of the columns scaled to length 1, computed from the smaller
    of the two Gram matrices: an SVD takes several times as long. They are orthogonal to about 1e-9
    or better, reached at the smallest singular value that is kept.
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
    """Returns orthonormal columns of the same span; uniformly distributed for normal columns."""
    q, r = tf.linalg.qr(vectors)
    # QR's own signs are not random; the signs that make the diagonal positive are.
    return q.numpy() * np.where(np.diagonal(r) < 0, -1, 1)


def _mean_norm_of_survivors(columns: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.mean(np.linalg.norm(columns[:, _survivors(chosen)], axis=0)))


def _xavier_columns(kernel: tf.Tensor, axis: int, seed: int) -> np.ndarray:
    drawn = keras.initializers.GlorotUniform(seed=seed)(kernel.shape, dtype=kernel.dtype)
    return _as_columns(tf.convert_to_tensor(drawn), axis)


def _survivors(chosen: np.ndarray) -> np.ndarray:
    survivors = np.flatnonzero(~chosen)
    if not len(survivors):
        raise ValueError(f"At least one filter must survive. Received: all {len(chosen)} as chosen")
    return survivors


def _as_columns(kernel: tf.Tensor, axis: int) -> np.ndarray:
    filters_last = np.moveaxis(tf.cast(kernel, tf.float64).numpy(), axis, -1)
    return filters_last.reshape(-1, filters_last.shape[-1]).copy()


def _as_kernel(columns: np.ndarray, kernel: tf.Tensor, axis: int) -> tf.Tensor:
    shape = list(kernel.shape)
    shape.append(shape.pop(axis))
    return tf.cast(np.moveaxis(columns.reshape(shape), -1, axis), kernel.dtype)

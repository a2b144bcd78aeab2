"""What one pass over the data adds up about the features of each layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.scoring.plan import Reading
from kerasrestart.scoring.replicas import sum_variable
from kerasrestart.scoring.step_record import StepRecord

BLOCK = 2**20  # numbers that are taken to float64 at once


class FeatureRecord(StepRecord):
    """Keeps the activations of each layer as `(number of the layer, feature map, channel axis)`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.features: list[tuple[int, tf.Tensor, int]] = []

    def add_activation(
        self, reading: Reading, feature_map: tf.Tensor, positions: int | tf.Tensor
    ) -> None:
        """Keeps the activations of a use."""
        del positions
        self.features.append((reading.number, feature_map, reading.channel_axis))


class Features(NamedTuple):
    """The sums over all rows (examples and positions) of a layer's features, in float64.

    Attributes:
        nonzero: `[filters]`: in how many rows an activation is not zero.
        magnitude: `[filters]`: mean |activation|.
        gram: `[sampled, sampled]`: mean products of the activations of two filters.
        mean: `[sampled]`: mean activation.
        sampled: Indices of the filters that `gram` and `mean` are about: all, or a random sample.
    """

    nonzero: np.ndarray
    magnitude: np.ndarray
    gram: np.ndarray
    mean: np.ndarray
    sampled: np.ndarray


class FeatureSums:
    """Adds up the features of one layer, batch by batch.

    Memory: one float64 matrix of at most `max_width` squared, whatever the number of examples, and
    8 MB while a batch is added.

    Args:
        layer: The layer.
        max_width: Above this many filters, products are of a random sample of as many.
        seed: Seed of the sample.
    """

    def __init__(self, layer: FilterLayer, max_width: int, seed: int):
        filters = layer.filters
        self.sampled = np.arange(filters)
        if filters > max_width:
            chosen = np.random.default_rng(seed).choice(filters, max_width, replace=False)
            self.sampled = np.sort(chosen)
        width = len(self.sampled)
        shapes = ((), (filters,), (filters,), (width, width), (width,))
        self._sums = [sum_variable(tf.zeros(shape, tf.float64), "features") for shape in shapes]

    def add(self, feature_map: tf.Tensor, channel_axis: int) -> None:
        """Adds a batch of feature maps."""
        rank = feature_map.shape.rank
        order = [a for a in range(rank) if a != channel_axis % rank] + [channel_axis % rank]
        filters = self._sums[1].shape[0]
        rows = tf.reshape(tf.transpose(feature_map, order), [-1, filters])
        count, block = tf.shape(rows)[0], max(BLOCK // filters, 1)

        # Block by block: all rows at once in float64 take several times the memory of the map.
        def add_block(begin: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            parts = self._sums_of(tf.cast(rows[begin : begin + block], tf.float64))
            return begin + block, *(one + part for one, part in zip(sums, parts, strict=True))

        zeros = [tf.zeros(variable.shape, tf.float64) for variable in self._sums]
        _, *sums = tf.while_loop(
            lambda begin, *_: begin < count, add_block, (0, *zeros), parallel_iterations=1
        )
        for variable, part in zip(self._sums, sums, strict=True):
            variable.assign_add(part)

    def _sums_of(self, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_sampled = len(self.sampled) < rows.shape[1]
        sample = tf.gather(rows, self.sampled, axis=1) if is_sampled else rows
        return (
            tf.cast(tf.shape(rows)[0], tf.float64),
            tf.math.count_nonzero(rows, axis=0, dtype=tf.float64),
            tf.reduce_sum(tf.abs(rows), axis=0),
            tf.matmul(sample, sample, transpose_a=True),
            tf.reduce_sum(sample, axis=0),
        )

    def reset(self) -> None:
        """Forgets all batches."""
        for variable in self._sums:
            variable.assign(tf.zeros(variable.shape, tf.float64))

    def result(self) -> Features:
        """Returns the means so far."""
        rows, *sums = (np.asarray(variable.read_value()) for variable in self._sums)
        nonzero, magnitude, gram, total = sums
        count = max(float(rows), 1.0)
        means = magnitude / count, gram / count, total / count
        return Features(nonzero, *means, self.sampled)


def effective_rank(gram: np.ndarray) -> float:
    """The effective rank of a matrix, from its Gram matrix.

    exp of the entropy of the singular values, divided by their sum: 1 where all features point the
    same way, the width where all directions weigh the same; 0 for a matrix of zeros, NaN for one
    that is not finite.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO
    2007), definition 1.

    Args:
        gram: `[width, width]`, A^T A of the matrix A `[rows, width]` of features, up to a factor.
    """
    if not np.isfinite(gram).all():
        return float("nan")
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    if not singular.sum() > 0:
        return 0.0
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def duplicates(features: Features, above: float) -> np.ndarray:
    """Indices of the filters whose activations correlate above a value with an earlier filter's.

    Pearson's correlation over all rows; a filter whose activation is constant correlates with none,
    and none does where activations are not finite.

    Args:
        features: The sums of a layer.
        above: The correlation.
    """
    if not np.isfinite(features.gram).all():
        return np.zeros(0, int)
    covariance = features.gram - np.outer(features.mean, features.mean)
    variance = np.diag(covariance)
    varies = variance > 1e-10 * np.diag(features.gram)
    scale = np.sqrt(np.where(varies, variance, 1.0))
    correlation = covariance / np.outer(scale, scale)
    alike = (correlation > above) & np.outer(varies, varies)
    return features.sampled[np.tril(alike, -1).any(axis=1)]

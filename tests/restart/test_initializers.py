"""The rules that draw new weights: their ranges, their fans and their seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from kerasrestart.restart import initializers


def kernel_of(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def drawn(initializer, shape=(5, 5, 16, 32), axis=-1, seed=0, kernel=None):
    kernel = kernel_of(shape) if kernel is None else kernel
    new = initializers.get(initializer)(kernel, axis, seed)
    assert new.shape == kernel.shape
    assert new.dtype == kernel.dtype
    return np.asarray(new)


def assert_uniform(values, bound):
    """Within the bound, up to it, and as evenly as chance has it."""
    values = np.ravel(values)
    assert np.abs(values).max() <= bound
    assert stats.kstest(values / bound, stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_uniform_is_of_the_papers_range():
    assert_uniform(drawn("uniform"), 0.05)


@pytest.mark.parametrize("shape", [(5, 5, 16, 32), (3, 3, 3, 64), (7, 12, 9)])
def test_he_bound_is_of_the_fan_in_as_printed(shape):
    assert_uniform(drawn("he", shape), np.sqrt(6) / (2 * np.prod(shape[:-1])))


def test_he_bound_of_a_transposed_kernel_is_of_the_filters_fan_in():
    # (height, width, filters, inputs): 5 * 5 * 4 weights come into each of 64 filters.
    assert_uniform(drawn("he", (5, 5, 64, 4), axis=-2), np.sqrt(6) / (2 * 5 * 5 * 4))


def test_xavier_bound_is_of_the_whole_kernel():
    assert_uniform(drawn("xavier"), np.sqrt(6 / (25 * 16 + 25 * 32)))


def test_minmax_is_of_each_filters_own_range():
    kernel = kernel_of((5, 5, 16, 8)) * tf.range(1.0, 9.0)
    new = drawn("minmax", kernel=kernel)
    for k in range(8):
        low, high = kernel.numpy()[..., k].min(), kernel.numpy()[..., k].max()
        values = new[..., k]
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
        assert_uniform((values - (low + high) / 2), (high - low) / 2 * (1 + 1e-6))


@pytest.mark.parametrize("axis", [-1, -2])
def test_distribution_takes_from_each_filters_own_weights(axis):
    kernel = kernel_of((5, 5, 8, 6))
    new = np.moveaxis(drawn("distribution", kernel=kernel, axis=axis), axis, -1)
    old = np.moveaxis(kernel.numpy(), axis, -1)
    for k in range(old.shape[-1]):
        assert np.isin(new[..., k], old[..., k]).all()
        assert not np.array_equal(new[..., k], old[..., k])
        # With replacement about 1 - 1/e of them are drawn, wherever they stood.
        share = len(np.unique(new[..., k])) / old[..., k].size
        assert 0.5 < share < 0.75
        assert (new[..., k] == old[..., k]).mean() < 0.05


@pytest.mark.parametrize("axis", [-1, -2])
def test_minmax_follows_the_axis_of_the_filters(axis):
    kernel = kernel_of((3, 3, 6, 5))
    scale = tf.reshape(tf.range(1.0, kernel.shape[axis] + 1), (-1,) + (1,) * (-axis - 1))
    kernel = kernel * scale**2
    new = np.moveaxis(drawn("minmax", kernel=kernel, axis=axis), axis, 0)
    old = np.moveaxis(kernel.numpy(), axis, 0)
    assert all(o.min() <= n.min() and n.max() <= o.max() for n, o in zip(new, old, strict=True))


SEEDED = [
    "uniform",
    "he",
    "xavier",
    "minmax",
    "distribution",
    "he_normal",
    "orthogonal",
    "truncated_normal",
    {"class_name": "RandomNormal", "config": {"stddev": 0.1, "seed": 3}},
    keras.initializers.GlorotUniform(seed=11),
    keras.initializers.VarianceScaling(2.0, "fan_out", seed=5),
]


@pytest.mark.parametrize("initializer", SEEDED, ids=initializers.describe)
def test_draw_is_a_function_of_the_seed(initializer):
    first, again, other = (drawn(initializer, (3, 3, 4, 6), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [("zeros", 0.0), (keras.initializers.Constant(0.3), 0.3), (lambda shape, dtype: 2.0, 2.0)],
)
def test_initializers_without_a_seed_are_taken_as_they_are(initializer, expected):
    if callable(initializer) and not isinstance(initializer, keras.initializers.Initializer):
        fill = initializer

        def initializer(shape, dtype):
            return tf.fill(shape, tf.cast(fill(shape, dtype), dtype))

    np.testing.assert_allclose(drawn(initializer, (2, 2, 3, 4)), expected, rtol=1e-6)


@pytest.mark.parametrize("initializer", [None, "none"])
def test_none_is_no_rule(initializer):
    assert initializers.get(initializer) is None


@pytest.mark.parametrize("initializer", ["unifrom", 3, {"class_name": "Nothing", "config": {}}])
def test_unknown_initializer_is_named_with_what_would_be_right(initializer):
    with pytest.raises(ValueError, match="Unknown initializer") as error:
        initializers.get(initializer)
    assert "distribution" in str(error.value)


@pytest.mark.parametrize(
    ("initializer", "name"),
    [
        (None, "none"),
        ("he", "he"),
        (keras.initializers.HeNormal(), "HeNormal"),
        ({"class_name": "Zeros", "config": {}}, "Zeros"),
        (keras.initializers.Orthogonal, "Orthogonal"),
    ],
)
def test_name_in_the_records(initializer, name):
    assert initializers.describe(initializer) == name

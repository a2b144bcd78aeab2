"""The rules that draw new weights: their ranges, their fans and their seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from kerasrestart.restart import initializers
from kerasrestart.restart.initializer_names import INITIALIZERS


def kernel_of(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def drawn(initializer, shape=(5, 5, 16, 32), axis=-1, seed=0, kernel=None):
    kernel = kernel_of(shape) if kernel is None else kernel
    chosen = np.arange(kernel.shape[axis]) % 2 == 0
    new = initializers.get(initializer)(kernel, axis, seed, chosen)
    assert new.shape == kernel.shape
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
        # With replacement, about 1 - 1/e of them are drawn, from any position.
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


@pytest.mark.parametrize("initializer", [None, "none", "slots"])
def test_a_control_is_refused_with_the_argument_that_takes_it(initializer):
    with pytest.raises(ValueError, match=f"control='{initializer or 'none'}'"):
        initializers.get(initializer)
    with pytest.raises(ValueError, match="control="):
        initializers.NormMatched(initializer)


@pytest.mark.parametrize(
    "initializer", ["unifrom", "constant", 3, {"class_name": "Nothing", "config": {}}]
)
def test_unknown_initializer_is_named_with_what_would_be_right(initializer):
    with pytest.raises(ValueError, match="initializer must be one of") as error:
        initializers.get(initializer)
    for name in ("distribution", "orthogonal_to_survivors"):
        assert name in str(error.value)


def zeros_and_ones(kernel, axis, seed, chosen):
    """A rule of a user's own: the chosen filters are ones, the others zeros."""
    assert (seed, chosen.dtype, chosen.shape) == (0, bool, (kernel.shape[axis],))
    filters_last = np.zeros(np.moveaxis(kernel.numpy(), axis, -1).shape) + chosen
    return np.moveaxis(filters_last, -1, axis)


@pytest.mark.parametrize("axis", [-1, -2])
def test_own_function_of_the_rules_signature_is_a_rule(axis):
    new = np.moveaxis(drawn(zeros_and_ones, (3, 3, 4, 6), axis), axis, -1)
    np.testing.assert_array_equal(
        new, np.broadcast_to(np.arange(new.shape[-1]) % 2 == 0, new.shape)
    )


def test_own_rule_may_be_an_object_or_a_class():
    class Same:
        def __call__(self, kernel, axis, seed, chosen):
            return kernel

    kernel = kernel_of((3, 4, 6))
    for initializer in (Same(), Same):
        np.testing.assert_array_equal(drawn(initializer, kernel=kernel), kernel)


def test_example_of_an_own_initializer_in_the_docstring_draws():
    namespace = {"np": np}
    code = initializers.__doc__.split("```python")[1].split("kerasrestart.PartialRestart")[0]
    exec(code, namespace)
    kernel = kernel_of((3, 3, 4, 6))
    new = drawn(namespace["as_the_mean_survivor"], kernel=kernel)
    mean = kernel.numpy()[..., 1::2].mean(axis=-1, keepdims=True)
    assert 0 < np.abs(new - mean).max() < 0.06


def test_function_like_those_of_keras_is_told_from_a_rule():
    def four_arguments(shape, dtype=None, gain=2.0, seed=0):
        return tf.fill(shape, tf.cast(gain, dtype))

    np.testing.assert_array_equal(drawn(four_arguments, (3, 4, 6)), 2)


@pytest.mark.parametrize("function", [lambda kernel, axis, seed: kernel, lambda: 0, len])
def test_function_of_another_signature_is_refused(function):
    with pytest.raises(ValueError, match=r"function \(kernel, axis, seed, chosen\)") as error:
        initializers.get(function)
    assert f"Received: {function.__name__}(" in str(error.value)
    with pytest.raises(ValueError, match=r"^base must be a function"):
        initializers.NormMatched(function)


@pytest.mark.parametrize(
    ("given", "meant"), [("unifrom", "uniform"), ("clones", "clone"), ("he_unifrom", "he_uniform")]
)
def test_a_misspelled_name_gets_the_right_one(given, meant):
    with pytest.raises(ValueError, match=f"Received: '{given}'. Did you mean {meant}?"):
        initializers.get(given)


def test_flags_take_the_names_of_all_rules():
    for name in INITIALIZERS:
        assert callable(initializers.get(name))
    assert set(initializers.NAMES) <= set(INITIALIZERS)


def test_table_at_the_top_lists_every_name():
    for name in initializers.NAMES:
        assert f"\n| `{name}` |" in initializers.__doc__


@pytest.mark.parametrize(
    ("initializer", "name"),
    [
        ("he", "he"),
        (keras.initializers.HeNormal(), "HeNormal"),
        ({"class_name": "Zeros", "config": {}}, "Zeros"),
        (keras.initializers.Orthogonal, "Orthogonal"),
        ("norm_matched", "norm_matched"),
        (initializers.NormMatched("he"), "NormMatched(base='he')"),
        (initializers.NormMatched(keras.initializers.HeNormal()), "NormMatched(base='HeNormal')"),
        (initializers.Clone(0.2), "Clone(noise=0.2)"),
        (initializers.Clone, "Clone"),
        (zeros_and_ones, "zeros_and_ones"),
    ],
)
def test_name_in_the_records(initializer, name):
    assert initializers.describe(initializer) == name


def test_zeros_drawn_in_a_traced_function_can_be_drawn_outside_of_it():
    draw = initializers.from_keras(keras.initializers.Zeros())
    bias, chosen = tf.ones(23), np.ones(23, bool)
    tf.function(lambda: draw(bias, -1, 0, chosen))()
    np.testing.assert_array_equal(draw(bias, -1, 0, chosen), np.zeros(23))

"""Contributions of batch-normed maps from the products that their backward pass makes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.scoring.affine_contributions import affine_contribution
from kerasrestart.scoring.scored_part import scored_part


def contribution(
    behind,
    *,
    scored=lambda *tensors: tensors,
    axis=-1,
    training=True,
    dtype="float32",
    scale=True,
    mean=0.5,
):
    """What is found of a norm's map, and the formula in float64; both `[examples, filters]`."""
    rng = np.random.default_rng(0)
    shape, channels = (6, 5, 5, 4), 4 if axis == -1 else 5
    x = tf.constant(rng.normal(mean, size=shape).astype("float32"))
    weights = tf.constant(rng.normal(size=shape).astype("float32"))
    norm = layers.BatchNormalization(axis=axis, dtype=dtype, scale=scale)
    norm.build(shape)
    for variable in norm.trainable_variables:
        variable.assign(rng.normal(1, 0.3, channels))
    found = []

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            normed = norm(x, training=training)
            feature_map, loss = behind(normed, weights)
            tape.watch(feature_map)
            loss = tf.reduce_sum(tf.cast(loss(feature_map), "float32"))
        gradient, *_ = tape.gradient(loss, [feature_map, x, norm.trainable_variables])
        found.append(affine_contribution(*scored(feature_map, gradient), axis))
        return feature_map, gradient, 0.0 if found[-1] is None else found[-1]

    feature_map, gradient, result = (of.numpy() for of in step())
    product = feature_map.astype("float64") * gradient.astype("float64")
    assert np.abs(product).max() > 0.1
    return None if found[-1] is None else result, product.sum((1, 2))


def tanh(weights):
    return lambda z: tf.tanh(z) * tf.cast(weights, z.dtype)


BEHIND = {
    "nothing": lambda normed, weights: (normed, tanh(weights)),
    "a_sum": lambda normed, weights: (normed, lambda z: (z + weights) ** 3),
    "relu": lambda normed, weights: (tf.nn.relu(normed), tanh(weights)),
    "scaled": lambda normed, weights: (3 * normed, tanh(weights)),
    "relu6": lambda normed, weights: (tf.nn.relu6(normed + 5.0), tanh(weights)),
    "only_relu6": lambda normed, weights: (tf.nn.relu6(normed), tanh(weights)),
    "relu_after": lambda normed, weights: (normed, lambda z: tf.nn.relu(z) ** 2 * weights),
    "keras": lambda normed, weights: (keras.ops.relu(tf.identity(normed)), tanh(weights)),
}


@pytest.mark.parametrize("behind", ["nothing", "a_sum", "relu", "relu_after", "keras"])
@pytest.mark.parametrize("scale", [True, False])
def test_it_is_the_sum_over_positions(behind, scale):
    found, expected = contribution(BEHIND[behind], scale=scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_is_as_exact_as_the_map_where_the_mean_is_large():
    found, expected = contribution(BEHIND["relu"], mean=100.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("behind", "options"),
    [
        ("scaled", {}),
        ("relu6", {}),  # a map of 6 counts with its gradient, which is 0 before the ReLU6
        ("only_relu6", {}),
        ("nothing", {"axis": 1}),
        ("nothing", {"dtype": "mixed_float16"}),
    ],
)
def test_other_maps_are_left_to_the_product(behind, options):
    assert contribution(BEHIND[behind], **options)[0] is None


@pytest.mark.parametrize(
    "follows", [lambda z: tf.tanh(0.5 * z), tf.nn.relu], ids=["scale", "relu_of_no_layer"]
)
def test_it_is_also_found_of_what_is_scored_instead_of_a_map(follows):
    def behind(normed, weights):
        return normed, lambda z: follows(z) ** 2 * weights

    def scored(feature_map, gradient):
        return scored_part(feature_map, feature_map, gradient, only_product=True)

    found, expected = contribution(behind, scored=scored)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_map_that_is_also_read_before_its_relu_is_left_to_the_product():
    def both(normed, weights):
        return normed, lambda z: tf.nn.relu(z) * weights + tf.tanh(z)

    found, expected = contribution(both)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def after(normed, weights):
        return tf.nn.relu(normed), lambda z: z * weights + tf.tanh(normed)

    assert contribution(after)[0] is None


def test_nothing_is_found_in_eager_execution():
    norm = layers.BatchNormalization()
    z = norm(tf.random.normal((2, 3, 3, 4)), training=True)
    assert affine_contribution(z, z, -1) is None

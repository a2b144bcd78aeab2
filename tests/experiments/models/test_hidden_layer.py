"""Norms and activations of hidden layers."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.models.hidden_layer import hidden_layer

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def dense(**options):
    inputs = keras.Input((4,))
    return keras.Model(inputs, hidden_layer(keras.layers.Dense, inputs, 3, name="d", **options))


def features(model):
    kernel, bias = model.get_layer("d").get_weights()
    return X.astype("float64") @ kernel + bias


def test_crelu_is_relu_of_the_features_and_of_their_negatives():
    model = dense(activation="crelu")
    z = features(model)
    expected = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], axis=1)
    np.testing.assert_allclose(model(X), expected, rtol=1e-5, atol=1e-6)


def test_leaky_relu_has_a_slope_of_a_fifth():
    model = dense(activation="leaky_relu")
    z = features(model)
    np.testing.assert_allclose(model(X), np.where(z > 0, z, z / 5), rtol=1e-5, atol=1e-6)


def test_the_layer_norm_comes_before_the_activation_and_acts_on_the_channels():
    model = dense(norm="layer", activation="leaky_relu")
    z = features(model)
    z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(model(X), np.where(z > 0, z, z / 5), rtol=1e-4, atol=1e-5)


def test_relu_without_a_norm_is_the_layer_alone():
    assert [layer.name for layer in dense().layers[1:]] == ["d"]


@pytest.mark.parametrize(
    ("build", "norm", "weights"),
    [
        # MiniNet's 145,578 weights and two for each of 192 channels; batch norms train two of four.
        (kr.models.mininet, "layer", 145_578 + 2 * 192),
        (kr.models.mininet, "batch", 145_578 + 4 * 192),
        # ResNet-20's 19 norms have 688 channels: a bias each without them, else two or four.
        (kr.models.resnet20, "none", 269_722 - 2 * 688 + 688),
        (kr.models.resnet20, "layer", 269_722),
    ],
)
def test_networks_have_the_norm_they_are_asked_for(build, norm, weights):
    assert build(norm=norm, activation="leaky_relu").count_params() == weights


def test_crelu_doubles_the_inputs_of_the_next_layer():
    model = kr.models.mininet((16, 16, 3), activation="crelu")
    assert model.get_layer("conv2").kernel.shape == (5, 5, 64, 32)
    assert model.get_layer("logits").kernel.shape == (128, 10)


def test_a_crelu_filter_is_scored_by_both_halves():
    # By Euler's theorem the sum of both halves' products is that at the layer's own output.
    model = keras.Sequential([dense(activation="crelu"), keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    y = np.ones((5, 1), "float32")
    scores = kr.score_filters(model, X, y, layers=["d"])
    z = features(model.layers[0])
    halves = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], axis=1)
    kernel, bias = (w.astype("float64") for w in model.layers[1].get_weights())
    gradient = 2 * (halves @ kernel + bias - y) * kernel[:, 0]  # of one example's cost
    products = (halves * gradient)[:, :3] + (halves * gradient)[:, 3:]
    np.testing.assert_allclose(scores["d"], np.abs(products).mean(0), rtol=1e-4)

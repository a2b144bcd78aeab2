"""Criteria of weights: outgoing ones (contribution), or those of a layer (orthogonality)."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr


@pytest.fixture
def net(randomized):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="plain"),
            layers.MaxPooling2D(2),
            layers.Conv2D(6, 2, groups=2, activation="relu", name="grouped"),
            layers.Conv2DTranspose(5, 2, activation="relu", name="transposed"),
            layers.DepthwiseConv2D(2, activation="relu", name="depthwise"),
            layers.Flatten(),
            layers.Dense(7, activation="relu", name="dense"),
            layers.Dense(3, name="logits"),
        ]
    )
    return randomized(model)


def outgoing_norms(model):
    """Sums over the weights that read each filter, one weight at a time."""
    kernel = {layer.name: np.abs(layer.kernel.numpy()) for layer in model.layers if layer.weights}
    norms = {}
    # A grouped kernel has the channels of one group: those of the second follow with its filters.
    first, second = kernel["grouped"][..., :3], kernel["grouped"][..., 3:]
    norms["plain"] = [group[:, :, c].sum() for group in (first, second) for c in range(2)]
    # [rows, columns, filters, channels]
    norms["grouped"] = [kernel["transposed"][:, :, :, c].sum() for c in range(6)]
    norms["transposed"] = [kernel["depthwise"][:, :, c, :].sum() for c in range(5)]
    norms["depthwise"] = [kernel["dense"][c::5].sum() for c in range(5)]
    norms["dense"] = [kernel["logits"][c].sum() for c in range(7)]
    return norms


def test_contribution_is_mean_activation_times_outgoing_weights(net, images):
    scores = kr.score_filters(net, images[0], criterion="contribution", layers=".*")
    norms = outgoing_norms(net)
    assert list(scores) == list(norms)
    for name, of_layer in scores.items():
        features = keras.Model(net.inputs, net.get_layer(name).output).predict(images[0], verbose=0)
        activations = np.abs(features.astype("float64"))
        mean = activations.mean(axis=tuple(range(activations.ndim - 1)))
        np.testing.assert_allclose(of_layer, mean * norms[name], rtol=1e-5)


def test_channels_that_a_sum_shares_count_the_weights_that_read_the_sum(randomized, images):
    inputs = keras.Input((8, 8, 2))
    one = layers.Conv2D(3, 1, name="one")(inputs)
    two = layers.Conv2D(3, 1, name="two")(inputs)
    both = layers.GlobalAveragePooling2D()(layers.add([one, two]))
    model = randomized(keras.Model(inputs, layers.Dense(2, name="logits")(both)))
    scores = kr.score_filters(model, images[0], criterion="contribution")
    norms = np.abs(model.get_layer("logits").kernel.numpy()).sum(axis=1)
    for name in ("one", "two"):
        features = keras.Model(inputs, model.get_layer(name).output).predict(images[0], verbose=0)
        expected = np.abs(features).mean(axis=(0, 1, 2)) * norms
        np.testing.assert_allclose(scores[name], expected, rtol=1e-5)


def test_layer_that_no_known_weight_reads_has_no_contribution(images):
    inputs = keras.Input((8, 8, 2))
    seen = layers.Conv2D(3, 1, name="seen")(inputs)
    mixed = layers.Conv2D(3, 1, name="mixed")(inputs)
    mixed = keras.ops.cumsum(mixed, axis=-1)  # no map of channels
    joined = layers.GlobalAveragePooling2D()(layers.Concatenate()([seen, mixed]))
    model = keras.Model(inputs, layers.Dense(2)(joined))
    with pytest.warns(UserWarning, match=r"mixed \(no weights are known that read its channels"):
        scores = kr.score_filters(model, images[0], criterion="contribution")
    assert list(scores) == ["seen"]


def test_orthogonality_is_one_minus_the_mean_cosine(net):
    scores = kr.score_filters(net, criterion="orthogonality", layers=".*")
    for name, filters in {
        "plain": np.moveaxis(net.get_layer("plain").kernel.numpy(), -1, 0),
        "transposed": np.moveaxis(net.get_layer("transposed").kernel.numpy(), -2, 0),
        "dense": net.get_layer("dense").kernel.numpy().T,
    }.items():
        flat = filters.reshape(len(filters), -1).astype("float64")
        for k, row in enumerate(flat):
            overlap = sum(
                abs(row @ other) / (np.linalg.norm(row) * np.linalg.norm(other))
                for j, other in enumerate(flat)
                if j != k
            )
            np.testing.assert_allclose(scores[name][k], 1 - overlap / len(flat), rtol=1e-6)


def test_twins_are_least_orthogonal_and_zeros_are_orthogonal_to_all(net):
    layer = net.get_layer("plain")
    kernel = layer.kernel.numpy()
    kernel[..., 3] = -2 * kernel[..., 1]
    kernel[..., 0] = 0
    layer.kernel.assign(kernel)
    scores = kr.score_filters(net, criterion="orthogonality")["plain"]
    assert set(np.argsort(scores)[:2]) == {1, 3}
    assert scores[0] == 1

"""Properties that hold for any network out of a grammar of layers, joints and branches."""

import keras
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import kerasrestart as kr
from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import find_filter_layers


@st.composite
def networks(draw):
    """A network of up to seven steps, with weights at random, and its seed."""
    steps = draw(st.lists(STEPS, min_size=1, max_size=7))
    flat = draw(st.booleans())
    return steps, flat, draw(st.integers(0, 999))


def build(network):
    steps, flat, seed = network
    image = x = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    for step in steps:
        x = STEP[step](x)
    x = layers.Flatten()(x) if flat else layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(6, activation="relu")(x)
    model = keras.Model(image, layers.Dense(3)(x))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.path:
            low = 0.2 if any(w in variable.path for w in ("gamma", "variance")) else -1
            variable.assign(rng.uniform(low, 1, variable.shape) / np.sqrt(variable.shape[0]))
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    return model, rng


def conv(x, filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", activation="relu", **options)(x)


def nest(x):
    inner = keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(4, 1), layers.ReLU()])
    return inner(x)


STEP = {
    "conv": conv,
    "grouped": lambda x: conv(x, groups=2),
    "transposed": lambda x: layers.Conv2DTranspose(4, 2, padding="same", activation="relu")(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, padding="same", activation="relu")(x),
    "separable": lambda x: layers.SeparableConv2D(4, 3, padding="same", activation="relu")(x),
    "pool": lambda x: layers.MaxPooling2D(2, padding="same")(x),
    "average": lambda x: layers.AveragePooling2D(2, padding="same")(x),
    "norm": lambda x: layers.ReLU()(layers.BatchNormalization()(x)),
    "dropout": lambda x: layers.Dropout(0.2, seed=1)(x),
    "pad": lambda x: layers.ZeroPadding2D(1)(x),
    "branch": lambda x: conv(layers.Concatenate()([conv(x), x])),
    "residual": lambda x: layers.Add()([x, conv(x, x.shape[-1])]),
    "nested": nest,
}
STEPS = st.sampled_from(sorted(STEP))
FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def choose(found, rng, only=None):
    """One or two filters of each layer, or of those in `only`."""
    return {
        name: np.sort(rng.choice(filter_layer.filters, rng.integers(1, 3), replace=False))
        for name, filter_layer in found.layers.items()
        if only is None or name in only
    }


def silence(found, chosen, model):
    """Makes feature maps zero: incoming weights, bias and all that norms could add to them."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.beta.assign(layer.beta * 0)
            layer.moving_mean.assign(layer.moving_mean * 0)
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.bias.assign(layer.bias * 0)
    for name, filters in chosen.items():
        layer = found.layers[name].layer
        kernel, mask = kernels.incoming_kernel(layer), kernels.filter_mask(layer, filters)
        kernel.assign(np.where(mask, 0, kernel.numpy()))
        bias = layer.bias.numpy()
        bias[filters] = 0
        layer.bias.assign(bias)


@FEW
@given(networks(), st.floats(0.13, 0.6))
def test_scores_restarts_and_training_of_any_network(network, fraction):
    model, rng = build(network)
    assert_scores_are_finite_and_exactly_k_are_selected(model, rng, fraction)
    found = find_filter_layers(model, ".*")
    assert_restarts_touch_the_chosen_filters_alone_and_training_goes_on(model, rng, found)
    assert_silent_filters_are_restarted_without_effect(model, rng, found)


def assert_silent_filters_are_restarted_without_effect(model, rng, found):
    """With outgoing weights of zero, the outputs of the model stay."""
    channels = ChannelMap(found.graph)
    free = {n for n, s in found.layers.items() if channels.outgoing(s.layer).obstacle() is None}
    chosen = choose(found, rng, free)
    silence(found, chosen, model)
    x = rng.normal(size=(3, 8, 8, 4)).astype("float32")
    before = model(x).numpy()
    kr.restart_filters(model, chosen, initializer="he_uniform", outgoing="zero")
    after = model(x).numpy()
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def assert_restarts_touch_the_chosen_filters_alone_and_training_goes_on(model, rng, found):
    chosen, channels = choose(found, rng), ChannelMap(found.graph)
    before = {v.path: v.numpy() for v in model.weights}
    kr.restart_filters(model, chosen, initializer="he_uniform")
    touched = set()
    for name, filters in chosen.items():
        filter_layer = found.layers[name]
        kernel = kernels.incoming_kernel(filter_layer.layer)
        mask = np.broadcast_to(kernels.filter_mask(filter_layer.layer, filters), kernel.shape)
        old, new = before[kernel.path], kernel.numpy()
        np.testing.assert_array_equal(new[~mask], old[~mask])
        assert (new[mask] != old[mask]).all()
        touched |= {kernel.path, filter_layer.layer.bias.path}
        touched |= {v.path for v in filter_layer.norm.weights} if filter_layer.norm else set()
        behind = channels.path(filter_layer.layer).norms
        touched |= {v.path for reader in behind for v in reader.layer.weights}
    for variable in model.weights:
        if variable.path not in touched:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])

    x, y = rng.normal(size=(8, 8, 8, 4)).astype("float32"), rng.integers(0, 3, 8)
    start = {v.path: v.numpy() for v in model.weights}
    assert np.isfinite(model.train_on_batch(x, y))
    moved = sum(
        (v.numpy() != start[v.path]).any() for v in model.trainable_weights if v.path in start
    )
    assert moved


def gradients_by_filter(model, found, chosen, x, y):
    """The largest gradient by an incoming weight of each chosen filter, and the step after it."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True))
    weights = model.trainable_variables
    gradients = tape.gradient(loss, weights)
    by_path = {w.path: g.numpy() for w, g in zip(weights, gradients, strict=True)}
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    largest = {}
    for name, filters in chosen.items():
        layer = found.layers[name].layer
        gradient = np.abs(by_path[kernels.incoming_kernel(layer).path])
        for k in filters:
            mask = np.broadcast_to(kernels.filter_mask(layer, [k]), gradient.shape)
            largest[name, int(k)] = gradient[mask].max()
    return largest


@settings(FEW, max_examples=10, derandomize=True)
@given(networks(), st.sampled_from(["keep", "zero"]))
def test_every_restarted_filter_learns_again(network, outgoing):
    model, rng = build(network)
    for layer in model._flatten_layers():  # so that no filter is drawn dead
        if isinstance(layer, layers.ReLU):
            layer.negative_slope = 0.1
        elif getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = keras.activations.leaky_relu
    found = find_filter_layers(model, ".*")
    channels = ChannelMap(found.graph)
    free = {n for n, s in found.layers.items() if channels.outgoing(s.layer).obstacle() is None}
    chosen = choose(found, rng, free if outgoing == "zero" else None)
    silence(found, chosen, model)
    kr.restart_filters(model, chosen, initializer="he_uniform", outgoing=outgoing, seed=1)
    x, y = rng.normal(size=(8, 8, 8, 4)).astype("float32"), rng.integers(0, 3, 8)
    first = gradients_by_filter(model, found, chosen, x, y)
    if outgoing == "zero":  # at first only the outgoing weights learn
        assert not any(first.values())
    second = gradients_by_filter(model, found, chosen, x, y)
    assert all(second.values()), second


def assert_scores_are_finite_and_exactly_k_are_selected(model, rng, fraction):
    x, y = rng.normal(size=(4, 8, 8, 4)).astype("float32"), rng.integers(0, 3, 4)
    scores = kr.score_filters(model, x, y)
    assert {n: len(s) for n, s in scores.items()} == {
        name: filter_layer.filters
        for name, filter_layer in find_filter_layers(model).layers.items()
    }
    assert all(np.isfinite(s).all() and (s >= 0).all() for s in scores.values())
    chosen = kr.select_filters(scores, fraction=fraction)
    for name, of_layer in scores.items():
        k = int(fraction * len(of_layer) + 0.5)
        assert list(chosen.get(name, [])) == sorted(np.argsort(of_layer, kind="stable")[:k])

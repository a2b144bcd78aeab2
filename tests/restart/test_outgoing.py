"""`outgoing="zero"`: new filters that change nothing until they have learned."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.network import kernels


def dead_end():
    """A compiled network of several kinds of layers in which some filters contribute nothing."""
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = layers.Conv2D(4, 1, activation="relu", name="mix")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Conv2D(5, 1, name="narrow")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(7, activation="relu", name="dense")(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(3, name="out")(x))
    rng = np.random.default_rng(3)
    for variable in model.weights:  # as after training: no bias or statistic at its initial value
        noise = rng.normal(0, 0.05, variable.shape)
        variable.assign(variable + (np.abs(noise) if "variance" in variable.path else noise))
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.optimizer.build(model.trainable_variables)
    for slot in model.optimizer.variables:
        if len(slot.shape):
            slot.assign(np.abs(rng.normal(size=slot.shape)))
    for name, dead in DEAD.items():
        layer = model.get_layer(name)
        kernel = kernels.incoming_kernel(layer)
        mask = kernels.filter_mask(layer, np.array(dead))
        kernel.assign(np.where(mask, 0, kernel.numpy()))
        bias = layer.bias.numpy()
        bias[dead] = -1
        layer.bias.assign(bias)
    norm = model.get_layer("norm")
    beta = norm.beta.numpy()
    beta[DEAD["narrow"]] = -9
    norm.beta.assign(beta)
    return model


DEAD = {"conv": [1, 4], "depthwise": [0], "narrow": [2], "dense": [3, 5]}


def examples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 40)


@pytest.mark.parametrize("chosen", [DEAD, *({name: DEAD[name]} for name in DEAD)], ids=str)
def test_filters_that_contributed_nothing_are_restarted_without_effect(chosen):
    model, (x, _) = dead_end(), examples()
    before = np.asarray(model(x))
    weights = {v.path: v.numpy() for v in model.weights}
    kr.restart_filters(model, chosen, initializer="he_uniform", outgoing="zero")
    np.testing.assert_allclose(model(x), before, rtol=1e-5, atol=1e-6)
    assert any((weights[v.path] != v.numpy()).any() for v in model.weights)
    for name, filters in chosen.items():
        layer = model.get_layer(name)
        mask = kernels.filter_mask(layer, np.array(filters))
        assert (
            kernels.incoming_kernel(layer).numpy()[np.broadcast_to(mask, layer.kernel.shape)].all()
        )
    kept = dead_end()
    kr.restart_filters(kept, chosen, initializer="he_uniform", outgoing="keep")
    assert not np.allclose(kept(x), before)


def test_restarted_filters_learn_again():
    model, (x, y) = dead_end(), examples()
    kr.restart_filters(model, DEAD, initializer="he_uniform", outgoing="zero")
    start = {v.path: v.numpy() for v in model.weights}
    model.fit(x, y, epochs=3, verbose=0)
    for name, filters in DEAD.items():
        kernel = kernels.incoming_kernel(model.get_layer(name))
        mask = kernels.filter_mask(model.get_layer(name), np.array(filters))
        moved = kernel.numpy() != start[kernel.path]
        assert moved[np.broadcast_to(mask, moved.shape)].any(), name


def test_slots_of_outgoing_weights_are_reset_and_all_others_stay():
    model = dead_end()
    optimizer = model.optimizer
    before = {v.path: v.numpy() for v in [*model.weights, *optimizer.variables]}
    kr.restart_filters(model, {"conv": [1, 4]}, outgoing="zero")
    reader = model.get_layer("mix").kernel
    gone = np.zeros(reader.shape, bool)
    gone[:, :, [1, 4]] = True
    index = next(i for i, v in enumerate(model.trainable_variables) if v is reader)
    for slot in (reader, optimizer._momentums[index], optimizer._velocities[index]):
        assert (slot.numpy()[gone] == 0).all()
        np.testing.assert_array_equal(slot.numpy()[~gone], before[slot.path][~gone])
    touched = {"conv", "mix"}
    for variable in model.weights:
        if variable.path.split("/")[0] not in touched:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def test_zero_on_both_sides_is_refused_and_nothing_is_changed():
    model = dead_end()
    before = model.get_weights()
    with pytest.raises(ValueError, match="never learn again"):
        kr.restart_filters(model, {"conv": [1]}, initializer="zeros", outgoing="zero")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_norm_that_begins_at_zero_is_refused_and_nothing_is_changed():
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.BatchNormalization(gamma_initializer="zeros", name="norm")(x)
    x = keras.layers.Conv2D(3, 3, name="reader")(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"norm 'norm' .* never learn again"):
        kr.restart_filters(model, {"conv": [1]}, initializer="he_uniform", outgoing="zero")
    reset = kr.Reset("he_uniform", outgoing="zero")
    restart = kr.PartialRestart(select=kr.Fraction(0.25), reset=reset)
    with pytest.raises(ValueError, match=r"norm 'norm' .* never learn again"):
        restart.check(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    kr.restart_filters(model, {"conv": [1]}, initializer="he_uniform", outgoing="zero", norms=False)


def test_adafactor_with_zeros_on_both_sides_of_a_fraction_is_refused():
    model = dead_end()
    model.compile(keras.optimizers.Adafactor(0.01), "mse")
    with pytest.raises(ValueError, match="survivors"):
        kr.restart_filters(model, {"conv": [1]}, outgoing="zero")
    kr.restart_filters(model, {"conv": [1]}, outgoing="zero", second_moment="survivors")


def test_channels_of_a_residual_sum_are_refused_with_the_reason():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same", name="last")(x)])
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    before = model.get_weights()
    with pytest.raises(ValueError, match="'last' cannot be set to zero: its channels are shared"):
        kr.restart_filters(model, {"last": [0]}, outgoing="zero")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    kr.restart_filters(model, {"last": [0]}, outgoing="keep")


@pytest.mark.parametrize("kind", ["depthwise", "separable", "grouped", "dense"])
def test_every_kind_of_filter_is_drawn_from_its_own_weights(kind):
    build = {
        "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="it"),
        "separable": lambda: layers.SeparableConv2D(6, 3, name="it"),
        "grouped": lambda: layers.Conv2D(6, 3, groups=2, name="it"),
        "dense": lambda: layers.Dense(6, name="it"),
    }[kind]
    model = keras.Sequential(
        [keras.Input((8, 8, 4)), build(), layers.Flatten(), layers.Dense(2, name="out")]
    )
    layer = model.get_layer("it")
    kernel = kernels.incoming_kernel(layer)
    before = kernel.numpy()
    others = [v.numpy() for v in model.weights if v is not kernel]
    kr.restart_filters(model, {"it": [1, 4]}, initializer="distribution")
    after = kernel.numpy()
    # Filters by hand, each as a row.
    last = before.shape[-1] if kind != "depthwise" else 8
    old, new = before.reshape(-1, last).T, after.reshape(-1, last).T
    for k in range(last):
        if k in (1, 4):
            assert (old[k] != new[k]).any()
            assert np.isin(new[k], old[k]).all()
        else:
            np.testing.assert_array_equal(old[k], new[k])
    for a, b in zip(others, [v.numpy() for v in model.weights if v is not kernel], strict=True):
        np.testing.assert_array_equal(a, b)


class MeanFree(keras.constraints.Constraint):
    """The mean of each filter is zero: weights that are zero change with the others."""

    def __call__(self, w):
        return w - keras.ops.mean(w, axis=(0, 1, 2), keepdims=True)


def less_the_mean(x):
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("function", "constraint", "says"),
    [
        ("sparsemax", None, "its channels go into function"),
        (less_the_mean, None, "its channels go into function"),
        ("relu", MeanFree(), "its channels are read by reader, whose kernel_constraint moves zero"),
    ],
)
def test_what_does_not_keep_a_channel_of_zeros_is_refused(function, constraint, says):
    image = keras.Input((8, 8, 2))
    x = layers.Activation(function, name="function")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.Conv2D(4, 3, kernel_constraint=constraint, name="reader")(x)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert says in kr.describe(model)
    before = model.get_weights()
    with pytest.raises(ValueError, match=says):
        kr.restart_filters(model, {"conv": [0]}, outgoing="zero")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "constraint", ["non_neg", "unit_norm", "max_norm", "min_max_norm", lambda w: 0.5 * w]
)
def test_outgoing_weights_stay_zero_under_a_constraint(constraint):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.Conv2D(4, 3, kernel_constraint=constraint, name="reader")(x)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    kr.restart_filters(model, {"conv": [0]}, outgoing="zero")
    assert not model.get_layer("reader").kernel.numpy()[:, :, 0].any()

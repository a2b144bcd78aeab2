"""What removed filters gave on average goes into the biases of those that read them."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr


def plain(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    x = layers.MaxPooling2D(2)(x)
    return layers.Conv2D(4, 3, name="reader")(x)


def strided(x):
    x = layers.Conv2D(6, 3, activation="gelu", name="first")(x)
    return layers.Conv2D(4, 2, strides=2, dilation_rate=1, name="reader")(x)


def grouped(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    return layers.Conv2D(4, 3, groups=2, name="reader")(x)


def separable(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    return layers.SeparableConv2D(4, 3, depth_multiplier=2, name="reader")(x)


def transposed(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    return layers.Conv2DTranspose(4, 2, strides=2, name="reader")(x)


def flat(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    return layers.Dense(4, name="reader")(layers.Flatten()(layers.AveragePooling2D(2)(x)))


def depthwise(x):
    x = layers.Conv2D(6, 1, activation="relu", name="first")(x)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="depthwise")(x))
    return layers.Conv2D(4, 1, name="reader")(layers.ReLU(6.0)(x))


def normed(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    return layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False, name="reader")(x))


def joined(x):
    x = layers.Concatenate()([x, layers.Conv2D(6, 1, activation="relu", name="first")(x)])
    return layers.Dense(4, name="reader")(layers.GlobalMaxPooling2D()(x))


def shared(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    again = layers.Conv2D(4, 3, name="reader")
    return layers.Concatenate()([again(x), again(layers.MaxPooling2D(1)(x))])


def channels_first(x):
    x = layers.Conv2D(6, 3, activation="relu", data_format="channels_first", name="first")(x)
    return layers.Conv2D(4, (3, 1), data_format="channels_first", name="reader")(x)


READERS = [
    *(plain, strided, grouped, separable, transposed, flat, depthwise, normed, joined, shared),
    channels_first,
]


def model_of(build, seed=0):
    """A network that is linear from the reader on."""
    image = keras.Input((10, 10, 3))
    model = keras.Model(image, build(image))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.path else (-1, 1)
        variable.assign(rng.uniform(low, high, variable.shape))
    model.compile("sgd", "mse")
    return model


def images(n=50):
    return np.random.default_rng(1).normal(size=(n, 10, 10, 3)).astype("float32")


def mean_output(model, x):
    out = model(x).numpy().astype(np.float64)
    return out.mean(tuple(range(out.ndim - 1)))


@pytest.mark.parametrize("build", READERS)
def test_mean_output_stays_with_compensation_and_moves_without(build):
    x, chosen = images(), {"first": [1, 4]}
    model, bare = model_of(build), model_of(build)
    means = kr.reader_input_means(model, x, batch_size=16)
    before = mean_output(model, x)
    kr.restart_filters(model, chosen, outgoing="zero", reader_input_means=means)
    kr.restart_filters(bare, chosen, outgoing="zero")
    scale = np.abs(mean_output(bare, x) - before).max()
    assert scale > 0.01
    np.testing.assert_allclose(mean_output(model, x), before, atol=0.15 * scale)


# A transposed convolution gives a pattern for a constant; its mean is made up for.
@pytest.mark.parametrize("build", [build for build in READERS if build is not transposed])
def test_filters_that_give_a_constant_go_without_effect(build):
    model, x, chosen = model_of(build), images(4), [1, 4]
    first = model.get_layer("first")
    kernel, bias = first.kernel.numpy(), first.bias.numpy()
    kernel[..., chosen], bias[chosen] = 0, 0.7
    first.set_weights([kernel, bias])
    before = model(x).numpy()
    means = kr.reader_input_means(model, x)
    kr.restart_filters(model, {"first": chosen}, outgoing="zero", reader_input_means=means)
    np.testing.assert_allclose(model(x).numpy(), before, rtol=1e-5, atol=1e-5)
    assert (first.kernel.numpy()[..., chosen] != 0).all()


def test_means_are_those_of_what_the_reader_gets():
    model, x = model_of(plain), images()
    read = keras.Model(model.input, model.get_layer("reader").input)
    means = kr.reader_input_means(model, x, batch_size=7)
    assert list(means) == ["reader"]
    np.testing.assert_allclose(means["reader"], read(x).numpy().mean((0, 1, 2)), rtol=1e-5)


def test_units_drawn_anew_themselves_are_not_made_up_for():
    model, x = model_of(plain), images()
    chosen = {"first": [0], "reader": [2]}
    model = keras.Model(model.input, layers.Dense(2)(model.output))
    model.get_layer("reader").bias_initializer = keras.initializers.Constant(0.25)
    before = model.get_layer("reader").bias.numpy()
    kr.restart_filters(
        model, chosen, outgoing="zero", reader_input_means=kr.reader_input_means(model, x)
    )
    after = model.get_layer("reader").bias.numpy()
    assert after[2] == 0.25
    assert (np.delete(after, 2) != np.delete(before, 2)).all()


def test_copies_that_an_optimizer_keeps_of_a_bias_move_with_it():
    model, x = model_of(flat), images()
    model.compile(keras.optimizers.SGD(0.01, use_ema=True), "mse")
    model.fit(x, np.zeros((50, 4)), verbose=0)
    bias = model.get_layer("reader").bias
    index = next(i for i, v in enumerate(model.trainable_variables) if v is bias)
    average = model.optimizer._model_variables_moving_average[index]
    apart = bias.numpy() - average.numpy()
    means = kr.reader_input_means(model, x)
    kr.restart_filters(model, {"first": [3]}, outgoing="zero", reader_input_means=means)
    np.testing.assert_allclose(bias.numpy() - average.numpy(), apart, atol=1e-6)


def bare(x):
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="reader")(x)
    return layers.Dense(2)(layers.BatchNormalization()(x))


def test_reader_with_neither_bias_nor_norm_is_refused_by_name_at_the_start():
    model = model_of(bare)
    restart = kr.PartialRestart(fraction=0.3, reset=kr.Reset(outgoing="zero", compensate_bias=True))
    with pytest.raises(ValueError, match=r"needs a trainable bias.*: reader has neither"):
        restart.check(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: kr.Reset(compensate_bias=True),
        lambda model: kr.restart_filters(model, {"first": [0]}, reader_input_means={}),
    ],
)
def test_nothing_is_made_up_for_where_outgoing_weights_stay(make):
    with pytest.raises(ValueError, match="outgoing must be 'zero'"):
        make(model_of(plain))


def test_missing_means_are_refused_and_nothing_is_changed():
    model = model_of(plain)
    before = model.get_weights()
    with pytest.raises(ValueError, match="mean inputs of layer 'reader' must be 6 numbers"):
        kr.restart_filters(
            model, {"first": [0]}, outgoing="zero", reader_input_means={"x": np.zeros(6)}
        )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("criterion", ["taylor", "random"])
def test_fit_takes_the_means_over_the_epoch_and_makes_up_by_them(criterion):
    model, x = model_of(flat), images(64)
    model.compile(keras.optimizers.SGD(1e-12), "mse")  # so that the weights stand still
    seen = {}

    class Watch(kr.RestartObserver):
        def on_restart_begin(self, event, restart):
            seen["before"] = mean_output(model, x)

        def on_restart_end(self, event, restart):
            seen["after"] = mean_output(model, x)

    restart = kr.PartialRestart(
        criterion=criterion,
        fraction=0.3,
        reset=kr.Reset(outgoing="zero", compensate_bias=True),
        when=kr.EveryEpochs(1, monitor="loss"),
        max_restarts=1,
        layers=["first"],
        observers=[Watch()],
    )
    model.fit(x, np.zeros((64, 4)), epochs=2, batch_size=24, verbose=0, callbacks=[restart])
    assert restart.events
    expected = kr.reader_input_means(model_of(flat), x)["reader"]
    kept = np.setdiff1d(range(6), restart.events[0].layers["first"].filters)
    taken = restart.scorer.reader_input_means()["reader"]
    np.testing.assert_allclose(
        taken.reshape(-1, 6)[:, kept], expected.reshape(-1, 6)[:, kept], rtol=1e-4
    )
    np.testing.assert_allclose(seen["after"], seen["before"], atol=1e-3)

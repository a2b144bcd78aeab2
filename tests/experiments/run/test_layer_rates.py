"""A learning rate of their own for some variables, whatever the optimizer does with it."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.run.layer_rates import scale_learning_rate
from kerasrestart.restart.learning_rate import learning_rate_of

FACTOR = 0.1
X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)


def trained(optimizer, factor=None, steps=1):
    """What two layers have moved by, the first being scaled; and the model."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, activation="tanh", bias_initializer="ones", name="first")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="second")(hidden))
    if factor is not None:
        scale_learning_rate(optimizer, model.get_layer("first").variables, factor)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)  # the tests below make graphs of it
    before = [v.numpy() for v in model.weights]
    for _ in range(steps):
        model.fit(X, Y, batch_size=24, verbose=0)
    moved = [v.numpy() - was for v, was in zip(model.weights, before, strict=True)]
    return moved[:2], moved[2:], model


def optimizers():
    make = keras.optimizers
    return {
        "sgd": lambda: make.SGD(0.1),
        "momentum": lambda: make.SGD(0.1, momentum=0.9, weight_decay=0.3),
        "adam": lambda: make.Adam(0.1),
        "adamw": lambda: make.AdamW(0.1, weight_decay=0.3),
        "rmsprop": lambda: make.RMSprop(0.1, momentum=0.9),
        "scaled": lambda: make.LossScaleOptimizer(make.Adam(0.1)),
    }


@pytest.mark.parametrize("name", list(optimizers()))
def test_a_step_is_the_factor_times_as_long_for_these_and_the_same_for_the_others(name):
    make = optimizers()[name]
    plain, others, _ = trained(make())
    scaled, same, _ = trained(make(), FACTOR)
    for one, other in zip(scaled, plain, strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, FACTOR * other, rtol=1e-3, atol=1e-6)
    for one, other in zip(same, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_of_adam_are_those_of_an_optimizer_with_that_rate():
    """Over several steps: with the other layer held still, the scaled one trains as by 0.01."""

    def moved(rate, factor):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.3)
        if factor is not None:
            scale_learning_rate(optimizer, model.variables, factor)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, Y, batch_size=8, epochs=3, verbose=0, shuffle=False)
        return model.get_weights()

    for one, other in zip(moved(0.1, FACTOR), moved(0.01, None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_it_holds_when_the_learning_rate_is_lowered_and_set_back():
    optimizer = keras.optimizers.SGD(0.1)
    _, _, model = trained(optimizer, FACTOR)
    for rate in (0.01, 0.5):
        optimizer.learning_rate = rate
        assert learning_rate_of(optimizer) == rate
        before = model.get_layer("first").kernel.numpy()
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.compile(keras.optimizers.SGD(rate * FACTOR), model.loss)
        for one in (model, copy):
            one.fit(X, Y, batch_size=24, verbose=0)
        now = model.get_layer("first").kernel.numpy()
        assert np.abs(now - before).max() > 1e-5
        np.testing.assert_allclose(now, copy.get_layer("first").kernel.numpy(), atol=1e-7)


def test_the_model_is_saved_with_the_optimizer_as_it_is(tmp_path):
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.3)
    _, _, model = trained(optimizer, FACTOR)
    assert optimizer.get_config()["weight_decay"] == 0.3
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.AdamW
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert loaded.optimizer.iterations == 1


def test_it_holds_beside_a_callback_that_restarts():
    def run(factor):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, name="logits"),
            ]
        )
        optimizer = keras.optimizers.Adam(0.01)
        scale_learning_rate(optimizer, model.get_layer("conv").variables, factor)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        start = model.get_layer("conv").kernel.numpy()
        restart = kr.PartialRestart(
            fraction=0.25, when=kr.EveryEpochs(1, monitor="loss"), max_restarts=1
        )
        x = np.random.default_rng(0).normal(size=(24, 6, 6, 1)).astype("float32")
        model.fit(x, Y, epochs=2, callbacks=[restart], verbose=0)
        (filters,) = (layer.filters for layer in restart.events[0].layers.values())
        kept = [f for f in range(4) if f not in filters]
        return np.abs(model.get_layer("conv").kernel.numpy() - start)[..., kept].max()

    assert run(1e-6) < 1e-6 < 1e-3 < run(1.0)

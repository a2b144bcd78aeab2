"""A lower learning rate for some variables, whatever the optimizer."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.run.layer_rates import with_two_rates
from kerasrestart.restart.learning_rate import learning_rate_of, set_learning_rate

FACTOR = 0.1
X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)


def trained(optimizer, factor=None, epochs=1):
    """How far two layers moved, the first at the lower rate; and the model."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, activation="tanh", bias_initializer="ones", name="first")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="second")(hidden))
    if factor is not None:
        optimizer = with_two_rates(optimizer, model.get_layer("first").variables, factor)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)  # a graph takes longer to make than to use
    before = [v.numpy() for v in model.weights]
    model.fit(X, Y, batch_size=24, epochs=epochs, verbose=0)
    moved = [v.numpy() - was for v, was in zip(model.weights, before, strict=True)]
    return moved[:2], moved[2:], model


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.3),
    "adam": lambda: keras.optimizers.Adam(0.1),
    "adamw": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.3),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_first_step_is_shorter_by_the_factor_for_these_variables_alone(name):
    make = OPTIMIZERS[name]
    plain, others, _ = trained(make())
    lower, same, _ = trained(make(), FACTOR)
    for one, other in zip(lower, plain, strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, FACTOR * other, rtol=1e-3, atol=1e-6)
    for one, other in zip(same, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_steps_of_adamw_are_those_of_an_optimizer_with_that_rate():
    def moved(rate, factor):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.3)
        if factor is not None:
            optimizer = with_two_rates(optimizer, model.variables, factor)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, Y, batch_size=8, epochs=3, verbose=0, shuffle=False)
        return model.get_weights()

    for one, other in zip(moved(0.1, FACTOR), moved(0.01, None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_factor_holds_when_the_learning_rate_is_lowered_and_set_back():
    _, _, model = trained(keras.optimizers.SGD(0.1), FACTOR)
    for rate in (0.01, 0.5):
        set_learning_rate(model.optimizer, rate)
        assert learning_rate_of(model.optimizer) == rate
        before = model.get_layer("first").kernel.numpy()
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.compile(keras.optimizers.SGD(rate * FACTOR), model.loss)
        for one in (model, copy):
            one.fit(X, Y, batch_size=24, verbose=0)
        now = model.get_layer("first").kernel.numpy()
        assert np.abs(now - before).max() > 1e-5
        np.testing.assert_allclose(now, copy.get_layer("first").kernel.numpy(), atol=1e-7)


def test_a_saved_model_loads_with_both_rates_and_all_slots(tmp_path):
    _, _, model = trained(keras.optimizers.AdamW(0.1, weight_decay=0.3), FACTOR)
    model.save(tmp_path / "model.keras")
    optimizer = keras.saving.load_model(tmp_path / "model.keras").optimizer
    rates = [float(part.learning_rate.numpy()) for part in optimizer.optimizers]
    np.testing.assert_allclose(rates, [0.01, 0.1])
    for one, other in zip(optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_restarts_reset_slots_and_set_both_rates():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    conv = model.get_layer("conv")
    optimizer = with_two_rates(keras.optimizers.Adam(0.01), conv.variables, 1e-6)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    start, seen = conv.kernel.numpy(), {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            lower = optimizer.optimizers[0]
            seen[epoch] = (
                lower._momentums[0].numpy(),
                [float(part.learning_rate.numpy()) for part in optimizer.optimizers],
            )

    restart = kr.PartialRestart(
        fraction=0.25, when=kr.EveryEpochs(2, monitor="loss"), max_restarts=1
    )
    x = np.random.default_rng(0).normal(size=(24, 6, 6, 1)).astype("float32")
    model.fit(x, Y, epochs=4, callbacks=[restart, Watch()], verbose=0)
    (filters,) = (layer.filters for layer in restart.events[0].layers.values())
    others = [f for f in range(4) if f not in filters]
    momentum, rates = seen[2]  # right after the restart
    assert (momentum[..., filters] == 0).all()
    assert (momentum[..., others] != 0).any()
    np.testing.assert_allclose(rates, [1e-8, 0.01])
    assert np.abs(conv.kernel.numpy() - start)[..., others].max() < 1e-6
    assert np.abs(conv.kernel.numpy() - start)[..., filters].max() > 1e-3


def test_an_older_keras_is_refused(monkeypatch):
    monkeypatch.delattr(keras.optimizers, "MultiOptimizer")
    with pytest.raises(ValueError, match=r"Keras must be 3\.15 or newer\. Received: Keras 3"):
        with_two_rates(keras.optimizers.SGD(0.1), [], FACTOR)

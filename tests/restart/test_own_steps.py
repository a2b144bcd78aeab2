"""Models with a training step or loss of their own: restarts between fits, effects in Python."""

import copy
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from tests.own_steps import OneTape


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight)


def net(model_class, **options):
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.Conv2D(4, 3, activation="relu", name="second")(x)
    model = model_class(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))
    return compiled(model, **options)


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


def restart_of(**options):
    when = kr.EveryEpochs(1, monitor="loss", recovery_epochs=0)
    return kr.PartialRestart(when=when, stop_on_repeat=False, **options)


def fit(model, images, *callbacks, **options):
    x, y = images
    model.fit(x, y, batch_size=10, shuffle=False, verbose=0, callbacks=callbacks, **options)


def loop(model, images, restart, epochs=4):
    for epoch in range(0, epochs, 2):
        fit(model, images, restart, initial_epoch=epoch, epochs=epoch + 2)


SELECT = {"select": kr.Fraction(0.25)}


@pytest.mark.parametrize("optimizer", ["of the step", "of fit"])
def test_a_learning_rate_that_is_not_there_is_not_lowered(optimizer, images):
    model = net(OneTape)
    if optimizer == "of the step":
        model.update = keras.optimizers.SGD(0.1).apply
        model.compile(optimizer=None, loss=model.loss)
    else:
        model.compile(keras.optimizers.SGD(lambda: 0.1), model.loss)
    when = kr.EveryEpochs(2, monitor="loss", learning_rate_drops=1)
    with pytest.raises(
        ValueError, match=r"drops must be 0, or .*learning rate can be set"
    ) as error:
        fit(model, images, kr.PartialRestart(when=when, select=kr.Fraction(0.25)), epochs=3)
    assert "\n" not in str(error.value)


def test_a_loss_that_the_step_does_not_update_is_told_of(images, capsys):
    restart = restart_of(**SELECT)
    fit(net(OneTape), images, restart, epochs=3)  # Keras logs the metric "loss", which stays at 0
    assert not capsys.readouterr().out
    x, y = images
    net(OneTape).fit(x, y, epochs=3, verbose=2, callbacks=[restart_of(**SELECT)])
    assert capsys.readouterr().out.count("The loss is 0 in the logs.") == 1


RESETS = {"filters": SELECT, "remedy": {"reset": kr.ShrinkAndPerturb(0.8, 0.01)}}


@pytest.mark.parametrize("model_class", [OwnLoss, OneTape])
@pytest.mark.parametrize("reset", RESETS)
def test_a_loop_of_fits_restarts_as_keras_own_step_does(reset, model_class, images):
    plain, own = net(keras.Model), net(model_class)
    expected, restart = restart_of(**RESETS[reset]), restart_of(**RESETS[reset])
    if model_class is OwnLoss:
        plain.compile(keras.optimizers.SGD(0.2), plain.loss)  # for a loss of twice the size
    loop(plain, images, expected)
    loop(own, images, restart)
    assert restart.events
    assert len(restart.events) == len(expected.events)
    for ours, theirs in zip(own.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model_class", [OwnLoss, OneTape])
def test_a_resumed_fit_trains_without_the_dropped_filters(model_class, images):
    reset = kr.Reset(outgoing="zero", grace_restarts=0, drop_epochs=2)
    states, model = [], net(model_class)
    first, second = (restart_of(reset=reset, **SELECT) for _ in range(2))
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(copy.deepcopy(first.state))
    )
    fit(model, images, first, note, epochs=4)
    assert first.events
    second.resume(states[0])  # a restart of filters is pending
    dropped = states[0].pending.event.layers["second"].filters
    rows = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rows.append(
            np.abs(model.get_layer("logits").get_weights()[0][dropped]).max()
        )
    )
    fit(model, images, second, note, initial_epoch=1, epochs=4)
    assert rows[:2] == [0, 0]
    assert rows[2] > 0
    assert len(second.events) == 1


class Counts(OneTape):
    """Turns every other gradient around; in a graph, what it counts while that is traced."""

    steps = 0

    def update(self, gradients, weights):
        self.steps += 1
        self.optimizer.apply([grad * (-1) ** self.steps for grad in gradients], weights)


class Flips(OneTape):
    """Scales the loss by random draws of Python and NumPy."""

    def loss_of(self, x, y, y_pred):
        return (random.random() + np.random.random()) * self.compute_loss(x, y, y_pred)


class CountsInACall(OwnLoss):
    calls = 0

    def compute_loss(self, *args, **kwargs):
        self.calls += 1
        return self.calls * super().compute_loss(*args, **kwargs)


@pytest.mark.parametrize("model_class", [Counts, Flips, CountsInACall])
@pytest.mark.parametrize("eager", [False, True])
def test_what_a_step_does_in_python_is_as_without_scores(model_class, eager, images):
    weights = []
    for callbacks in ([], [kr.PartialRestart(fraction=0.25, control="none", monitor="loss")]):
        model = net(model_class, run_eagerly=eager)
        random.seed(3)
        np.random.seed(3)
        fit(model, images, *callbacks)
        weights.append(model.get_weights())
    for ours, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


class SetsNumbersInBuild(keras.Model):
    """Its call needs numbers that its build notes."""

    train_step, loss_of, update = OneTape.train_step, OneTape.loss_of, OneTape.update

    def __init__(self):
        super().__init__()
        self.channels = 0
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.head = layers.Dense(3)

    def build(self, shape):
        self.channels = shape[-1]
        self.per_channel = 1.0 / shape[-1]

    def call(self, x):
        maps = self.conv(self.channels * self.per_channel * x)
        return self.head(tf.reduce_mean(maps, axis=(1, 2)))


def test_numbers_that_a_model_notes_when_it_is_built_stay(images):
    model = compiled(SetsNumbersInBuild())
    fit(model, images, restart := kr.PartialRestart(fraction=0.25, monitor="loss"))
    assert (model.channels, model.per_channel) == (2, 0.5)
    assert restart.scores["conv"].max() > 0


class TrainsInside(OneTape):
    """All of its step is a function of its own, which no score can be taken in."""

    @tf.function
    def inner(self, data):
        return OneTape.train_step(self, data)

    def train_step(self, data):
        return self.inner(data)


def test_a_step_that_cannot_be_followed_is_restarted_by_its_weights(images):
    fit(net(TrainsInside), images, restart := restart_of(criterion="magnitude", **SELECT), epochs=3)
    assert restart.events[0].layers.keys() == {"conv", "second"}

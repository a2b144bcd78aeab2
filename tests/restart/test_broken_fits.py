"""Two callbacks in one `fit`, and what a `fit` leaves that ends by an error."""

import contextlib
import gc

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr


def net(build=True):
    convolutions = [layers.Conv2D(8, 3, activation="relu", name=name) for name in ("one", "two")]
    image = [keras.Input((8, 8, 2))] if build else []
    model = keras.Sequential([*image, *convolutions, layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def callback(**options):
    return kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss"), **options)


def fit(model, images, callbacks, **options):
    return model.fit(*images, batch_size=8, epochs=2, verbose=0, callbacks=callbacks, **options)


def assert_as_keras_left_it(model):
    assert "make_train_function" not in vars(model)
    assert "kerasrestart" not in getattr(type(model.train_function), "__module__", "")


@pytest.mark.parametrize("build", [True, False])
@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
def test_two_callbacks_that_watch_one_layer_are_refused(criterion, build, images):
    model = net(build)
    both = [callback(criterion=criterion), callback(criterion=criterion, layers=["two"])]
    with pytest.raises(ValueError, match=r"different layers: .*Received: both watch two"):
        fit(model, images, both)
    assert_as_keras_left_it(model)
    fit(model, images, [])  # trains on by its own step


def test_two_callbacks_on_layers_of_their_own_restart_each_their_filters(images):
    both = [callback(layers=["one"]), callback(layers=["two"])]
    fit(net(), images, both)
    assert [list(each.events[0].layers) for each in both] == [["one"], ["two"]]


def test_a_callback_that_restarts_nothing_may_watch_what_another_restarts(images):
    both = [callback(), kr.PartialRestart(fraction=0.2, monitor="loss", max_restarts=0)]
    fit(net(), images, both)
    assert [len(each.events) for each in both] == [1, 0]


class Fails(keras.callbacks.Callback):
    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def on_train_batch_end(self, batch, logs=None):
        if (self.where, batch) == ("batch", 1):
            raise self.error

    def on_epoch_end(self, epoch, logs=None):
        if self.where == "epoch":
            raise self.error

    def on_test_begin(self, logs=None):
        if self.where == "validation":
            raise self.error


@pytest.mark.parametrize(
    ("where", "error"),
    [("batch", KeyboardInterrupt), ("epoch", KeyboardInterrupt), ("validation", RuntimeError)],
)
def test_a_fit_that_another_callback_ends_leaves_no_scoring_behind(where, error, images):
    model = net()
    with contextlib.suppress(error):  # keeps no traceback, as pytest.raises does
        fit(model, images, [callback(), Fails(where, error)], validation_data=images)
    gc.collect()
    assert_as_keras_left_it(model)
    assert np.isfinite(model.train_on_batch(*images))


def test_a_fit_of_several_epochs_is_scored_in_each_of_them(images):
    scored = []
    restart, model = kr.PartialRestart(fraction=0.2, monitor="loss"), net()
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: scored.append(restart.scorer.examples)
    )
    options = {"verbose": 0, "callbacks": [restart, note]}
    model.fit(*images, batch_size=8, epochs=3, **options)
    model.fit(*images, batch_size=4, epochs=2, steps_per_epoch=2, **options)
    assert scored == [20] * 3 + [8] * 2

"""`Reset(drop_epochs=)`: the network trains without the selected filters for some epochs."""

import contextlib
import gc
import json

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.restart.dropping import drop_filters
from kerasrestart.restart.records import RestartState


def net(constraint=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(6, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, kernel_constraint=constraint, name="logits"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def restarts(**options):
    reset = {"outgoing": "zero", "grace_restarts": 0, "drop_epochs": 2} | options.pop("reset", {})
    when = kr.EveryEpochs(1, monitor="loss", recovery_epochs=0)
    defaults = {"select": lambda scores: {"conv": [1, 4]}, "max_restarts": 1}
    return kr.PartialRestart(
        when=when,
        reset=kr.Reset("he_uniform", **reset),
        stop_on_repeat=False,
        **defaults | options,
    )


class Rows(keras.callbacks.Callback):
    """The outgoing weights of two filters at the end of each epoch, and their norm."""

    def __init__(self):
        super().__init__()
        self.largest, self.norms = [], []

    def on_epoch_end(self, epoch, logs=None):
        kernel = np.asarray(self.model.get_layer("logits").kernel)
        self.largest.append(np.abs(kernel[[1, 4]]).max())
        self.norms.append(np.linalg.norm(kernel, axis=0).max())


def fit(model, restart, images, epochs, **options):
    rows = Rows()
    options = {"batch_size": 4, "shuffle": False, "verbose": 0} | options
    model.fit(*images, epochs=epochs, callbacks=[restart, rows], **options)
    return rows


@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
def test_outgoing_weights_are_held_while_filters_are_dropped(criterion, images):
    model = net()
    fit(model, restarts(criterion=criterion, max_restarts=0), images, 1)  # traced before
    restart = restarts(criterion=criterion)
    largest = fit(model, restart, images, 5).largest
    assert [value == 0 for value in largest] == [False, True, True, False]
    (event,) = restart.events
    assert (event.epoch, event.layers["conv"].filters) == (0, [1, 4])
    assert restart.rounds[1].first_epoch == 1  # the epochs without them count as the next round's
    largest = fit(model, restarts(criterion=criterion, max_restarts=0), images, 1).largest
    assert largest[0] > 0
    assert model.get_layer("logits").kernel.constraint is None


def test_a_constraint_of_the_kernel_holds_too_and_comes_back(images):
    constraint = keras.constraints.MaxNorm(0.5, axis=0)
    model = net(constraint)
    rows = fit(model, restarts(), images, 4)
    assert rows.largest[1] == rows.largest[2] == 0
    assert max(rows.norms) < 0.5 + 1e-5
    assert model.get_layer("logits").kernel.constraint is constraint


class BrokenError(Exception):
    pass


class BreakOnceHeld(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if np.abs(np.asarray(self.model.get_layer("logits").kernel)[1]).max() == 0:
            raise BrokenError


@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
def test_fit_that_is_broken_off_holds_nothing_any_more(criterion, images):
    constraint = keras.constraints.MaxNorm(5.0)
    model = net(constraint)
    callbacks = [restarts(criterion=criterion), BreakOnceHeld()]
    with contextlib.suppress(BrokenError):  # keeps no traceback, as pytest.raises does
        model.fit(*images, epochs=3, verbose=0, callbacks=callbacks)
    gc.collect()
    assert model.get_layer("logits").kernel.constraint is constraint
    model.train_on_batch(*images)
    assert np.asarray(model.get_layer("logits").kernel)[1].all()


class BreakBeforeABatch(keras.callbacks.Callback):
    def __init__(self, epoch, sees_batch):
        super().__init__()
        self.epoch, self.sees_batch, self.epochs = epoch, sees_batch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs = epoch
        if epoch == self.epoch and not self.sees_batch:
            raise BrokenError

    def on_train_batch_begin(self, batch, logs=None):
        if self.epochs == self.epoch:
            raise BrokenError


@pytest.mark.parametrize("sees_batch", [False, True])
@pytest.mark.parametrize("epoch", [1, 2])
def test_fit_that_ends_before_a_batch_holds_nothing_any_more(epoch, sees_batch, images):
    model = net()
    callbacks = [restarts(), BreakBeforeABatch(epoch, sees_batch)]
    with contextlib.suppress(BrokenError):
        model.fit(*images, epochs=3, verbose=0, callbacks=callbacks)
    gc.collect()
    assert not np.asarray(model.get_layer("logits").kernel)[1].any()
    model.train_on_batch(*images)
    assert np.asarray(model.get_layer("logits").kernel)[1].all()


def test_two_callbacks_hold_weights_of_one_reader_and_give_its_constraint_back(images):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 2))
    made = [layers.Conv2D(3, 3, activation="relu", name=name)(inputs) for name in ("one", "two")]
    pooled = layers.GlobalAveragePooling2D()(layers.Concatenate()(made))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(pooled))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held = [
        restarts(layers=name, select=lambda scores, name=name: {name: [1]})
        for name in ("one", "two")
    ]
    largest = []

    def note(epoch, logs):
        kernel = np.abs(np.asarray(model.get_layer("logits").kernel)).max(axis=1)
        largest.append((kernel == 0).nonzero()[0].tolist())

    callbacks = [*held, keras.callbacks.LambdaCallback(on_epoch_end=note)]
    model.fit(*images, epochs=4, verbose=0, callbacks=callbacks)
    assert largest == [[], [1, 4], [1, 4], []]
    assert model.get_layer("logits").kernel.constraint is None


def test_a_control_drops_nothing_and_trains_as_long(images):
    restart = restarts(control="none")
    rows = fit(net(), restart, images, 4)
    assert min(rows.largest) > 0
    assert [event.epoch for event in restart.events] == [0]


def test_the_next_fit_restarts_filters_that_the_last_has_dropped(images):
    model, restart = net(), restarts()
    assert fit(model, restart, images, 3).largest[1:] == [0, 0]
    assert restart.events == []
    assert fit(model, restart, images, 4, initial_epoch=3).largest[0] > 0
    assert [event.epoch for event in restart.events] == [0]


def test_state_in_json_resumes_in_the_middle(images):
    def copied(model):
        return [np.array(v) for v in (*model.weights, *model.optimizer.variables)]

    model, restart = net(), restarts()
    kept = {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:  # one of two epochs without the filters
                kept["numbers"] = copied(self.model)
                kept["state"] = json.dumps(restart.state.to_dict())

    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(*images, epochs=5, callbacks=[restart, Keep()], **options)

    again, resumed = net(), restarts()
    again.optimizer.build(again.trainable_variables)
    variables = (*again.weights, *again.optimizer.variables)
    for variable, value in zip(variables, kept["numbers"], strict=True):
        variable.assign(value)
    resumed.resume(RestartState.from_dict(json.loads(kept["state"])))
    rows = fit(again, resumed, images, 5, initial_epoch=2)
    assert rows.largest[0] == 0
    assert resumed.events[0].layers == restart.events[0].layers
    for a, b in zip(copied(model), copied(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_target_that_is_reached_meanwhile_ends_training(images):
    model, restart = net(), restarts()
    when = kr.EveryEpochs(1, monitor="loss", recovery_epochs=0, target=0.5)
    restart = kr.PartialRestart(when=when, reset=restart.plan.reset, select=restart.plan.select)

    class Loss(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = [1.0, 0.4][epoch]

    model.fit(*images, epochs=6, verbose=0, callbacks=[Loss(), restart])
    assert restart.state.finished == "target reached"
    assert len(model.history.epoch) == 2


@pytest.mark.parametrize("second_moment", ["zero", "survivors"])
def test_dropped_weights_get_the_second_moments_of_new_ones(images, second_moment):
    model = net()
    model.fit(*images, batch_size=4, epochs=1, verbose=0)
    reset = kr.Reset("he_uniform", outgoing="zero", second_moment=second_moment)
    drop_filters(model, {"conv": [1, 4]}, find_filter_layers(model, ["conv"]), reset)
    optimizer, kernel = model.optimizer, model.get_layer("logits").kernel
    moments = np.asarray(optimizer._velocities[optimizer._get_variable_index(kernel)])
    assert np.asarray(kernel)[[0, 2]].any()
    assert not np.asarray(kernel)[[1, 4]].any()
    assert moments[[1, 4]].all() == (second_moment == "survivors")
    assert moments[[1, 4]].any() == (second_moment == "survivors")

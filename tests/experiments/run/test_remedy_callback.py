"""What a run does at a restart beside restarting filters."""

import types

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.run.remedy_callback import RemedyCallback, remedy_of
from kerasrestart.experiments.settings import RunSettings


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="logits"),
            keras.layers.Activation("linear", name="last"),
        ]
    )
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))
    return model


def begin_epoch(model, epoch, event_epochs, **settings):
    events = [types.SimpleNamespace(epoch=of) for of in event_epochs]
    callback = RemedyCallback(types.SimpleNamespace(events=events), RunSettings(**settings))
    callback.set_model(model)
    before = model.get_weights()
    callback.on_epoch_begin(epoch)
    return [bool((was != now).any()) for was, now in zip(before, model.get_weights(), strict=True)]


def test_a_head_is_the_last_layer_with_weights():
    assert begin_epoch(build(), 6, [2, 5], remedy="head_reset") == [False, False, True, True]


def test_nothing_happens_except_at_the_begin_of_a_round():
    for epoch, events in ((0, []), (5, [5]), (7, [5])):
        assert not any(begin_epoch(build(), epoch, events, remedy="full_reset"))


def test_each_restart_draws_other_weights_which_depend_on_the_seed_alone():
    drawn = []
    for number, seed in ((1, 0), (1, 0), (2, 0), (1, 7)):
        model = build()
        begin_epoch(model, 6, [5] * number, remedy="full_reset", seed=seed)
        drawn.append(model.get_layer("hidden").kernel.numpy())
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).all()
    assert (drawn[0] != drawn[3]).all()


def test_shrink_and_perturb_without_noise_multiplies_all_weights():
    model = build()
    before = model.get_weights()
    settings = {"remedy": "shrink_and_perturb", "shrink": 0.5, "perturb": 0.0}
    begin_epoch(model, 6, [5], **settings)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(now, was / 2, rtol=1e-6)


def test_an_optimizer_reset_leaves_the_weights():
    model = build()
    assert int(model.optimizer.iterations) == 1
    assert not any(begin_epoch(model, 6, [5], remedy="optimizer_reset"))
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("remedy", ["head_reset", "full_reset", "optimizer_reset"])
def test_a_remedy_is_that_of_the_library(remedy):
    found = remedy_of(RunSettings(remedy=remedy), build())
    kinds = {
        "head_reset": kr.ResetLayer,
        "full_reset": kr.ResetModel,
        "optimizer_reset": kr.ResetOptimizer,
    }
    assert type(found) is kinds[remedy]


def test_filters_and_the_head_are_restarted_together():
    model = build()
    restart = kr.PartialRestart(
        select=lambda scores: {"hidden": [1]},
        when=kr.EveryEpochs(1, monitor="loss"),
        layers=["hidden"],
        max_restarts=1,
    )
    kernels = []

    class Record(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernels.append([model.get_layer(n).kernel.numpy() for n in ("hidden", "logits")])

        def on_epoch_end(self, epoch, logs=None):
            kernels.append([model.get_layer(n).kernel.numpy() for n in ("hidden", "logits")])

    callbacks = [restart, RemedyCallback(restart, RunSettings(remedy="head_reset")), Record()]
    model.fit(np.ones((2, 3)), np.ones((2, 2)), epochs=2, verbose=0, callbacks=callbacks)
    (hidden, logits), (new_hidden, new_logits) = kernels[1:3]  # around the restart
    assert (hidden != new_hidden).any(axis=0).tolist() == [False, True, False, False]
    assert (logits != new_logits).all()

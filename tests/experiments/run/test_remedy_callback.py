"""What a run does at a restart beside restarting filters."""

import types

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.run.remedy_callback import RemedyCallback, remedy_of
from kerasrestart.experiments.setting import SettingError
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
    remedy = remedy_of(RunSettings(**settings), model)
    callback = RemedyCallback(types.SimpleNamespace(events=events), remedy, settings.get("seed", 0))
    callback.set_model(model)
    before = model.get_weights()
    callback.on_epoch_begin(epoch)
    return [bool((was != now).any()) for was, now in zip(before, model.get_weights(), strict=True)]


def test_a_head_is_the_last_layer_with_weights():
    assert begin_epoch(build(), 6, [2, 5], remedy="head_reset") == [False, False, True, True]


class HeadFirst(keras.Model):
    """Its head is the first of its layers."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2, name="head")
        self.hidden = keras.layers.Dense(4, name="hidden")

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def nested_head():
    """Its head is inside the last of its layers, before layers without features of their own."""
    inner = [keras.layers.Dense(3), keras.layers.Dense(2, name="head"), keras.layers.PReLU()]
    outer = [keras.layers.Dense(4, name="hidden"), keras.Sequential([keras.Input((4,)), *inner])]
    return keras.Sequential([keras.Input((3,)), *outer])


@pytest.mark.parametrize("build_model", [HeadFirst, nested_head])
def test_a_head_is_the_layer_that_makes_the_output_wherever_it_is_held(build_model):
    model = build_model()
    model(np.ones((1, 3), np.float32))
    changed = begin_epoch(model, 6, [5], remedy="head_reset")
    names = [variable.path for variable in model.weights]
    new_kernels = [n for n, new in zip(names, changed, strict=True) if new and "kernel" in n]
    assert [name.split("/")[-2] for name in new_kernels] == ["head"]


def test_a_model_without_a_head_that_trains_is_refused_in_one_line():
    model = build()
    model.get_layer("logits").trainable = False
    with pytest.raises(SettingError, match=r"--remedy=head_reset cannot be .* Received: none") as e:
        remedy_of(RunSettings(remedy="head_reset"), model)
    assert "\n" not in str(e.value)


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

    remedy = remedy_of(RunSettings(remedy="head_reset"), model)
    callbacks = [restart, RemedyCallback(restart, remedy, 0), Record()]
    model.fit(np.ones((2, 3)), np.ones((2, 2)), epochs=2, verbose=0, callbacks=callbacks)
    (hidden, logits), (new_hidden, new_logits) = kernels[1:3]  # around the restart
    assert (hidden != new_hidden).any(axis=0).tolist() == [False, True, False, False]
    assert (logits != new_logits).all()

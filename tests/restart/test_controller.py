"""`RestartController`: restarts in a training loop without fit."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PARTS = {
    "when": kr.EverySteps(4, maturity=2),
    "select": kr.Fraction(0.25),
    "reset": kr.Reset("he_uniform", outgoing="zero", compensate_bias=True),
    "layers": ".*",
}


def net():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, activation="relu", name="dense"),
            layers.Dense(3, name="logits"),
        ]
    )


class Loop:
    """A model trained without fit, batch by batch."""

    def __init__(self, compiled=True, optimizer=None, factor=1.0, **parts):
        self.model, self.traces, self.factor = net(), 0, factor
        self.optimizer = optimizer or keras.optimizers.Adam(0.01)
        self.controller = kr.RestartController(
            self.model, optimizer=self.optimizer, **PARTS | parts
        )
        self.step = self.controller.function(self._step) if compiled else None

    def _step(self, x, y):
        self.traces += 1
        with tf.GradientTape() as tape:
            loss = self.factor * LOSS(y, self.model(x, training=True))
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return loss

    def run(self, images, first, last):
        x, y = (tf.constant(part) for part in images)
        for number in range(first, last):
            at = number % 5 * 4
            loss = self.step(x[at : at + 4], y[at : at + 4])
            self.controller.step()
        return loss


def chosen(events):
    return [(e.step, {n: of.filters for n, of in e.layers.items()}) for e in events]


def test_a_loop_trains_and_restarts_as_fit_does(images):
    loop = Loop()
    loop.run(images, 0, 15)
    model = net()
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    restart = kr.PartialRestart(**PARTS)
    model.fit(*images, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[restart])
    assert chosen(loop.controller.events) == chosen(restart.events)
    assert [e.step for e in restart.events] == [4, 8, 12]
    for a, b in zip(loop.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name, scores in loop.controller.scores.items():
        np.testing.assert_allclose(scores, restart.scores[name], rtol=1e-3, atol=1e-7)


def test_steps_without_a_restart_trace_nothing_and_return_what_the_step_returns(images):
    loop = Loop(criterion=kr.Scoring("taylor", window=1))
    loss = loop.run(images, 0, 2)
    assert loss.shape == ()
    loop.run(images, 2, 5)  # the fourth batch is the first to be scored
    traces = loop.traces
    loop.run(images, 5, 20)
    assert loop.traces == traces
    assert loop.controller.scorer.seen == 5 * 4  # batches 4, 8, 12, 16, 20


def test_state_in_json_continues_the_loop(images):
    straight, first, second = Loop(), Loop(), Loop()
    straight.run(images, 0, 16)
    first.run(images, 0, 6)
    state = json.loads(json.dumps(first.controller.get_state()))
    second.optimizer.build(second.model.trainable_variables)
    for a, b in zip(
        (*second.model.weights, *second.optimizer.variables),
        (*first.model.weights, *first.optimizer.variables),
        strict=True,
    ):
        a.assign(b)
    second.controller.set_state(state)
    second.run(images, 6, 16)
    assert chosen(second.controller.events) == chosen(straight.controller.events)
    for a, b in zip(straight.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scored_step_inside_a_larger_function(images):
    loop = Loop(compiled=False)
    step = loop.controller.scored(loop._step)
    x, y = tf.constant(images[0]), tf.constant(images[1])

    @tf.function
    def epoch():
        for at in (0, 10):
            step(x[at : at + 10], y[at : at + 10])

    epoch()
    assert loop.controller.step(2) is None
    epoch()
    event = loop.controller.step(2)
    assert event is loop.controller.events[0]
    assert loop.controller.scorer.seen == 40


def test_overflowing_batches_are_not_scored(images):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=1e38)
    loop = Loop(optimizer=optimizer, factor=100.0)
    loop.run(images, 0, 5)
    assert (loop.controller.scorer.seen, loop.controller.scorer.examples) == (20, 0)
    assert not loop.controller.events


def test_two_restarts_of_the_same_seed_draw_other_weights(images):
    loop = Loop(select=lambda scores: {"conv": [0]}, when=kr.EverySteps(1, maturity=0))
    loop.run(images, 0, 2)
    first = np.array(loop.model.get_layer("conv").kernel)[..., 0]
    loop.run(images, 2, 3)
    assert np.abs(np.array(loop.model.get_layer("conv").kernel)[..., 0] - first).max() > 0.05
    assert len(loop.controller.events) == 3


@pytest.mark.parametrize("rate", [None, 0.2])
def test_a_layer_frozen_meanwhile_is_named_and_keeps_its_ages(rate, images):
    when = kr.EverySteps(2, maturity=1, replacement_rate=rate)
    select = None if rate else kr.Fraction(0.25)
    loop = Loop(compiled=False, when=when, select=select, reset=kr.Reset("he_uniform"))
    loop.step = loop.controller.scored(loop._step)
    loop.run(images, 0, 1)
    before = loop.model.get_weights()[:2]
    loop.model.get_layer("conv").trainable = False
    with pytest.warns(match="'conv' is not restarted: its kernel is not trainable"):
        loop.run(images, 1, 5)
    for weight, old in zip(loop.model.get_layer("conv").get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    ages = loop.controller.get_state()["steps"]["since"]
    assert set(ages["conv"]) == {0}
    layers = [event.layers for event in loop.controller.events]
    assert {name for of_event in layers for name in of_event} == {"dense"}
    restarted = {filter for of in layers for filter in (of["dense"].filters if of else ())}
    assert restarted == {filter for filter, since in enumerate(ages["dense"]) if since}


def test_a_layer_that_the_step_does_not_train_is_named_and_not_restarted(images):
    loop = Loop()
    loop.model.get_layer("conv").trainable = False
    with pytest.warns(match="'conv' is not scored: "):
        loop.run(images, 0, 5)
    assert {name for event in loop.controller.events for name in event.layers} == {"dense"}


def test_remedy_and_limit_of_restarts(images):
    loop = Loop(reset=kr.ResetLayer("logits"), max_restarts=1, select=None)
    loop.run(images, 0, 9)
    assert [e.initializer for e in loop.controller.events] == ["remedy ResetLayer(layers='logits')"]
    assert loop.controller.finished == "max_restarts=1 reached"


@pytest.mark.parametrize(
    "remedy",
    [
        kr.ResetOptimizer(),
        kr.ResetModel(),
        kr.ResetLayer("logits"),
        kr.ShrinkAndPerturb(0.5, 0.1),
    ],
)
def test_remedy_resets_the_optimizer_of_the_loop(images, remedy):
    loop = Loop(reset=remedy, max_restarts=1, select=None)
    loop.run(images, 0, 3)
    kernel = loop.model.get_layer("logits").kernel
    moments = loop.optimizer._momentums[loop.optimizer._get_variable_index(kernel)]
    assert np.asarray(moments).any()
    while not loop.controller.events:
        loop.run(images, 3, 4)
    assert not np.asarray(moments).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kr.RestartController(net(), when=kr.EverySteps(4)),
            "optimizer must be that of the loop",
        ),
        (
            lambda: kr.RestartController(net(), when=kr.EveryEpochs(4)),
            "when must be an EverySteps. Received: EveryEpochs",
        ),
        (lambda: Loop().controller.function(tf.function(lambda x: x)), "a tf.function"),
        (
            lambda: Loop().controller.step(),
            "controller.scored. Received: a step that this controller has not made",
        ),
        (lambda: Loop().controller.set_state({}), "what get_state returned. Received: {}"),
        (lambda: Loop().controller.step(0), "steps must be a whole number, 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("misplaced", "advice"),
    [
        ({"target": 0.1}, "an argument of EverySteps: when=EverySteps(steps=50, target=0.1)"),
        ({"maturity": 3}, "an argument of EverySteps: when=EverySteps(steps=50, maturity=3)"),
        ({"initializer": "he"}, "an argument of Reset: reset=Reset(initializer='he')"),
        ({"every": 4}, "an argument of Scoring: criterion=Scoring(every=4)"),
        # No part that this class takes has these.
        *(({name: 1}, f"keyword argument '{name}'") for name in ("patience", "epochs", "verbose")),
        ({"drop_epochs": 3}, "keyword argument 'drop_epochs'"),
    ],
    ids=str,
)
def test_a_misplaced_argument_is_explained_by_parts_that_are_accepted(misplaced, advice):
    with pytest.raises(TypeError) as error:
        kr.RestartController(net(), when=kr.EverySteps(50), **misplaced)
    assert str(error.value).endswith(advice)


def test_the_batch_size_is_that_of_the_first_array_among_the_arguments(images):
    scores = []
    for first in ((), (net(), 3)):  # a model and an epoch have no batch size
        loop = Loop(compiled=False, select=kr.Fraction(0.25))
        step = loop.controller.scored(lambda *args, loop=loop: loop._step(*args[-2:]))
        step(*first, *(tf.constant(part[:4]) for part in images))
        loop.controller.step()
        scores.append(loop.controller.scorer.result())
    for name, expected in scores[0].items():
        assert expected.any()
        np.testing.assert_array_equal(scores[1][name], expected)

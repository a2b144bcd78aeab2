"""Models that compile their step themselves: scores by brute force, training as without scores."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain
from keras import layers

import kerasrestart as kr
from tests.own_steps import OneTape

Z_OF = {"conv": "conv", "second": "second"}
BATCH = [tf.TensorSpec((None, 8, 8, 2)), tf.TensorSpec((None,), tf.int64)]


class Decorated(OneTape):
    @tf.function
    def train_step(self, data):
        return OneTape.train_step(self, data)


class WithoutAutoGraph(OneTape):
    @tf.function(autograph=False)
    def train_step(self, data):
        return OneTape.train_step(self, data)


class Fused(OneTape):
    @tf.function(jit_compile=True)
    def train_step(self, data):
        return OneTape.train_step(self, data)


class WithASignature(OneTape):
    @tf.function(input_signature=[tuple(BATCH)])
    def train_step(self, data):
        return OneTape.train_step(self, data)


class ByAutoGraph(OneTape):
    """A condition in Python on a tensor, which only AutoGraph understands."""

    @tf.function
    def train_step(self, data):
        logs = OneTape.train_step(self, data)
        if logs["loss"] > 1e6:
            logs["loss"] = tf.constant(1e6)
        return logs


class LooksItUpLate(OneTape):
    """Its function asks for the step when it runs, and its maker has no argument."""

    def make_train_function(self):
        if self.train_function is not None:
            return self.train_function

        @tf.function
        def one(data):
            return self.train_step(data)

        self.train_function = lambda iterator: one(next(iterator))
        return self.train_function


class LooksItUpByAutoGraph(LooksItUpLate):
    train_step = ByAutoGraph.train_step.python_function


class RunsAnother(LooksItUpLate):
    def make_train_function(self):
        one = tf.function(lambda data: OneTape.train_step(self, data))
        self.train_function = lambda iterator: one(next(iterator))

    def train_step(self, data):
        raise NotImplementedError


CLASSES = [
    Decorated,
    WithoutAutoGraph,
    Fused,
    WithASignature,
    ByAutoGraph,
    LooksItUpLate,
    LooksItUpByAutoGraph,
]


def net(model_class, rate=0.0, **options):
    keras.utils.set_random_seed(1)
    stack = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2),
            layers.Conv2D(3, 2, activation="tanh", name="second"),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ]
    )
    model = model_class(stack.inputs, stack.outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, images, restart=None, epochs=1):
    x, y = images
    callbacks = [] if restart is None else [restart]
    model.fit(
        x[:16],
        y[:16].astype("int64"),
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return restart


def restart_of(**options):
    return kr.PartialRestart(fraction=0.25, monitor="loss", **options)


def reference_of(model, images):
    stack = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    forward = chain(type("Stack", (), {"layers": stack}))
    return brute_force_scores(forward, Z_OF, images[0][:16], images[1][:16])


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_step_that_is_compiled_by_the_model_is_scored(model_class, images):
    model = net(model_class)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))
    assert not {"train_step", "make_train_function"} & set(vars(model))


@pytest.mark.parametrize("model_class", [Decorated, LooksItUpLate])
def test_it_is_scored_where_fit_runs_eagerly(model_class, images):
    model = net(model_class, run_eagerly=True)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))


@pytest.mark.parametrize("model_class", [Decorated, ByAutoGraph])
def test_it_is_scored_under_a_strategy(model_class, images):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = net(model_class)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize("model_class", [Decorated, ByAutoGraph, LooksItUpLate])
def test_it_trains_bit_for_bit_as_without_scores(model_class, images):
    weights = []
    for restart in (None, restart_of(criterion=kr.Scoring(every=2))):
        model = net(model_class, rate=0.1)
        fit(model, images, restart, epochs=2)
        weights.append([v.numpy() for v in (*model.weights, *model.optimizer.variables)])
    assert restart.scorer.examples == 8
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_compiled_step_of_a_model_that_is_not_built_is_scored(images):
    class Chain(keras.Model):
        train_step, loss_of, update = Decorated.train_step, OneTape.loss_of, OneTape.update

        def __init__(self):
            super().__init__()
            self.body = net(keras.Model).layers[1:]

        def call(self, x):
            for layer in self.body:
                x = layer(x)
            return x

    model = Chain()
    model.compile(keras.optimizers.SGD(0.0), net(keras.Model).loss)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))


def test_a_maker_of_the_instance_is_used_and_comes_back(images):
    model = net(OneTape)
    make = types.MethodType(LooksItUpLate.make_train_function, model)
    object.__setattr__(model, "make_train_function", make)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))
    assert vars(model)["make_train_function"] is make


def test_the_units_of_keras_own_step_are_kept_where_it_is_looked_up_late(images):
    class Total(keras.Model):
        make_train_function = LooksItUpLate.make_train_function

    model = net(Total)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(keras.optimizers.SGD(0.0), loss)
    restart = fit(model, images, restart_of())
    assert_scores_match(restart.scores, reference_of(model, images))


def test_a_train_function_that_does_not_run_the_step_is_an_error_at_the_first_batch(images):
    model = net(RunsAnother)
    with pytest.raises(ValueError, match=r"a function that calls self\.train_step"):
        fit(model, images, restart_of())
    assert "make_train_function" not in vars(model)
    restart = fit(model, images, restart_of(criterion="magnitude"))  # needs nothing of the step
    assert set(restart.scores) == {"conv", "second"}

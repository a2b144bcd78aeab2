"""Scoring some batches of an epoch: exactly these are scored, and training does not notice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain, cross_entropy
from keras import layers

import kerasrestart as kr
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_function import attach, detach

Z_OF = {"conv": "conv", "second": "second"}
BATCHES = [slice(start, start + 4) for start in range(0, 20, 4)]
LOSSES_TRACED = []


def loss(y, logits):
    LOSSES_TRACED.append(logits)
    return cross_entropy(tf.cast(tf.reshape(y, [-1]), tf.int32), logits)


def net(model_class=keras.Sequential):
    between = [layers.BatchNormalization(), layers.Dropout(0.3)]
    stack = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            *(between if model_class is not keras.Sequential else []),
            layers.MaxPooling2D(2),
            layers.Conv2D(3, 2, activation="tanh", name="second"),
            layers.Flatten(),
            layers.Dense(3, dtype="float32", name="logits"),
        ]
    )
    if model_class is keras.Sequential:
        return stack
    return model_class(stack.inputs, stack.outputs)


def fit(model, images, restart=None, optimizer=None, **options):
    epochs = options.pop("epochs", 1)
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss=loss, **options)
    callbacks = [] if restart is None else [restart]
    return model.fit(
        *images, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


def scoring(**options):
    when = options.pop("when", None) or kr.OnPlateau("loss")
    return kr.PartialRestart(fraction=0.25, when=when, **options)


def every(n):
    return kr.Scoring(every=n)


def reference_of(model, images, batches):
    rows = np.concatenate([np.arange(20)[BATCHES[n]] for n in batches])
    return brute_force_scores(chain(model), Z_OF, images[0][rows], images[1][rows])


@pytest.mark.parametrize(
    ("every", "options", "batches"),
    [
        (3, {"jit_compile": False}, [0, 3]),
        (3, {"jit_compile": True}, [0, 3]),
        (3, {"run_eagerly": True}, [0, 3]),
        (2, {"steps_per_execution": 2, "jit_compile": False}, [0, 1, 4]),
    ],
    ids=str,
)
def test_every_nth_batch_of_each_epoch_is_scored_and_no_other(
    every, options, batches, images, randomized
):
    model = randomized(net())
    fit(model, images, restart := scoring(criterion=kr.Scoring(every=every)), epochs=2, **options)
    assert_scores_match(restart.scores, reference_of(model, images, batches))
    assert restart.scorer.examples == 4 * len(batches)


def test_every_nth_batch_under_a_loss_scale_and_a_strategy(images, randomized):
    keras.config.set_dtype_policy("mixed_float16")
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = randomized(net())
        fit(model, images, restart := scoring(criterion=every(3)))
    assert_scores_match(restart.scores, reference_of(model, images, [0, 3]), rtol=0.01)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.parametrize("model_class", [keras.Model, kr.RestartModel])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
def test_weights_are_bit_for_bit_those_of_training_without_scores(model_class, options, images):
    runs = []
    for restart in (None, scoring(criterion=every(3))):
        keras.utils.set_random_seed(1)
        model = net(model_class)
        history = fit(model, images, restart, keras.optimizers.Adam(0.01), epochs=2, **options)
        variables = [*model.weights, *model.optimizer.variables]
        runs.append(([v.numpy() for v in variables], history.history["loss"]))
    for with_scores, without in zip(runs[1][0], runs[0][0], strict=True):
        np.testing.assert_array_equal(with_scores, without)
    assert runs[1][1] == runs[0][1]
    assert restart.scorer.examples == 8
    assert all(of_layer.max() > 0 for of_layer in restart.scores.values())


@pytest.mark.parametrize("model_class", [keras.Model, kr.RestartModel])
def test_each_of_the_two_steps_is_traced_once_whatever_is_restarted(model_class, images):
    def losses_traced(*arguments):
        before = len(LOSSES_TRACED)
        fit(net(model_class), images, *arguments, epochs=6)
        return len(LOSSES_TRACED) - before

    restart = scoring(criterion=every(2), when=kr.EveryEpochs(2, "loss"), stop_on_repeat=False)
    plain, both = losses_traced(), losses_traced(restart)
    assert len(restart.events) == 2
    assert both == 2 * plain
    assert losses_traced(scoring()) == plain


def test_an_epoch_that_is_not_scored_leaves_the_scorer_as_it_is(images, randomized):
    model = randomized(net())
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    scorer = Scorer(model)
    step = attach(model, scorer)
    for scores, examples in ((False, 0), (True, 20), (False, 20)):
        step.begin_epoch(scores)
        model.fit(*images, batch_size=4, verbose=0)
        assert scorer.examples == examples
    detach(model)
    assert model.train_function is None
    assert "train_step" not in vars(model)

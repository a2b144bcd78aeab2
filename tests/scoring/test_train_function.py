"""Scoring some batches of an epoch: exactly these are scored, and training does not notice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain, cross_entropy
from keras import layers

import kerasrestart as kr
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_function import attach

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
@pytest.mark.parametrize(
    ("model_class", "options"),
    [(keras.Model, {}), (kr.RestartModel, {}), (keras.Model, {"run_eagerly": True})],
    ids=str,
)
@pytest.mark.usefixtures("grappler")
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
    def losses_traced(*arguments, epochs=2):
        before = len(LOSSES_TRACED)
        fit(net(model_class), images, *arguments, epochs=epochs)
        return len(LOSSES_TRACED) - before

    restart = scoring(criterion=every(2), when=kr.EveryEpochs(2, "loss"), stop_on_repeat=False)
    plain, both = losses_traced(), losses_traced(restart, epochs=6)
    assert len(restart.events) == 2
    assert both == 2 * plain
    assert losses_traced(scoring()) == plain


class Attached(keras.callbacks.Callback):
    """Scores the epochs that are named, and notes how many examples each of them gave."""

    def __init__(self, scorer, epochs):
        super().__init__()
        self.scorer, self.epochs, self.examples = scorer, epochs, []

    def on_train_begin(self, logs=None):
        self.scoring = attach(self.model, self.scorer)

    def on_epoch_begin(self, epoch, logs=None):
        self.scorer.reset()
        self.scoring.begin_epoch(epoch in self.epochs)

    def on_epoch_end(self, epoch, logs=None):
        self.examples.append(self.scorer.examples)

    def on_train_end(self, logs=None):
        self.scoring.detach()


def test_an_epoch_that_is_not_scored_leaves_the_scorer_as_it_is(images, randomized):
    model = randomized(net())
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    attached = Attached(Scorer(model), epochs=[1])
    model.fit(*images, batch_size=4, epochs=3, verbose=0, callbacks=[attached])
    assert attached.examples == [0, 20, 0]
    assert not {"train_step", "make_train_function"} & set(vars(model))
    assert model.train_function is None


def test_two_scorers_score_each_their_own_batches(images, randomized):
    model = randomized(net())
    whole, part = scoring(layers=["conv"]), scoring(layers=["second"], criterion=every(2))
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(*images, callbacks=[whole, part], **options)
    reference = reference_of(model, images, range(5))
    assert_scores_match(whole.scores, {"conv": reference["conv"]})
    reference = reference_of(model, images, [0, 2, 4])
    assert_scores_match(part.scores, {"second": reference["second"]})
    assert model.train_function is None


class Compile(keras.callbacks.Callback):
    """Compiles the model again when the second epoch begins."""

    def __init__(self, options, force):
        super().__init__()
        self.options, self.force = options, force

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.compile(**self.options)
            self.model.make_train_function(force=self.force)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_a_model_that_is_compiled_in_the_middle_of_fit_is_still_scored(
    first, force, images, randomized
):
    model = randomized(net())
    model.compile(keras.optimizers.SGD(0.5), loss=loss)
    again = Compile({"optimizer": keras.optimizers.SGD(0.0), "loss": loss}, force)
    attached = Attached(Scorer(model), epochs=range(4))
    callbacks = [again, attached] if first else [attached, again]
    options = {"batch_size": 4, "epochs": 4, "shuffle": False, "verbose": 0}
    model.fit(*images, callbacks=callbacks, **options)
    assert attached.examples[-2:] == [20, 20]
    assert attached.scoring.was_rebuilt()
    assert not attached.scoring.was_rebuilt()
    scores = attached.scorer.result()
    assert_scores_match(scores, reference_of(model, images, range(5)))


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_a_fit_that_was_broken_off_leaves_no_scoring_to_the_next(images, randomized):
    model = randomized(net())
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    scorer = Scorer(model)
    attached = Attached(scorer, epochs=[0])
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, batch_size=4, verbose=0, callbacks=[attached, Stop()])
    assert not any("call" in vars(layer) for layer in model.layers)
    model.train_on_batch(images[0][:4], images[1][:4])
    assert scorer.seen == 4
    model.fit(*images, batch_size=4, verbose=0)
    assert scorer.seen == 4
    assert "make_train_function" not in vars(model)


def test_batches_of_a_loop_of_ones_own_are_scored(images, randomized):
    model = randomized(net())
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    attached = Attached(Scorer(model), epochs=[0])
    callbacks = keras.callbacks.CallbackList([attached], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for rows in BATCHES:
        model.train_on_batch(images[0][rows], images[1][rows])
    callbacks.on_epoch_end(0)
    callbacks.on_train_end()
    assert_scores_match(attached.scorer.result(), reference_of(model, images, range(5)))


def test_a_model_is_saved_in_the_middle_of_fit_without_scoring(images, tmp_path):
    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert not any("call" in vars(layer) for layer in self.model.layers)
            if not batch:
                self.model.save(tmp_path / "model.keras")
                self.model.export(tmp_path / "exported", verbose=False)

    model = net()
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    attached = Attached(Scorer(model), epochs=[0])
    model.fit(*images, batch_size=4, verbose=0, callbacks=[attached, Save()])
    expected = model.predict(images[0], verbose=0)
    saved = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(saved.predict(images[0], verbose=0), expected)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(images[0]), expected, rtol=1e-5)

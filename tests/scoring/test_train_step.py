"""The scored step trains as Keras's own does, and leaves nothing behind."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr

on_cpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)


def regularised_net():
    """Has all that could make two runs differ: dropout, batch norm, a penalty on weights."""
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="conv", kernel_regularizer="l2")(image)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(layers.MaxPooling2D(2)(layers.ReLU()(x)))
    x = layers.Conv2D(4, 2, activation="relu", name="second")(x)
    return image, layers.Dense(3, name="logits")(layers.Flatten()(x))


def compiled(model, optimizer="adam", **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer, loss=loss, metrics=["accuracy"], weighted_metrics=["accuracy"], **options
    )
    return model


def scoring(**options):
    options = options or {"monitor": "loss"}
    return kr.PartialRestart(fraction=0.25, **options)


def trained(images, callbacks, optimizer, model_class=keras.Model, **fit_options):
    keras.utils.set_random_seed(1)
    model = compiled(model_class(*regularised_net()), keras.optimizers.get(optimizer))
    x, y = images
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        validation_data=(x[:6], y[:6]),
        verbose=0,
        callbacks=callbacks,
        **fit_options,
    )
    variables = [*model.weights, *model.optimizer.variables]
    return model, [v.numpy() for v in variables], history.history


def assert_equal_runs(first, second):
    for ours, theirs in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    logs = {name: values for name, values in first[2].items() if name != "learning_rate"}
    assert logs == second[2]


SGD = {"class_name": "SGD", "config": {"learning_rate": 0.05, "momentum": 0.9}}


@on_cpu
@pytest.mark.parametrize(
    ("optimizer", "weighted"), [(SGD, False), ("adam", True)], ids=["sgd", "adam weighted"]
)
@pytest.mark.usefixtures("grappler")
def test_training_is_bit_for_bit_what_it_is_without_scores(optimizer, weighted, images):
    options = {"sample_weight": np.linspace(0, 2, 20)} if weighted else {}
    plain = trained(images, [], optimizer, **options)
    scored = trained(images, [restart := scoring()], optimizer, **options)
    assert_equal_runs(scored, plain)
    assert restart.scorer.examples == 20
    assert all(of_layer.max() > 0 for of_layer in restart.scores.values())
    assert len(plain[2]["loss"]) == 2
    assert plain[2]["loss"][0] != plain[2]["loss"][1]


@on_cpu
@pytest.mark.usefixtures("grappler")
def test_restart_model_trains_bit_for_bit_as_the_plain_model(images):
    plain = trained(images, [], "adam")
    without = trained(images, [], "adam", model_class=kr.RestartModel)
    scored = trained(images, [scoring()], "adam", model_class=kr.RestartModel)
    assert_equal_runs(without, plain)
    assert_equal_runs(scored, plain)


def test_no_trace_of_scoring_stays_on_the_model(images):
    model = compiled(keras.Model(*regularised_net()))
    untouched = [set(vars(layer)) for layer in [model, *model.layers]]
    callback = scoring()
    model.fit(*images, verbose=0, callbacks=[callback])
    assert "train_step" not in vars(model)
    assert type(model) is type(keras.Model(*regularised_net()))
    assert not any("call" in vars(layer) for layer in model.layers)
    for before, layer in zip(untouched, [model, *model.layers], strict=True):
        assert not {name for name in set(vars(layer)) - before if "restart" in name}

    scores, examples = callback.scores, callback.scorer.examples
    model.fit(*images, verbose=0)
    assert callback.scorer.examples == examples, "the second fit was not to score"
    assert callback.scores is scores


@pytest.mark.parametrize("order", [1, -1])
def test_a_fit_that_was_broken_off_can_be_followed_by_another(order, images):
    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(keras.Model(*regularised_net()))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, verbose=0, callbacks=[scoring(), Break()][::order])
    model.fit(*images, verbose=0, callbacks=[again := scoring()])
    assert again.scorer.examples == 20
    assert "train_step" not in vars(model)


LOAD = """
import sys
sys.modules["kerasrestart"] = None
import keras, numpy
model = keras.saving.load_model("model.keras")
numpy.save("out.npy", model.predict(numpy.load("x.npy"), verbose=0))
"""


def test_saved_model_loads_where_this_package_is_not_installed(images, tmp_path):
    x, y = images
    model = compiled(keras.Model(*regularised_net()))
    restart = scoring(when=kr.EveryEpochs(1, "loss"))
    model.fit(x, y, epochs=3, verbose=0, callbacks=[restart])
    assert restart.events
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), model.predict(x, verbose=0))


class OwnStep(kr.RestartModel):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(loss)
        gradients = self.scored_gradients(tape, scaled, batch_size=tf.shape(x)[0])
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.compute_metrics(x, y, y_pred)


@pytest.mark.parametrize("scale", [None, 64.0])
def test_own_step_scores_as_the_default_one_does(scale, images):
    scores = []
    for model_class in (keras.Model, OwnStep):
        optimizer = keras.optimizers.SGD(0.01, loss_scale_factor=scale)
        trained(images, [restart := scoring()], optimizer, model_class)
        scores.append(restart.scores)
    for name, of_default in scores[0].items():
        assert of_default.max() > 0
        np.testing.assert_allclose(scores[1][name], of_default, rtol=1e-5)


def test_own_step_trains_where_no_scorer_is_attached(images):
    _, own, _ = trained(images, [], SGD, OwnStep)
    _, default, _ = trained(images, [], SGD)
    for ours, theirs in zip(own, default, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_step_of_the_docstring_trains_scores_and_logs_its_loss(images):
    code = kr.RestartModel.__doc__.split("```python")[1].split("```")[0]
    inputs, outputs = regularised_net()
    names = {"tf": tf, "kerasrestart": kr, "model": keras.Model(inputs, outputs)}
    exec(textwrap.dedent(code), names)
    restart = scoring()
    history = compiled(names["model"]).fit(*images, verbose=0, callbacks=[restart])
    assert all(of_layer.max() > 0 for of_layer in restart.scores.values())
    assert history.history["accuracy"][0] > 0
    assert history.history["loss"][0] > 0.1

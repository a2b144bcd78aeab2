"""`diagnose` finds exactly what was planted, and its numbers equal those computed by numpy."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.diagnosis import statistics
from kerasrestart.diagnosis.diagnose import diagnose
from kerasrestart.diagnosis.statistics import effective_rank
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.when import EveryEpochs
from kerasrestart.scoring.score_filters import score_filters


def network(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.Flatten()(x)
    x = layers.Dense(6, activation="relu", name="dense")(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    model.get_layer("conv").bias.assign(np.full(8, 0.3))
    model.get_layer("dense").bias.assign(np.full(6, 0.5))
    return model


def data(count=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6, 6, 2)).astype("float32"), rng.integers(0, 3, count)


def plant(model):
    """Conv: 1 dead, 5 a copy of 2, 6 without readers."""
    conv, dense = model.get_layer("conv"), model.get_layer("dense")
    kernel, bias = conv.get_weights()
    kernel[..., 1], bias[1] = 0, -1
    kernel[..., 5], bias[5] = 2 * kernel[..., 2], 2 * bias[2]
    conv.set_weights([kernel, bias])
    reading, bias = dense.get_weights()
    reading.reshape(16, 8, 6)[:, 6] = 0
    dense.set_weights([reading, bias])


def features(model, name, x):
    inner = keras.Model(model.inputs, model.get_layer(name).output)
    maps = inner.predict(x, verbose=0).astype("float64")
    return maps.reshape(-1, maps.shape[-1])


def test_planted_filters_are_found_and_no_others():
    model, (x, y) = network(), data()
    plant(model)
    conv = diagnose(model, x, y, batch_size=16).layers["conv"]
    assert conv.dead == conv.dormant == (1,)
    assert conv.duplicate == (5,)
    assert conv.useless == (1, 6)


def test_dead_filters_get_a_verdict_with_the_cause_first():
    model, (x, y) = network(), data()
    plant(model)
    verdict = diagnose(model, x, y).verdict
    assert verdict.startswith("1 of 8 filters of conv is dead: likely the learning rate;")
    assert "leaky ReLU prevents it" in verdict


def test_a_healthy_network_is_advised_against_a_restart():
    x, y = data()
    inputs = keras.Input((6, 6, 2))
    keras.utils.set_random_seed(1)
    h = layers.Conv2D(4, 3, activation="softplus", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = diagnose(model, x, y)
    lowest = found.layers["conv"].lowest_score
    assert found.verdict.startswith(
        "Nothing here is useless: restarting filters is unlikely to help "
        f"(lowest score {lowest:.2f} of the layer's mean)."
    )


@pytest.mark.parametrize("block", [1000, statistics.BLOCK])
def test_numbers_equal_those_of_numpy(block, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", block)  # 16 examples have 2048 numbers
    model, (x, y) = network(), data()
    found = diagnose(model, x, y, batch_size=16)  # the last batch is short
    for name in ("conv", "dense"):
        a, kernel = features(model, name, x), model.get_layer(name).get_weights()[0]
        singular = np.linalg.svd(a, compute_uv=False)
        share = singular / singular.sum()
        rank = np.exp(-(share * np.log(share)).sum())
        np.testing.assert_allclose(found.layers[name].effective_rank, rank, rtol=1e-5)
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        np.testing.assert_allclose(found.layers[name].weight_norm, norms.mean(), rtol=1e-5)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x))
        gradient = np.asarray(tape.gradient(loss, model.get_layer(name).kernel.value))
        norms = np.linalg.norm(gradient.reshape(-1, gradient.shape[-1]), axis=0)
        np.testing.assert_allclose(found.layers[name].gradient_norm, norms.mean(), rtol=1e-4)


@pytest.mark.parametrize("shape", [(50, 4), (3, 7)])
def test_effective_rank_equals_that_of_numpys_svd(shape):
    a = np.random.default_rng(0).normal(size=shape) @ np.diag(2.0 ** -np.arange(shape[1]))
    singular = np.linalg.svd(a, compute_uv=False)
    share = singular / singular.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    np.testing.assert_allclose(effective_rank(a.T @ a), expected, rtol=1e-6)
    assert effective_rank(np.zeros((3, 3))) == 0


def test_without_targets_useless_is_not_known():
    model, (x, _) = network(), data()
    found = diagnose(model, x)
    assert found.layers["conv"].useless is None
    assert "useless filters are not known" in found.verdict


def test_a_wide_layer_is_sampled_and_the_result_says_so():
    model, (x, y) = network(), data()
    found = diagnose(model, x, y, max_width=5)
    assert found.layers["conv"].width == 5
    assert "a random sample of 5 of 8 filters" in str(found)
    assert len(found.layers["conv"].useless) == len(diagnose(model, x, y).layers["conv"].useless)


def test_a_data_set_gives_the_same_and_the_model_stays_as_it_is():
    model, (x, y) = network(), data()
    before = model.get_weights()
    by_arrays = diagnose(model, x, y, batch_size=16)
    by_batches = diagnose(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(16))
    assert by_arrays.to_dict() == by_batches.to_dict()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("activation", ["relu", "tanh"])  # TensorFlow's relu makes 0 of NaN
def test_a_diverged_network_is_said_to_be_one(activation):
    model, (x, y) = network(), data()
    model.get_layer("dense").activation = keras.activations.get(activation)
    kernel = model.get_layer("dense").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    assert "of conv, dense are not finite: training has diverged" in diagnose(model, x, y).verdict


def test_metrics_stay_and_batches_of_all_lengths_take_one_trace():
    traces = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            traces.append(None)
            return x

    inputs = keras.Input((6, 6, 2))
    x = Counted()(layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs)))
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(x) for name in ("a", "b")})
    model.compile("sgd", "mse")
    x, y = data()
    y = {name: y.astype("float32") for name in ("a", "b")}
    model.fit(x, y, verbose=0)
    before = model.get_metrics_result()
    find_filter_layers(model, ".*")
    traces.clear()
    find_filter_layers(model, ".*")
    to_find = len(traces)
    assert diagnose(model, x, y, batch_size=16).examples == 40
    assert len(traces) == 2 * to_find + 1
    assert model.get_metrics_result() == before
    score_filters(model, x, y)
    assert model.get_metrics_result() == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"y": np.zeros(39)}, ValueError, "one row per example. Received: 39 and 40 rows"),
        ({"x": [[1.0, 2.0]]}, TypeError, "x must be arrays, .* Received: list of float"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a whole number, 1 or more"),
        ({"max_width": 0}, ValueError, "max_width must be a whole number, 1 or more"),
        ({"layers": "("}, ValueError, "layers must be a regular expression or a list of"),
        ({"layers": 3}, ValueError, "layers must be a regular expression or a list of"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(options, error, message):
    x, y = data()
    with pytest.raises(error, match=message):
        diagnose(**{"model": network(), "x": x, "y": y} | options)


def test_the_result_is_plain_data_and_reads_as_text_and_html():
    model, (x, y) = network(), data()
    found = diagnose(model, x, y)
    json.dumps(found.to_dict())
    assert repr(found) == str(found)
    assert "conv" in str(found)
    assert "<table>" in found._repr_html_()
    assert "\x1b" not in str(found)


def test_float16_gradients_that_overflow_the_first_loss_scale_are_measured_by_a_lower_one():
    x, y = data(256)
    x *= 3
    measured, scale = {}, None
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        image = keras.Input((6, 6, 2))
        conv = layers.Conv2D(8, 3, activation="relu", name="conv", dtype=policy)
        flat = layers.Flatten(dtype=policy)(conv(image))
        model = keras.Model(image, layers.Dense(4, name="logits", dtype="float32")(flat))
        optimizer = keras.optimizers.SGD()
        if policy == "mixed_float16":
            optimizer = scale = keras.optimizers.LossScaleOptimizer(optimizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        model.compile(optimizer, loss)
        diagnosed = diagnose(model, x, y).layers["conv"]
        measured[policy] = score_filters(model, x, y)["conv"], diagnosed.gradient_norm
    np.testing.assert_allclose(measured["mixed_float16"][0], measured["float32"][0], rtol=0.02)
    np.testing.assert_allclose(measured["mixed_float16"][1], measured["float32"][1], rtol=0.02)
    assert scale.scale_loss(1.0) == 2**15  # the optimizer's own scale stays


class WithFewArguments(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight)


def test_a_compute_loss_without_training_is_called_as_fit_calls_it():
    plain, (x, y) = network(), data()
    model = WithFewArguments(plain.inputs, plain.outputs)
    model.compile("sgd", plain.loss)
    expected = 2 * score_filters(plain, x, y)["conv"]
    np.testing.assert_allclose(score_filters(model, x, y)["conv"], expected, rtol=1e-5)
    assert diagnose(model, x, y).layers["conv"].gradient_norm > 0


def test_losses_of_several_reductions_leave_useless_filters_unknown():
    plain, (x, y) = network(), data()
    outputs = [plain.outputs[0], layers.Dense(1, name="values")(plain.get_layer("dense").output)]
    model = keras.Model(plain.inputs, outputs)
    model.compile("sgd", [plain.loss, keras.losses.MeanSquaredError(reduction="sum")])
    diagnosis = diagnose(model, x, [y, y])
    assert diagnosis.layers["conv"].useless is None
    assert "All losses must have one reduction" in diagnosis.notes[0]


def test_a_layer_without_a_gradient_is_named_and_the_others_are_known():
    plain, (x, y) = network(), data()
    behind = layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 3, name="b")(plain.inputs[0])))
    model = keras.Model(plain.inputs, [plain.outputs[0], behind])
    model.compile("sgd", [plain.loss, None])
    diagnosis = diagnose(model, x, [y, None])
    assert diagnosis.layers["b"].useless is None
    assert "useless filters are not known" not in diagnosis.verdict
    assert "b has no score: no gradient of the loss reaches it." in diagnosis.notes


class OneHot(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv1D(8, 3, activation="relu", name="conv1d")
        self.out = layers.Dense(3)

    def call(self, x):
        return self.out(tf.reduce_mean(self.conv(tf.one_hot(x, 10)), 1))


def test_a_built_subclass_is_traced_by_the_data_whose_dtype_it_does_not_know():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 10, (20, 12)), rng.integers(0, 3, 20)
    model = OneHot()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    restart = PartialRestart(
        fraction=0.25, when=EveryEpochs(1, monitor="loss"), max_restarts=1, stop_on_repeat=False
    )
    for _ in range(2):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[restart])
        assert len(restart.events) == 1
    assert score_filters(model, x, y)["conv1d"].shape == (8,)
    assert list(diagnose(model, x, y).layers) == ["conv1d"]

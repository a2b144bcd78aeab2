"""Remedies draw what the layers' own initializers draw, and reset what belongs to it."""

import random

import keras
import numpy as np
import pytest
from keras import layers

from kerasrestart.network.describe import describe
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.remedies import ResetLayer, ResetModel, ResetOptimizer, ShrinkAndPerturb
from kerasrestart.restart.reset_layers import (
    reset_layer,
    reset_model,
    reset_optimizer,
    shrink_and_perturb,
)
from kerasrestart.restart.select import BelowMean
from kerasrestart.restart.tensorboard import RestartTensorBoard
from kerasrestart.restart.when import EveryEpochs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, 16)


def trained(optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="logits", kernel_initializer="he_uniform"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, run_eagerly=True)
    for _ in range(2):  # without a graph and a dataset, which take longer to make than to use
        model.train_on_batch(X, Y)
    return model


def slots_of(model, layer):
    optimizer = model.optimizer
    paths = [v.path for v in optimizer._trainable_variables]
    chosen = [i for i, path in enumerate(paths) if path.split("/")[-2] == layer]
    return [np.asarray(s[i]) for s in (optimizer._momentums, optimizer._velocities) for i in chosen]


def values(model):
    return {v.path: np.asarray(v) for v in [*model.variables, *model.optimizer.variables]}


def test_a_head_is_reset_with_its_slots_and_all_else_stays():
    model = trained()
    before = values(model)
    reset_layer(model, "logits", seed=3)
    kernel, bias = model.get_layer("logits").get_weights()
    assert np.abs(kernel).max() <= np.sqrt(6 / 4)  # He uniform
    assert (kernel != before[model.get_layer("logits").kernel.path]).all()
    assert not bias.any()
    assert not any(slot.any() for slot in slots_of(model, "logits"))
    assert all(slot.any() for slot in slots_of(model, "conv"))
    for path, value in values(model).items():
        if "logits" not in path:
            np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_the_norm_of_a_convolution_is_reset_with_it():
    model = trained()
    reset_layer(model, ["conv"])
    expected = (1, 0, 0, 1)  # gamma, beta, moving mean, moving variance
    for value, initial in zip(model.get_layer("norm").get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, np.full(4, initial))
    assert not any(slot.any() for slot in slots_of(model, "norm"))


def test_weights_are_a_function_of_the_seed():
    kernels = []
    for seed in (1, 1, 2):
        model = trained()
        reset_layer(model, "logits", seed=seed)
        kernels.append(model.get_layer("logits").get_weights()[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()


class WithoutASeed(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="glorot_uniform")

    def call(self, x):
        return x @ self.kernel


def test_an_initializer_without_a_seed_is_a_function_of_the_seed_too():
    model = keras.Sequential([keras.Input((4,)), WithoutASeed(name="own"), layers.Dense(1)])
    drawn = []
    for seed in (1, 1, 2):
        before = random.getstate()
        reset_layer(model, "own", seed=seed)
        assert random.getstate() == before
        drawn.append(np.array(model.get_layer("own").kernel))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).all()


def test_a_model_is_reset_whole_but_for_frozen_layers_and_the_learning_rate():
    model = trained()
    model.get_layer("conv").trainable = False
    conv = model.get_layer("conv").get_weights()[0]
    logits = model.get_layer("logits").get_weights()[0]
    reset_model(model, seed=1)
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], conv)
    assert (model.get_layer("logits").get_weights()[0] != logits).all()
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean, np.zeros(4))
    assert int(model.optimizer.iterations) == 0
    assert float(model.optimizer.learning_rate) == np.float32(0.01)


def test_an_optimizer_takes_its_next_step_as_a_new_one_does():
    model = trained(keras.optimizers.Nadam(0.01))
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.compile(keras.optimizers.Nadam(0.01), model.loss, run_eagerly=True)
    reset_optimizer(model)
    for one in (model, twin):
        one.fit(X, Y, epochs=1, batch_size=8, shuffle=False, verbose=0)
    for value, expected in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_shrink_and_perturb_scales_weights_and_adds_noise_of_the_given_deviation():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((100,)), layers.Dense(100)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 100)), np.ones((4, 100)), verbose=0)
    before = model.get_weights()[0]
    shrink_and_perturb(model, 0.4, 0.01, seed=5)
    noise = model.get_weights()[0] - 0.4 * before
    assert abs(noise.mean()) < 5e-4
    assert abs(noise.std() - 0.01) < 3e-4
    assert not any(np.asarray(slot).any() for slot in model.optimizer._momentums)


def test_the_callback_resets_the_head_after_each_round():
    model = trained()
    head = PartialRestart(
        when=EveryEpochs(1, monitor="loss"), reset=ResetLayer("logits"), max_restarts=2
    )
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[head])
    names = [event.initializer for event in head.events]
    assert names == ["remedy ResetLayer(layers='logits')"] * 2
    assert "Applied ResetLayer(layers='logits'); learning rate reset" in head.events[0].summary()
    assert [event.layers for event in head.events] == [{}, {}]


def dense():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3, name="out")]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("when", [EveryEpochs(1, monitor="loss"), EverySteps(2)], ids=repr)
def test_a_remedy_needs_no_filters(tmp_path, when):
    model, kernels = dense(), []
    head = PartialRestart(
        when=when,
        reset=lambda model: kernels.append(model.get_layer("out").get_weights()[0]),
        max_restarts=2,
        observers=[RestartTensorBoard(tmp_path)],
    )
    model.fit(X, Y, epochs=4, batch_size=8, verbose=0, shuffle=False, callbacks=[head])
    twin, expected = dense(), []
    for _ in range(4):
        twin.fit(X, Y, epochs=1, batch_size=8, verbose=0, shuffle=False)
        expected.append(twin.get_layer("out").get_weights()[0])
    np.testing.assert_array_equal(kernels, expected[:2])  # seen at the right batch
    assert [event.layers for event in head.events] == [{}, {}]


@pytest.mark.parametrize("given", [{"select": BelowMean(0.1)}, {"fraction": 0.2}], ids=str)
def test_a_selection_beside_a_remedy_is_refused(given):
    with pytest.raises(ValueError, match=r"A remedy selects no filters: .* must be left out"):
        PartialRestart(reset=ResetLayer("logits"), **given)


def test_a_replacement_rate_beside_a_remedy_is_refused():
    with pytest.raises(ValueError, match="replacement_rate says how many filters"):
        PartialRestart(reset=ResetLayer("logits"), when=EverySteps(1, replacement_rate=0.1))


def test_the_callback_takes_a_function():
    seen = []
    restart = PartialRestart(when=EveryEpochs(1, monitor="loss"), reset=seen.append, max_restarts=2)
    model = trained()
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[restart])
    assert seen == [model, model]


def test_what_was_learned_of_the_data_and_quantized_kernels_stay():
    normalization = layers.Normalization()
    normalization.adapt(np.array([[1.0, 5.0], [3.0, 9.0]]))
    quantized = layers.Dense(3, name="quantized")
    model = keras.Sequential(
        [keras.Input((2,)), normalization, quantized, layers.Dense(1, name="logits")]
    )
    quantized.quantize("int8")
    before = [np.array(v) for v in (*normalization.weights, *quantized.weights)]
    head = np.array(model.get_layer("logits").kernel)
    reset_model(model, seed=1)
    after = [np.array(v) for v in (*normalization.weights, *quantized.weights)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert (np.array(model.get_layer("logits").kernel) != head).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reset_layer(trained(), []), "layers must be the name of a layer, or several"),
        (lambda: ResetLayer(3), "layers must be the name of a layer, or several. Received: 3"),
        (lambda: PartialRestart(reset=ResetLayer), "reset must be a Reset, a remedy such as"),
        (lambda: PartialRestart(reset="uniform"), "reset must be a Reset, a remedy such as"),
        (lambda: reset_layer(trained(), "head"), "has no layer of that name. Received: 'h"),
        (lambda: ShrinkAndPerturb(2, 0.1), "shrink must be a number between 0 and 1"),
        (lambda: PartialRestart(reset=ResetLayer("x"), control="none"), "A control re-init"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("remedy", [reset_model, reset_optimizer])
def test_what_is_no_model_is_refused(remedy):
    with pytest.raises(TypeError, match="model must be a Keras 3 model"):
        remedy("model")


class Towers(keras.Model):
    def __init__(self):
        super().__init__()
        convs = [layers.Conv2D(2, 3, name="same") for _ in range(2)]
        self.left, self.right = (
            keras.Sequential([conv], name=name)
            for conv, name in zip(convs, ("left", "right"), strict=True)
        )
        self.head = layers.Dense(3, name="logits")

    def call(self, x):
        return self.head(keras.ops.mean(self.left(x) + self.right(x), (1, 2)))


def test_layers_are_named_as_describe_names_them():
    model = Towers()
    model(X)
    assert all(key in str(describe(model)) for key in ("left/same", "right/same"))
    before = {id(v): np.asarray(v) for v in model.variables}
    reset_layer(model, "right/same", seed=1)
    changed = [v.path for v in model.variables if (np.asarray(v) != before[id(v)]).any()]
    assert changed == [model.right.layers[0].kernel.path]
    with pytest.raises(ValueError, match=r"'left/same'.*'right/same'.* has 2 layers of that name"):
        reset_layer(model, "same")


class WithoutAConfig(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)
        self.gain = self.add_weight(shape=(units,), initializer="ones")

    def call(self, x):
        return self.dense(x) * self.gain


def test_a_layer_that_cannot_be_made_again_is_named_in_one_line_and_nothing_changes():
    model = keras.Sequential([keras.Input((4,)), WithoutAConfig(3)])
    before = model.get_weights()
    with pytest.raises(ValueError, match="cannot be made again from its config: ") as raised:
        reset_model(model)
    assert "\n" not in str(raised.value)
    for value, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("remedy", [ResetOptimizer(), ShrinkAndPerturb(0.5, 0.01)], ids=repr)
def test_weights_that_an_average_is_swapped_for_stay(remedy):
    # At the start of an epoch the model has its averages, and the optimizer the weights.
    means = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: means.append(
            np.abs(model.get_layer("out").kernel).mean()
        )
    )
    model = dense()
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), model.loss)
    restart = PartialRestart(reset=remedy, when=EveryEpochs(1, monitor="loss"), max_restarts=1)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[restart, swap, watch])
    assert len(restart.events) == 1
    assert min(means) > 0.4 * means[0]


class WithoutAConfigOfItsOwn(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


@pytest.mark.parametrize("rate", [WithoutAConfigOfItsOwn(), lambda: 0.01], ids=["class", "lambda"])
def test_a_schedule_needs_no_config(rate):
    model = dense()
    model.compile(keras.optimizers.Adam(rate), model.loss)
    model.fit(X, Y, verbose=0, callbacks=[PartialRestart(monitor="loss", reset=ResetModel())])
    reset_model(model)
    shrink_and_perturb(model, 0.5, 0.01)
    assert int(model.optimizer.iterations) == 0
    model.fit(X, Y, epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == 1


def test_a_wrong_layer_is_found_before_training():
    model = dense()
    head = PartialRestart(when=EveryEpochs(1, monitor="loss"), reset=ResetLayer("logit"))
    with pytest.raises(ValueError, match=r"has no layer of that name\. Received: 'logit'"):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[head])
    assert int(model.optimizer.iterations) == 0


def test_filters_and_a_layer_are_restarted_in_one_fit():
    model, when = trained(), EveryEpochs(1, monitor="loss")
    filters = PartialRestart(fraction=0.25, when=when, max_restarts=2, stop_on_repeat=False)
    head = PartialRestart(reset=ResetLayer("logits"), when=when, max_restarts=2)
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[filters, head])
    assert len(filters.events) == len(head.events) == 2

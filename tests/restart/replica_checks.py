"""Checks of training on several replicas; run by `test_replicas` in a process of its own.

One machine is split into four logical devices, which must be done before TensorFlow begins.
Prints the result of each check as JSON: an empty text, or the error.
"""

from __future__ import annotations

import functools
import json
import os
import traceback

# Its convolutions give an empty batch the shape of their input.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.experiments.run.layer_rates import with_two_rates

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@functools.cache
def devices(count):
    # Two strategies in one process cannot both have collectives of their own.
    reduction = None if count == 2 else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(count)], reduction)


def network(optimizer=None, norm=False, synchronized=True, reduction="sum_over_batch_size"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, kernel_regularizer="l2", bias_initializer="normal", name="first")(
        inputs
    )
    if norm:
        x = layers.BatchNormalization(name="norm", synchronized=synchronized)(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(6, 3, activation="relu", name="second")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model.compile(
        optimizer() if optimizer else keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction),
        metrics=["accuracy"],
    )
    return model


def on(strategy, **options):
    if strategy is None:
        return network(**options)
    with strategy.scope():
        return network(**options)


random = np.random.default_rng(0)
images = random.normal(size=(37, 6, 6, 2)).astype("float32")
labels = random.integers(0, 3, 37).astype("int32")
# The last batch of 16 has 5 examples: unequal parts, and with four devices none for the last.
UNEQUAL = 37
# The last batch of 16 has one example: no part for the second of two devices.
EMPTY = 33


def batches(examples=UNEQUAL):
    data = tf.data.Dataset.from_tensor_slices((images[:examples], labels[:examples]))
    return data.batch(16)


def trained(model, criterion="taylor", epochs=3, examples=UNEQUAL, **arguments):
    restart = kr.PartialRestart(
        criterion=criterion,
        fraction=0.3,
        when=kr.EveryEpochs(1, monitor="loss", recovery_epochs=0),
        max_restarts=2,
        stop_on_repeat=False,
        **arguments,
    )
    model.fit(batches(examples), epochs=epochs, verbose=0, callbacks=[restart])
    return restart


def compare(
    strategy,
    criterion="taylor",
    optimizer=None,
    norm=False,
    reduction="sum_over_batch_size",
    **arguments,
):
    """Three epochs with two restarts, on one device and on several."""
    ways = {}
    for name, of in (("one", None), ("several", strategy)):
        model = on(of, optimizer=optimizer, norm=norm, reduction=reduction)
        restart = trained(model, criterion, **arguments)
        ways[name] = model, restart
    (one, first), (several, second) = ways.values()
    assert len(first.events) == 2
    for a, b in zip(first.events, second.events, strict=True):
        for layer in a.layers:
            assert a.layers[layer].filters == b.layers[layer].filters, layer
            np.testing.assert_allclose(a.layers[layer].scores, b.layers[layer].scores, **CLOSE)
        if reduction != "sum":  # of which Keras logs a multiple under a strategy
            assert abs(a.metrics_before["loss"] - b.metrics_before["loss"]) < 1e-4
    for a, b in zip(one.variables, several.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), **CLOSE, err_msg=a.path)
    for a, b in zip(one.optimizer.variables, several.optimizer.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), **CLOSE, err_msg=a.path)
    check_alike(several)


def check_alike(model, but=None):
    """All replicas hold the same numbers, bit for bit."""
    for variable in (*model.variables, *model.optimizer.variables):
        if but and but in variable.path:
            continue
        held = model.distribute_strategy.experimental_local_results(variable.value)
        for other in held[1:]:
            np.testing.assert_array_equal(held[0].numpy(), other.numpy(), err_msg=variable.path)


def four_devices_as_one_with_an_empty_part():
    compare(devices(4))


def slots_and_outgoing_weights_as_one():
    compare(
        devices(2),
        "magnitude",
        optimizer=lambda: keras.optimizers.Adam(0.01, use_ema=True),
        reset=kr.Reset(outgoing="zero", second_moment="survivors"),
    )


def criterion_of_gradients_with_an_empty_part():
    model = on(devices(2))
    restart = trained(model, "taylor_weight", examples=EMPTY)
    assert len(restart.events) == 2
    check_alike(model)


def batch_norm_and_sums_as_one():
    compare(devices(2), norm=True, reduction="sum", optimizer=lambda: keras.optimizers.SGD(0.002))


def a_restart_leaves_each_replica_its_own_statistics():
    model = on(devices(2), norm=True, synchronized=False)
    trained(model, epochs=1)
    norm, results = model.get_layer("norm"), model.distribute_strategy.experimental_local_results
    before = [own.numpy() for own in results(norm.moving_mean.value)]
    assert (before[0] != before[1]).all()
    kr.restart_filters(model, {"first": [0, 3]})
    for old, own in zip(before, results(norm.moving_mean.value), strict=True):
        np.testing.assert_array_equal(own.numpy(), np.where([1, 0, 0, 1, 0], 0, old))
    check_alike(model, but="moving")


def compare_callbacks(strategy, make, examples=UNEQUAL):
    """Three epochs of three batches with a callback, on one device and on several."""
    ways = []
    for of in (None, strategy):
        model, restart = on(of), make()
        model.fit(batches(examples), epochs=3, verbose=0, callbacks=[restart])
        ways.append((model, restart))
    (one, first), (several, second) = ways
    assert first.events
    for a, b in zip(first.events, second.events, strict=True):
        assert a.step == b.step
        for layer in a.layers:
            assert a.layers[layer].filters == b.layers[layer].filters, (a.step, layer)
            np.testing.assert_allclose(a.layers[layer].scores, b.layers[layer].scores, **CLOSE)
    for a, b in zip(one.variables, several.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), **CLOSE, err_msg=a.path)
    check_alike(several)


def between_batches_as_one_with_an_empty_part():
    compare_callbacks(
        devices(2),
        lambda: kr.PartialRestart(
            when=kr.EverySteps(2, replacement_rate=0.1, maturity=1, decay=0.8),
            reset=kr.Reset("he_uniform", outgoing="zero", compensate_bias=True),
            layers=".*",
        ),
        EMPTY,
    )


def filters_dropped_for_an_epoch_as_one():
    compare_callbacks(
        devices(2),
        lambda: kr.PartialRestart.preset(
            "repr",
            when=kr.EveryEpochs(1, monitor="loss"),
            reset=kr.Reset("orthogonal_to_survivors", outgoing="zero", drop_epochs=1),
        ),
    )


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return -(-len(images) // 9)

    def __getitem__(self, number):
        part = slice(9 * number, 9 * number + 9)
        return images[part], labels[part]


def filters_scored_after_training():
    # The last batch of 9 has one example, too.
    nines = tf.data.Dataset.from_tensor_slices((images, labels)).batch(9)
    of_unknown_length = nines.filter(lambda *batch: True)
    kinds = ((images, labels), (nines,), (of_unknown_length,), (Batches(),))
    one, several = network(), on(devices(2))
    for criterion, forms in (("taylor", kinds), ("activation", kinds[2:3]), ("magnitude", [()])):
        for x in forms:
            scores, others = (
                kr.score_filters(of, *x, criterion=criterion) for of in (one, several)
            )
            for layer, of_layer in scores.items():
                np.testing.assert_allclose(of_layer, others[layer], **CLOSE)


def a_lower_learning_rate_for_some_weights_as_one():
    def weights(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = keras.Sequential([keras.Input((72,)), layers.Dense(4), layers.Dense(3)])
            slow = model.layers[0].variables
            optimizer = with_two_rates(keras.optimizers.Adam(0.1), slow, 0.1)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer, loss)
        x = images[:24].reshape(24, -1)
        model.fit(x, labels[:24], batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    ways = weights(tf.distribute.get_strategy()), weights(devices(2))
    for one, several in zip(*ways, strict=True):
        np.testing.assert_allclose(one, several, atol=1e-4)


class Adversaries(keras.Model):
    """Two networks, each with an optimizer of its own, that the step alone shows."""

    def __init__(self, norm):
        super().__init__()
        self.maker = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(5, 3, padding="same", use_bias=False, name="make"),
                *norm,
                layers.ReLU(),
                layers.Conv2D(4, 3, padding="same", activation="tanh", name="last"),
                layers.Conv2D(2, 3, padding="same"),
            ]
        )
        self.judge = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(6, 3, activation="relu", name="judge"),
                layers.Flatten(),
                layers.Dense(1),
            ]
        )
        self.by_maker, self.by_judge = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)
        self.entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        self.built = True  # or Keras wants a call

    def train_step(self, data):
        real, _ = data
        weights = self.judge.trainable_weights
        with tf.GradientTape() as tape:
            first, second = self.judge(real), self.judge(self.maker(real[..., ::-1]))
            loss = self.entropy(tf.ones_like(first), first)
            loss += self.entropy(tf.zeros_like(second), second)
        self.by_judge.apply(tape.gradient(loss, weights), weights)
        weights = self.maker.trainable_weights
        with tf.GradientTape() as tape:
            made = self.judge(self.maker(real[..., ::-1], training=True))
            fooled = self.entropy(tf.ones_like(made), made)
        self.by_maker.apply(tape.gradient(fooled, weights), weights)
        return {"loss": loss}


def a_step_of_a_models_own_as_one(norm=()):
    ways = []
    for strategy in (tf.distribute.get_strategy(), devices(2)):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = Adversaries([of(**options) for of, options in norm])
            model.compile()
        restart = kr.PartialRestart(
            fraction=0.3, when=kr.EveryEpochs(1, monitor="loss"), max_restarts=1
        )
        data = (images[:32], labels[:32])
        model.fit(*data, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[restart])
        ways.append((model, restart.events[0].layers))
    (one, first), (several, second) = ways
    for name in ("make", "last", "judge"):
        np.testing.assert_allclose(first[name].scores, second[name].scores, **CLOSE)
        assert first[name].filters == second[name].filters
    for a, b in zip(one.variables, several.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5, err_msg=a.path)


def a_step_with_a_norm_over_all_replicas_as_one():
    a_step_of_a_models_own_as_one([(layers.BatchNormalization, {"synchronized": True})])


CHECKS = [
    four_devices_as_one_with_an_empty_part,
    slots_and_outgoing_weights_as_one,
    criterion_of_gradients_with_an_empty_part,
    batch_norm_and_sums_as_one,
    a_restart_leaves_each_replica_its_own_statistics,
    between_batches_as_one_with_an_empty_part,
    filters_dropped_for_an_epoch_as_one,
    filters_scored_after_training,
    a_lower_learning_rate_for_some_weights_as_one,
    a_step_of_a_models_own_as_one,
    a_step_with_a_norm_over_all_replicas_as_one,
]

if __name__ == "__main__":
    # Rewriting graphs takes time, as in tests/conftest.py.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    outcomes = {}
    for check in CHECKS:
        try:
            check()
            outcomes[check.__name__] = ""
        except Exception:
            outcomes[check.__name__] = traceback.format_exc()
    print(json.dumps(outcomes))

"""Steps that apply weights which they have updated, as MAML does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart import PartialRestart
from kerasrestart.network.filter_layers import find_filter_layers

X, Y = np.random.default_rng(0).random((6, 8, 8, 1)).astype("float32"), np.arange(6) % 2
REASON = "has weights that an inner loop updates and applies without the layer"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def applied(x, weights):
    """The network as a function of its weights."""
    kernel, bias, units, shift = weights
    x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias)
    return tf.matmul(tf.reduce_mean(x, [1, 2]), units) + shift


class Meta(keras.Model):
    """One step of an inner loop, and the loss of what it leads to."""

    def __init__(self, inner, outer):
        super().__init__(name="meta")
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.out = layers.Dense(2, name="out")
        self.pool = layers.GlobalAveragePooling2D()
        self.inner, self.outer = inner, outer

    def call(self, x):
        return self.out(self.pool(self.conv(x)))

    def train_step(self, data):
        x, y = data
        values = [variable.value for variable in self.trainable_variables]
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = LOSS(y, self.inner(self, x, values))
            gradients = inner.gradient(loss, values)
            loss = LOSS(y, self.outer(self, x, values, gradients))
        gradients = outer.gradient(loss, values)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def by_layers(model, x, values):
    return model(x, training=True)


def by_weights(model, x, values):
    return applied(x, values)


def updated(values, gradients):
    return [value - 0.1 * gradient for value, gradient in zip(values, gradients, strict=True)]


def fast_weights(model, x, values, gradients):
    return applied(x, updated(values, gradients))


def clipped_in_two_steps(model, x, values, gradients):
    first = updated(values, gradients)
    with tf.GradientTape() as tape:
        tape.watch(first)
        loss = tf.reduce_sum(applied(x, first) ** 2)
    steps = [tf.clip_by_norm(gradient, 1.0) for gradient in tape.gradient(loss, first)]
    return applied(x, updated(first, steps))


def by_stateless_call(model, x, values, gradients):
    return model.stateless_call(updated(values, gradients), [], x)[0]


def same_weights(model, x, values, gradients):
    return applied(x, values)


def adversarial(model, x, values, gradients):
    """Another inner gradient, by the input, which leaves the weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model(x) ** 2)
    return model(x + 0.1 * tf.sign(tape.gradient(loss, x)))


def modulated(model, x, values, gradients):
    """Weights that the data change, and no gradient."""
    return model(x) + applied(x, [tf.reduce_mean(x) * values[0], *values[1:]])


def penalty(model, x, values, gradients):
    """Weights and their gradients in the loss, applied to nothing."""
    products = [tf.reduce_sum(v * g) for v, g in zip(values, gradients, strict=True)]
    return model(x) + tf.add_n(products)


def model_of(inner, outer):
    model = Meta(inner, outer)
    model(X)
    model.compile("sgd")
    return model


@pytest.mark.parametrize("outer", [fast_weights, clipped_in_two_steps])
@pytest.mark.parametrize("inner", [by_layers, by_weights])
def test_layers_whose_updated_weights_are_applied_without_them_are_named_so(inner, outer):
    model = model_of(inner, outer)
    with pytest.raises(ValueError, match=f"no filters to restart: conv {REASON}; out {REASON}"):
        find_filter_layers(model, ".*", data=(X, Y))
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"conv {REASON}"):
        model.fit(X, Y, verbose=0, callbacks=[PartialRestart(monitor="loss")])
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_layers_inside_a_model_are_named_so_too():
    """Else they would be watched, by scores without the pass that is applied."""
    net = model_of(by_layers, fast_weights)
    nested = Meta(lambda model, x, values: net(x, training=True), fast_weights)
    nested.conv = net
    nested.call = net.call
    nested.compile("sgd")
    with pytest.raises(ValueError, match=f"conv {REASON}"):
        find_filter_layers(nested, data=(X, Y))


def test_layers_that_are_called_with_updated_weights_are_watched():
    found = find_filter_layers(model_of(by_layers, by_stateless_call), data=(X, Y))
    assert REASON not in str(found.left_out)


@pytest.mark.parametrize("outer", [adversarial, penalty, modulated])
def test_an_inner_gradient_that_updates_no_weights_is_not_taken_for_one(outer):
    found = find_filter_layers(model_of(by_layers, outer), data=(X, Y))
    assert REASON not in str(found.left_out)


def test_layers_whose_weights_are_applied_without_a_call_are_named_with_what_reads_them():
    model = model_of(by_weights, same_weights)
    message = r"conv is not called: its weights are read by a convolution, a sum; out is "
    with pytest.raises(ValueError, match=message):
        find_filter_layers(model, ".*", data=(X, Y))

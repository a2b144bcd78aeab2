"""The probe changes no value and no gradient, hears what a tape computes, and is not kept."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from kerasrestart.network.hooks import hooked
from kerasrestart.scoring.probe import probe

X = tf.constant([[1.0, -2.0], [3.0, 4.0]])


def gradients_of(step, in_graph):
    """What a step returns, and what its probe heard."""
    heard = []

    def run():
        return step(heard.append), [tf.identity(gradient) for gradient in heard]

    returned, heard_in_graph = (tf.function(run) if in_graph else run)()
    return returned, heard_in_graph


@pytest.mark.parametrize("in_graph", [False, True])
def test_gradient_is_heard_and_passed_on(in_graph):
    def step(report):
        with tf.GradientTape() as tape:
            tape.watch(X)
            y = tf.reduce_sum(probe(X * X, report) * [1.0, 10.0])
        return tape.gradient(y, X)

    gradient, heard = gradients_of(step, in_graph)
    np.testing.assert_array_equal(gradient, 2 * X * [1.0, 10.0])
    np.testing.assert_array_equal(heard, [[[1.0, 10.0]] * 2])


@pytest.mark.parametrize("in_graph", [False, True])
def test_nothing_is_heard_where_no_gradient_passes(in_graph):
    def step(report):
        with tf.GradientTape() as tape:
            tape.watch(X)
            y = tf.reduce_sum(tf.stop_gradient(probe(X * X, report)) + X)
        return tape.gradient(y, X)

    gradient, heard = gradients_of(step, in_graph)
    np.testing.assert_array_equal(gradient, tf.ones((2, 2)))
    assert not heard


def test_a_gradient_of_zeros_is_heard():
    def step(report):
        with tf.GradientTape() as tape:
            tape.watch(X)
            y = tf.reduce_sum(tf.nn.relu(probe(-tf.abs(X), report)))
        return tape.gradient(y, X)

    _, heard = gradients_of(step, in_graph=True)
    np.testing.assert_array_equal(heard, tf.zeros((1, 2, 2)))


def test_second_derivatives_pass_through():
    heard = []
    with tf.GradientTape() as outer:
        outer.watch(X)
        with tf.GradientTape() as inner:
            inner.watch(X)
            y = tf.reduce_sum(probe(X * X, heard.append) ** 2)
        first = inner.gradient(y, X)
    np.testing.assert_allclose(first, 4 * X**3)
    np.testing.assert_allclose(outer.gradient(first, X), 12 * X**2)


def test_sparse_gradients_are_heard_as_dense_ones():
    heard = []
    with tf.GradientTape() as tape:
        tape.watch(X)
        y = tf.reduce_sum(tf.gather(probe(X * X, heard.append), [1, 1]))
    np.testing.assert_array_equal(tape.gradient(y, X), [[0, 0], [12, 16]])
    np.testing.assert_array_equal(heard, [[[0, 0], [2, 2]]])


def test_a_loop_trains_through_a_probe():
    heard = []

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(
                lambda n, _: n < 3, lambda n, y: (n + 1, probe(y * y, heard.append)), (0, x)
            )
        return tape.gradient(y, x)

    np.testing.assert_allclose(step(tf.constant(1.1)), 8 * 1.1**7, rtol=1e-5)
    assert not heard


def test_the_graph_of_a_trace_is_not_kept():
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(probe(x * x, lambda gradient: tf.abs(gradient)))
        return tape.gradient(y, x)

    gc.freeze()  # what earlier tests left is not collected here
    graph = weakref.ref(step.get_concrete_function(X).graph)
    assert graph() is not None
    del step
    gc.collect()
    assert graph() is None


def double(call, args, kwargs):
    return 2 * call(*args, **kwargs)


class Thing:
    def call(self, x):
        return x + 1


def test_hooks_nest_and_leave_nothing_behind():
    thing = Thing()
    with hooked([(thing, double)]):
        with hooked([(thing, double)]):
            assert thing.call(1) == 8
            with pytest.raises(TypeError):
                thing.call("not a number")
        assert thing.call(1) == 4
    assert thing.call(1) == 2
    assert not vars(thing)


def test_a_method_of_the_instance_is_given_back():
    thing = Thing()
    thing.call = own = lambda x: x + 5
    with hooked([(thing, double)]):
        assert thing.call(1) == 12
    assert thing.call is own

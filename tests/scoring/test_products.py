"""What the product of a map and its gradient reads, and when it is computed."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrestart.network.raw_operations import OUTPUT_GRADIENTS
from kerasrestart.scoring.products import product_of
from kerasrestart.scoring.step_record import ACTIVATIONS

# Those of which TensorFlow has an operation for the gradient.
FUNCTIONS = {name: made for name, made in ACTIVATIONS.items() if name in OUTPUT_GRADIENTS}


def product(function, loss, dtype="float32"):
    """The operation that makes the product, and the product beside the formula in float64."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(0, 4, (6, 5, 5, 4)), dtype)
    found = []

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = function(x)
            tape.watch(z)
            target = tf.reduce_sum(loss(z, x))
        gradient, _ = tape.gradient(target, [z, x])
        result = product_of(z, gradient)
        found.append((result.op, gradient))
        return z, gradient, result

    z, gradient, result = (of.numpy() for of in step())
    assert result.dtype == np.float32
    expected = z.astype("float64") * gradient.astype("float64")
    assert np.abs(expected).max() > 0.1
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    return found[-1]


def cubed(z, x):
    del x
    return z**3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_of_an_activation_function_can_overwrite_what_it_reads(name):
    operation, gradient = product(FUNCTIONS[name], cubed)
    if name == "Relu":
        assert operation.inputs[1].op.type == "ReluGrad"
        assert not operation.control_inputs
    else:
        assert operation.inputs[1] is gradient
        assert [one.type for one in operation.control_inputs] == [f"{name}Grad"]


def test_without_an_activation_function_there_is_nothing_to_wait_for():
    operation, gradient = product(lambda x: 2 * x, cubed)
    assert operation.inputs[1] is gradient
    assert not operation.control_inputs


def test_the_gradient_before_another_relu_is_not_taken():
    def twice(x):
        return tf.nn.relu(tf.nn.relu(x) - 1.0) - 0.5

    operation, gradient = product(twice, cubed)
    assert operation.inputs[1] is gradient


def test_the_gradient_before_a_relu_that_others_read_too_is_taken():
    operation, _ = product(tf.nn.relu, lambda z, x: z**2 + tf.tanh(z) + x)
    assert operation.inputs[1].op.type == "ReluGrad"


def test_of_two_relus_the_gradient_before_the_first_is_taken():
    operation, gradient = product(tf.nn.relu, lambda z, x: tf.nn.relu(z - 1.0) ** 3)
    assert gradient.op.type == "ReluGrad"
    assert operation.inputs[1].op.type == "ReluGrad"
    assert operation.inputs[1] is not gradient


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_of_half_precision_are_taken_in_full(name):
    product(FUNCTIONS[name], cubed, "float16")

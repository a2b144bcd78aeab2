"""Which tensors of a graph a feature map is scored by, so that training stays what it is."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kerasrestart.network.raw_operations import OUTPUT_GRADIENTS, SHAPES_ONLY
from kerasrestart.scoring.graph_tensors import is_made_by, is_of_channels, readers_of, source_of

SUMS = ("Add", "AddV2", "AddN")
# Of each, what gives the same finite values and is not merged with other operations.
PRODUCTS = {"Mul": tf.math.multiply_no_nan, "RealDiv": tf.math.divide_no_nan}
RELUS = ("Relu", "Relu6")
ACTIVATION_GRADIENTS = tuple(f"{name}Grad" for name in OUTPUT_GRADIENTS)


def scored_part(
    tensor: tf.Tensor,
    passed_on: tf.Tensor,
    gradient: tf.Tensor | None = None,
    *,
    activation: str | None = None,
    only_product: bool = False,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The values and the gradient that a feature map is scored by.

    They are those after the filters' activation function, where the gradient comes through it alone
    and the graph shows it: it need not be a layer. A ReLU that alone reads the map can overwrite
    it, and its own output is needed for the backward pass in any case. So where only the product
    with the gradient counts, that output is taken for any ReLU: the gradient is 0 wherever the two
    differ.

    Args:
        tensor: The feature map.
        passed_on: The same values, as the network reads them.
        gradient: The gradient by them. Defaults to None: there is none.
        activation: Type of the operation that is the filters' activation function, where no layer
            gives it. Defaults to None.
        only_product: Whether only the product of both counts. Defaults to False.
    """
    function = _only_activation(passed_on, gradient)
    if function is not None and function.type == activation:
        return function.outputs[0], gradient.op.inputs[OUTPUT_GRADIENTS[function.type]]
    if function is not None and function.type in RELUS and only_product:
        return function.outputs[0], gradient
    return _unshared(tensor, passed_on), gradient


def unshared_gradient(gradient: tf.Tensor | None) -> tf.Tensor | None:
    """A gradient without a second reader, where that would change training.

    A dropout multiplies the gradient that comes back to it by a constant, and the backward pass of
    a softplus multiplies that again: TensorFlow merges both products if the first has one reader.
    """
    if gradient is None:
        return None
    source = source_of(gradient)
    if not is_made_by(source, PRODUCTS) or _constant_factor(source.op) is None:
        return gradient
    if not any(reader.type in PRODUCTS for reader in readers_of(gradient)):
        return gradient
    return PRODUCTS[source.op.type](*source.op.inputs)


def _only_activation(tensor: tf.Tensor, gradient: tf.Tensor | None) -> tf.Operation | None:
    """The activation function through which all of the gradient by a tensor comes, if any."""
    if gradient is None or not is_made_by(gradient, ACTIVATION_GRADIENTS):
        return None
    functions = [one for one in readers_of(tensor) if f"{one.type}Grad" == gradient.op.type]
    if len(functions) != 1:
        return None
    # The operation for the gradient reads what the function reads, or its output.
    before_and_after = source_of(functions[0].inputs[0]), functions[0].outputs[0]
    read = [source_of(one) for one in gradient.op.inputs]
    return functions[0] if any(one is of for one in read for of in before_and_after) else None


def _unshared(tensor: tf.Tensor, passed_on: tf.Tensor) -> tf.Tensor:
    """The values of a feature map, without a second reader where that would change training.

    TensorFlow's graph optimizer merges the nodes of a sum of sums, such as the shift of a batch
    norm and the addition of a shortcut behind it, where each partial sum has one reader; and those
    of a product of products, such as a swish and the scale of the dropout behind it. With a second
    reader it associates them otherwise, and weights come out different in their last bits. So such
    a sum is computed once more, by an operation that is not merged with the first, and such a
    product is taken from what the scale makes of it.
    """
    readers = readers_of(passed_on)
    source = source_of(tensor)
    if is_made_by(source, PRODUCTS):
        scaled_back = (_scaled_back(reader, tensor.shape) for reader in readers)
        return next((values for values in scaled_back if values is not None), tensor)
    if not is_made_by(source, SUMS) or not any(reader.type in SUMS for reader in readers):
        return tensor
    return _sum_once_more(source)


def _scaled_back(operation: tf.Operation, shape: tf.TensorShape) -> tf.Tensor | None:
    """What a product by a constant was made of, from its result; None of other operations."""
    factor, scaled = _constant_factor(operation), operation.outputs[0]
    if factor is None or not np.all(tf.get_static_value(factor)):
        return None
    if scaled.shape.as_list() != shape.as_list():  # of one number the constant makes several
        return None
    return scaled / factor if operation.type == "Mul" else scaled * factor


def _sum_once_more(tensor: tf.Tensor) -> tf.Tensor:
    """A sum, made of the terms of sums that it alone reads: these must not get a second reader."""
    terms, stack = [], list(tensor.op.inputs)
    while stack:
        term = stack.pop()
        readers = [one for one in readers_of(term) if one.type not in SHAPES_ONLY]
        if is_made_by(term, SUMS) and len(readers) == 1:
            stack += term.op.inputs
        else:
            terms.append(term)
    shape, channels = tensor.shape.as_list(), tensor.shape[-1]
    whole = [term for term in terms if term.shape.as_list() == shape]
    biases = [term for term in terms if is_of_channels(term, channels)]
    if not whole or not channels:
        return tensor
    others = [term for term in terms if all(term is not one for one in (*whole, *biases))]
    whole += [tf.broadcast_to(term, tf.shape(whole[0])) for term in others]
    result = tf.add_n(whole) if len(whole) > 1 else whole[0]
    for bias in biases:
        result = tf.nn.bias_add(result, tf.reshape(bias, [channels]))
    return result


def _constant_factor(operation: tf.Operation) -> tf.Tensor | None:
    """By which constant an operation multiplies or divides, if it does."""
    if operation.type not in PRODUCTS:
        return None
    factors = operation.inputs if operation.type == "Mul" else operation.inputs[1:]
    constants = (source_of(factor) for factor in factors)
    return next((one for one in constants if one.op.type == "Const"), None)

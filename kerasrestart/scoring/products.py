"""The product of a feature map and its gradient, at the price in memory that it has to have."""

from __future__ import annotations

import tensorflow as tf

from kerasrestart.scoring.graph_tensors import is_made_by, readers_of, source_of
from kerasrestart.scoring.scored_part import ACTIVATION_GRADIENTS, unshared_gradient


def product_of(feature_map: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The product z * dC/dz, of which only sums count.

    On a CPU an activation function's gradient is written over dC/dz, unless another operation may
    still read that: then to new memory, which takes about half as long as this product.
    So the product leaves dC/dz alone: of a ReLU it reads the gradient before the ReLU, which
    differs from dC/dz only where z is 0; of others it waits, and is itself written over dC/dz.

    Args:
        feature_map: z, `[batch, ..., filters]`.
        gradient: dC/dz, same shape, of a backward pass that has ended.

    Returns:
        float32, same shape.
    """
    following = [one for one in readers_of(gradient) if one.type in ACTIVATION_GRADIENTS]
    for operation in following:
        if _is_gradient_before_relu(operation, gradient, feature_map):
            return _product(feature_map, operation.outputs[0])
    with tf.control_dependencies(following):
        return _product(feature_map, unshared_gradient(gradient))


def _is_gradient_before_relu(
    operation: tf.Operation, gradient: tf.Tensor, feature_map: tf.Tensor
) -> bool:
    """Whether a ReLU makes a feature map, and an operation the gradient before it of that after."""
    z = source_of(feature_map)
    if operation.type != "ReluGrad" or not is_made_by(z, ("Relu",)):
        return False
    after, activated = map(source_of, operation.inputs)
    return after is source_of(gradient) and activated is z


def _product(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.cast(one, tf.float32) * tf.cast(other, tf.float32)

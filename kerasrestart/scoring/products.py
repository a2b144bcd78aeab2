"""The product of a feature map and its gradient, at the price in memory that it has to have."""

from __future__ import annotations

import tensorflow as tf

from kerasrestart.scoring.scored_part import ACTIVATION_GRADIENTS, is_made_by, readers_of, source_of


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
    z, by_z = source_of(feature_map), source_of(gradient)
    following = [one for one in readers_of(gradient) if one.type in ACTIVATION_GRADIENTS]
    before_relu = [one for one in following if _is_relu_grad(one, by_z, z)]
    if before_relu:
        gradient, following = before_relu[0].outputs[0], []
    with tf.control_dependencies(following):
        return tf.cast(feature_map, tf.float32) * tf.cast(gradient, tf.float32)


def _is_relu_grad(operation: tf.Operation, gradient: tf.Tensor, activated: tf.Tensor) -> bool:
    """Whether an operation makes the gradient before a ReLU of that after it, and no other's."""
    if operation.type != "ReluGrad" or not is_made_by(activated, ("Relu",)):
        return False
    by, of = map(source_of, operation.inputs)
    return by is gradient and of is activated

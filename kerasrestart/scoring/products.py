"""The product of a feature map and its gradient, without slowing training down."""

from __future__ import annotations

import tensorflow as tf

from kerasrestart.scoring.graph_tensors import is_made_by, readers_of, source_of
from kerasrestart.scoring.scored_part import ACTIVATION_GRADIENTS, unshared_gradient


def product_of(feature_map: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The product z * dC/dz, of which only sums count.

    On a CPU an activation function's gradient is written over dC/dz, unless another operation may
    still read that: then to new memory, which takes time. So the product leaves dC/dz alone: of a
    ReLU it reads the gradient before the ReLU, which differs from dC/dz only where z is 0; of
    others it waits, and is itself written over dC/dz.

    Args:
        feature_map: z, `[batch, ..., filters]`.
        gradient: dC/dz, same shape, of a backward pass that has ended.

    Returns:
        float32, same shape.
    """
    before_relu = gradient_before_relu(feature_map, gradient)
    if before_relu is not None:
        return _product(feature_map, before_relu)
    following = [one for one in readers_of(gradient) if one.type in ACTIVATION_GRADIENTS]
    with tf.control_dependencies(following):
        return _product(feature_map, unshared_gradient(gradient))


def gradient_before_relu(feature_map: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor | None:
    """The gradient by what a ReLU reads, where a ReLU makes the feature map; else None.

    Args:
        feature_map: The feature map.
        gradient: The gradient by that, or the one before the ReLU.
    """
    z = source_of(feature_map)
    if not is_made_by(z, ("Relu",)):
        return None
    for operation in (source_of(gradient).op, *readers_of(gradient)):
        if operation.type == "ReluGrad" and source_of(operation.inputs[1]) is z:
            return operation.outputs[0]
    return None


def _product(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.cast(one, tf.float32) * tf.cast(other, tf.float32)

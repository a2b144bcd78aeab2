"""Contributions of what a scale and shift give, such as a batch norm, at a lower price."""

from __future__ import annotations

import tensorflow as tf

from kerasrestart.scoring.feature_maps import over_positions
from kerasrestart.scoring.graph_tensors import is_made_by, is_of_channels, source_of
from kerasrestart.scoring.products import gradient_before_relu


def affine_contribution(
    feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int
) -> tf.Tensor | None:
    """The sum of z * dC/dz over positions, of what the backward pass computes in any case.

    For the gradient by the scale of z = x * scale + shift it makes x * dC/dz. With that product,

        sum(z * dC/dz) = scale * sum(x * dC/dz) + shift * sum(dC/dz),

    which reads two maps; a product of its own would read three and write one. Between the shift and
    z may be a ReLU: where it changes a value, z and the gradient before it are both 0.

    Args:
        feature_map: z, `[batch, ..., filters]`.
        gradient: dC/dz, same shape, of a backward pass that has ended.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`; None where z is made in another way, where nothing makes that
        product, and in eager execution.
    """
    z = source_of(feature_map)
    activated = is_made_by(z, ("Relu",))
    affine = _affine(source_of(z.op.inputs[0]) if activated else z, channel_axis)
    before_relu = gradient_before_relu(feature_map, gradient) if activated else gradient
    if affine is None or before_relu is None:
        return None
    x, scale, shift = affine
    for reader in x.consumers():
        if reader.type != "Mul" or reader.inputs[0] is not x:
            continue
        by_affine = reader.inputs[1]
        if source_of(by_affine) is source_of(before_relu):
            # The copy is made in the forward pass. Were the shift held until here, sums of several
            # shifts would write to another of their terms, and add up in another order.
            copied = tf.expand_dims(tf.stack([scale, shift]), 1)
            sums = [over_positions(one, channel_axis) for one in (reader.outputs[0], by_affine)]
            return tf.reduce_sum(copied * tf.stack(sums), axis=0)
    return None


def _affine(tensor: tf.Tensor, channel_axis: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None:
    """Taken apart: x, and a scale and shift `[filters]`; None if it is made in another way."""
    if not is_made_by(tensor, ("AddV2", "BiasAdd")):
        return None
    scaled, shift = _large_and_small(tensor.op)
    if not is_made_by(scaled, ("Mul",)):
        return None
    x, scale = _large_and_small(scaled.op)
    filters, last = tensor.shape[-1], tensor.shape.rank - 1
    if not filters or channel_axis % tensor.shape.rank != last or x.dtype != tf.float32:
        return None
    of_channels = is_of_channels(scale, filters) and is_of_channels(shift, filters)
    if x.shape.as_list() != tensor.shape.as_list() or not of_channels:
        return None
    return x, tf.reshape(scale, [filters]), tf.reshape(shift, [filters])


def _large_and_small(operation: tf.Operation) -> list[tf.Tensor]:
    return sorted(operation.inputs, key=lambda term: -(term.shape.num_elements() or 2**63))

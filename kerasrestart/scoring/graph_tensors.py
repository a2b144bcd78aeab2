"""What makes and reads the tensors of a graph."""

from __future__ import annotations

from collections.abc import Container

import tensorflow as tf

IDENTITIES = ("Identity", "IdentityN")


def source_of(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind any identities, such as other probes and functions' own gradients."""
    while tf.is_symbolic_tensor(tensor) and tensor.op.type in IDENTITIES:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def is_made_by(tensor: tf.Tensor, types: Container[str]) -> bool:
    """Whether an operation of one of the types makes a tensor; never in eager execution."""
    return tf.is_symbolic_tensor(tensor) and tensor.op.type in types


def readers_of(tensor: tf.Tensor) -> list[tf.Operation]:
    """The operations that read a tensor, also behind identities."""
    if not tf.is_symbolic_tensor(tensor):
        return []
    return [
        reader
        for direct in tensor.consumers()
        for reader in (readers_of(direct.outputs[0]) if direct.type == "Identity" else [direct])
    ]


def is_of_channels(tensor: tf.Tensor, channels: int | None) -> bool:
    """Whether a tensor has one number for each channel, on its last axis."""
    shape = tensor.shape
    return bool(shape.rank) and shape.num_elements() == shape[-1] == channels

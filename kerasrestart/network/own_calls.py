"""Whether each channel that a layer gives comes from one filter of its kernel alone."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.graph import Graph
from kerasrestart.network.keras_internals import layers_inside
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.operations import computes_as_keras, has_known_activation
from kerasrestart.network.tensors_before import tensors_before
from kerasrestart.network.trace import Trace, TracedCall

_PRODUCTS = raw.CONVOLUTIONS | {"MatMul", "BatchMatMulV2"}
# Of a kernel: numbers stay in their places, or are averaged to scale others.
_KERNEL_OPERATIONS = raw.ELEMENTWISE | raw.REDUCTIONS | {"ReadVariableOp", "Const", "Placeholder"}


def mark_own_calls(graph: Graph, trace: Trace, model: keras.Model) -> None:
    """Notes in a graph which layers with filters are more than what Keras's own class computes.

    Args:
        graph: The graph of the trace; notes its layers as `is_altered`, `misplaced`, `coupled`.
        trace: A traced pass.
        model: The model.
    """
    for call in trace.calls:
        layer = call.layer
        if not isinstance(layer, WITH_FILTERS):
            continue
        notes, as_keras = graph.notes_of(layer), computes_as_keras(layer)
        if not as_keras:
            notes.is_altered, notes.coupled = True, f"the own call of {type(layer).__name__}"
            if not _in_place(call, as_keras):
                kind = type(layer).__name__
                notes.misplaced = f"has a call of its class, {kind}, which may mix filters"
        elif not has_known_activation(layer) and not _in_place(call, as_keras):
            # Such as a softmax, or a gate by half of the filters.
            notes.misplaced = "has an activation function that may mix filters"
    for wrapper in layers_inside(model):
        if isinstance(wrapper, layers.SpectralNormalization):
            # It divides the kernel by a norm of all filters.
            notes = graph.notes_of(wrapper.layer)
            notes.coupled = f"the norm that {wrapper.name} takes of its kernel"


def _in_place(call: TracedCall, as_keras: bool) -> bool:
    """Whether operations on each number by itself lead from one convolution to the output."""
    if len(call.outputs) != 1:
        return False
    given = {id(tensor) for tensor in call.inputs}
    ends, seen, stack = set(), set(), [call.outputs[0]]
    while stack:
        tensor = stack.pop()
        op = tensor.op
        if id(tensor) in given:
            return False
        if id(op) in seen:
            continue
        seen.add(id(op))
        if op.type in _PRODUCTS or (as_keras and op.type == "Transpose"):
            ends.add(op)
        elif op.type in raw.ELEMENTWISE:
            stack += [t for t in op.inputs if _depends(t, given)]
        elif op.type in raw.RESHAPING and op.inputs[0].shape[-1] == tensor.shape[-1]:
            stack.append(op.inputs[0])
        else:
            return False
    if len(ends) != 1:
        return False
    kernel = ends.pop().inputs[1]
    return as_keras or all(t.op.type in _KERNEL_OPERATIONS for t in tensors_before(kernel))


def _depends(tensor: tf.Tensor, given: set[int]) -> bool:
    return any(id(source) in given for source in tensors_before(tensor))

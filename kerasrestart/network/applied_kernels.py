"""Which inputs of an operation are the kernels of convolutions, also within a loop or function."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from kerasrestart.network.raw_operations import CONVOLUTIONS, filter_axes
from kerasrestart.network.tensorflow_internals import function_graph
from kerasrestart.network.tensors_before import tensors_before

# For operations that call functions: the attributes that name these, and how many of the inputs
# come before the functions' own.
_CALLS = {
    **dict.fromkeys(("While", "StatelessWhile"), (("body",), 0)),
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), (("f",), 0)),
    **dict.fromkeys(("If", "StatelessIf"), (("then_branch", "else_branch"), 1)),
}


class AppliedKernel(NamedTuple):
    """A kernel; 0 stands for what is not known.

    Attributes:
        filters: Its number of filters.
        size: How many numbers one of them has.
    """

    filters: int
    size: int


def applied_kernels(op: tf.Operation) -> dict[int, AppliedKernel]:
    """Finds the kernels of convolutions among the inputs of an operation.

    Args:
        op: The operation: a convolution, or one that calls a function which has some.

    Returns:
        By place among the inputs, the kernels.
    """
    if op.type in CONVOLUTIONS:
        return {1: _kernel(op)}
    names, before = _CALLS.get(op.type, ((), 0))
    found = {}
    for name in names:
        if (body := function_graph(op, name)) is None:
            continue
        places = {id(tensor): place for place, tensor in enumerate(body.inputs, before)}
        for inner in body.get_operations():
            for place, kernel in applied_kernels(inner).items():
                for tensor in tensors_before(inner.inputs[place]):
                    if id(tensor) in places:
                        found[places[id(tensor)]] = kernel
    return found


def _kernel(op: tf.Operation) -> AppliedKernel:
    shape, axes = op.inputs[1].shape, filter_axes(op.type)
    if not shape.rank:
        return AppliedKernel(0, 0)
    sizes = [size or 0 for size in shape]
    others = [size for axis, size in enumerate(sizes) if axis - len(sizes) not in axes]
    return AppliedKernel(math.prod(sizes[axis] for axis in axes), math.prod(others))

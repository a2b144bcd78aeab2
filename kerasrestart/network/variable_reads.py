"""Which variables the operations of a trace read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.tensorflow_internals import captured


class VariableReads:
    """For the tensors of a trace that hold no data, the reads of variables that lead to them.

    A read is the operation that takes the handle of a variable of floating point numbers. The state
    of a random generator is none.

    Args:
        graph: TensorFlow's graph of the trace.
    """

    def __init__(self, graph: tf.Graph):
        self._variables = {id(inside): id(outside) for outside, inside in captured(graph)}
        self._of: dict[int, frozenset[tf.Operation]] = {}

    def note(self, op: tf.Operation) -> None:
        """Notes an operation whose inputs are all noted."""
        reads = self.before(op.inputs)
        if _takes_variable(op) and any(result.dtype.is_floating for result in op.outputs):
            reads |= {op}
        for result in op.outputs if reads else ():
            self._of[id(result)] = reads

    def before(self, tensors: Iterable[tf.Tensor]) -> frozenset[tf.Operation]:
        """The reads that lead to some tensors."""
        return frozenset().union(*(self._of.get(id(tensor), ()) for tensor in tensors))

    def variables(self, read: tf.Operation) -> frozenset[int]:
        """The variables that a read takes, as `variable_ids` gives them."""
        ids = (self._variables.get(id(tensor)) for tensor in read.inputs)
        return frozenset(number for number in ids if number is not None)

    def of(self, tensor: tf.Tensor) -> frozenset[int]:
        """The variables that lead to a tensor, which may be the handle of one itself."""
        handle = self._variables.get(id(tensor))
        reads = map(self.variables, self.before([tensor]))
        return frozenset({handle} - {None}).union(*reads)

    def by(self, op: tf.Operation, dataless: Iterable[tf.Tensor]) -> frozenset[tf.Operation]:
        """The reads of an operation on data, which may itself be one, such as a gather."""
        return self.before(dataless) | ({op} if _takes_variable(op) else set())


def variable_ids(variables: Any) -> set[int]:
    """What variables are known by: the ids of their handles, one for each replica.

    Args:
        variables: A variable of Keras or TensorFlow, or a structure of them. Tensors have no ids.
    """
    leaves = keras.tree.flatten(variables)
    values = [leaf.value if isinstance(leaf, keras.Variable) else leaf for leaf in leaves]
    kept = [value for value in values if isinstance(value, tf.Variable)]
    return {id(part.handle) for value in kept for part in getattr(value, "values", (value,))}


def _takes_variable(op: tf.Operation) -> bool:
    return any(tensor.dtype == tf.resource for tensor in op.inputs)

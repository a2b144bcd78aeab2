"""One flat view of a Keras model's graph, with nested models opened up."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import keras


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of one operation in the order in which the model makes them.

    A layer that is used twice has two calls, told apart by `occurrence`.

    Attributes:
        operation: The Keras layer or operation that is called.
        occurrence: How many calls of the same operation come before this one in a forward pass.
        inputs: Numbers of the tensors that go in.
        outputs: Numbers of the tensors that come out.
    """

    operation: keras.Operation
    occurrence: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph:
    """All calls that a forward pass of a model makes, and who reads what.

    Calls stand in execution order, so that the `n`-th entry of one operation here is the `n`-th
    call that a running forward pass makes of it.

    Attributes:
        calls: All calls, in execution order.
        consumers: For each tensor, the calls that read it.
        shapes: The shape of each tensor, batch first; None for what is not known.
        outputs: The tensors that the model gives.

    Args:
        model: A built Functional or Sequential model; models nested inside it are opened, however
            deep, once for each place where they are used.

    Raises:
        TypeError: The model has no graph (a subclassed model) or is not built yet.
        ValueError: Keras runs on another backend than TensorFlow.
    """

    def __init__(self, model: keras.Model):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Filters are scored and restarted in Keras on TensorFlow: expected "
                "KERAS_BACKEND=tensorflow, set before Keras is imported. Received: "
                f"{keras.backend.backend()!r}"
            )
        self.calls: list[Call] = []
        self.consumers: dict[int, list[Call]] = defaultdict(list)
        self.shapes: dict[int, tuple[int | None, ...]] = {}
        self._occurrences: dict[int, int] = defaultdict(int)
        functional = functional_of(model)
        if functional is None:
            raise TypeError(
                f"Model '{model.name}' has no graph to search for filters: expected a built "
                f"Functional or Sequential model, received {type(model).__name__}"
                f"{'' if model.built else ' (not built: pass it an input shape)'}."
            )
        inputs = [self._number(tensor) for tensor in functional.inputs]
        self.outputs = frozenset(self._open(functional, inputs))

    def calls_of(self, operation: keras.Operation) -> list[Call]:
        """All calls of one operation, in execution order."""
        return [call for call in self.calls if call.operation is operation]

    def only_consumer(self, call: Call) -> Call | None:
        """The call that reads the result of `call`, if it is the only reader of the only result."""
        if len(call.outputs) != 1 or call.outputs[0] in self.outputs:
            return None
        readers = self.consumers[call.outputs[0]]
        return readers[0] if len(readers) == 1 else None

    def _number(self, tensor: keras.KerasTensor) -> int:
        self.shapes[len(self.shapes)] = tuple(tensor.shape)
        return len(self.shapes) - 1

    def _open(self, functional: keras.Model, inputs: Sequence[int]) -> list[int]:
        """Adds the calls of `functional` on the given tensors; returns its output tensors."""
        numbers = {id(t): n for t, n in zip(functional.inputs, inputs, strict=True)}
        depths = functional._nodes_by_depth
        # The order of keras.Function._run_through_graph: deepest first.
        for node in (n for depth in sorted(depths, reverse=True) for n in depths[depth]):
            if node.is_input:
                continue
            read = tuple(numbers[id(t)] for t in node.input_tensors)
            nested = functional_of(node.operation)
            if nested is not None and len(nested.inputs) == len(read):
                written = self._open(nested, read)
            else:
                written = [self._number(tensor) for tensor in node.outputs]
                self._add(node.operation, read, tuple(written))
            numbers.update({id(t): n for t, n in zip(node.outputs, written, strict=True)})
        return [numbers[id(t)] for t in functional.outputs]

    def _add(self, operation: keras.Operation, inputs: tuple[int, ...], outputs: tuple[int, ...]):
        call = Call(operation, self._occurrences[id(operation)], inputs, outputs)
        self._occurrences[id(operation)] += 1
        self.calls.append(call)
        for tensor in set(inputs):
            self.consumers[tensor].append(call)


def functional_of(operation: keras.Operation) -> keras.Model | None:
    """The graph behind a Functional or built Sequential model; None for anything else."""
    if isinstance(operation, keras.Sequential):
        return getattr(operation, "_functional", None)
    return operation if hasattr(operation, "_nodes_by_depth") else None

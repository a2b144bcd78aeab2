"""The steps of a traced computation: calls of layers, and operations, on numbered tensors."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable

import keras
import tensorflow as tf

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.tensorflow_internals import has_own_gradient
from kerasrestart.network.trace import Trace, TracedCall
from kerasrestart.network.variable_reads import VariableReads


@dataclasses.dataclass(eq=False)
class Step:
    """A call of a layer that is taken as a whole, or an operation.

    Attributes:
        made_by: The call or operation.
        inputs: Numbers of the tensors that go in.
        outputs: Numbers of the tensors that come out.
        of: For an operation that maps each number of one tensor, the number of that tensor.
    """

    made_by: TracedCall | tf.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    of: int | None = None


class Steps:
    """Those of a trace that tensors depend on.

    Only what depends on the data is followed, backwards from the tensors that are asked for.

    Args:
        trace: The trace.

    Attributes:
        found: The steps, in execution order.
        tensors: By number, the tensors.
        numbers: By id of a tensor, its number; None where it holds no data.
        parents: For a tensor that is a function of another one, number by number, the nearest.
        reads: The variables that tensors without data are made of.
        readers: By variable, see `variable_ids`, the operations that combine it with data.
    """

    def __init__(self, trace: Trace):
        self.found: list[Step] = []
        self.tensors: list[tf.Tensor] = []
        self.numbers: dict[int, int | None] = {}
        # Tensors that are functions of each other, number by number, form trees: the one that a
        # tensor can be computed from alone is its parent.
        self.parents: dict[int, int] = {}
        self.reads = VariableReads(trace.graph)
        self.readers: dict[int, set[tf.Operation]] = defaultdict(set)
        self._trace = trace
        self._depth: dict[int, int] = {}
        # Begin, end and output of the calls that are taken as a whole.
        self._opaque: list[tuple[int, int, int]] = []
        self._ordinals = {op.name: n for n, op in enumerate(trace.graph.get_operations(), 1)}

    @functools.cached_property
    def makers(self) -> dict[int, Step]:
        """By number of a tensor, the step that gives it; once all are found."""
        return {number: step for step in self.found for number in step.outputs}

    def ordinal(self, op: tf.Operation) -> int:
        """The place of an operation in the trace, from 1 on."""
        return self._ordinals[op.name]

    def number(self, tensor: tf.Tensor) -> int:
        """The number of a tensor that holds data."""
        number = self.numbers.get(id(tensor))
        if number is None:
            number = self.numbers[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor)
        return number

    def add_layer(self, call: TracedCall, given: list[int | None]) -> None:
        """Adds a call that is taken as a whole.

        Args:
            call: The call.
            given: The numbers of its inputs.
        """
        if isinstance(call.layer, keras.layers.Concatenate) and any(n is not None for n in given):
            # A part without data has its channels, too.
            given = [self._placed(tensor) for tensor in call.inputs if tensor.shape.rank]
        inputs = tuple(number for number in given if number is not None)
        if not inputs and call.inputs:  # such as noise, of a generator
            inputs = tuple(self._placed(tensor) for tensor in call.inputs)
        known = {number for number in given if number is not None}
        # A layer may give back what it gets, such as a dropout of nothing: then it is not there.
        new = [t for t in call.outputs if self.numbers.get(id(t)) not in known or not known]
        if inputs and new:
            outputs = tuple(self.number(tensor) for tensor in new)
            self.found.append(Step(call, inputs, outputs))
            self._opaque.append((call.begin, call.end, outputs[0]))

    def reach(self, tensor: tf.Tensor) -> int | None:
        """Adds all operations that lead to a tensor; returns its number, None without data."""
        if tensor.graph is not self._trace.graph:
            return None
        stack = [tensor]
        while stack:
            op = stack[-1].op
            if id(stack[-1]) in self.numbers:
                stack.pop()
                continue
            cut = op.type in raw.SHAPES_ONLY
            waiting = [] if cut else [t for t in op.inputs if id(t) not in self.numbers]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if cut or all(self.numbers[id(t)] is None for t in op.inputs):
                for result in op.outputs:
                    self.numbers.setdefault(id(result), None)
                if not cut:
                    self.reads.note(op)
            elif (inside := self._opaque_output(op)) is not None:
                # Such as the logits of a sigmoid, which a loss takes in its place.
                for result in op.outputs:
                    self.numbers.setdefault(id(result), inside)
            else:
                self._add_operation(op)
        return self.numbers[id(tensor)]

    def reads_of(self, op: tf.Operation) -> frozenset[tf.Operation]:
        """The reads of variables whose numbers an operation combines with data, one by one."""
        # A single number, such as a penalty on a kernel, takes no place in what is computed.
        dataless = [t for t in op.inputs if self.numbers[id(t)] is None and t.shape.rank != 0]
        return self.reads.by(op, dataless)

    def with_data(self, op: tf.Operation) -> list[tf.Tensor]:
        """The inputs of an operation that hold data."""
        return [tensor for tensor in op.inputs if self.numbers[id(tensor)] is not None]

    def is_backward(self, step: Step) -> bool:
        """Whether a backward pass makes a step; layers that it calls again are not its own."""
        if isinstance(step.made_by, TracedCall):
            return False
        ordinal = self.ordinal(step.made_by)
        return any(begin < ordinal <= end for begin, end in self._trace.backward)

    def forward_before(self, ends: set[int]) -> list[Step]:
        """The steps of the forward pass that something in `ends` depends on."""
        needed, found = set(ends), []
        for step in reversed(self.found):
            if not self.is_backward(step) and not needed.isdisjoint(step.outputs):
                needed.update(step.inputs)
                found.append(step)
        return found[::-1]

    def _opaque_output(self, op: tf.Operation) -> int | None:
        """The output of the call that is taken as a whole and makes an operation; else None."""
        ordinal = self.ordinal(op)
        place = bisect.bisect_left(self._opaque, (ordinal,)) - 1
        if place >= 0 and ordinal <= self._opaque[place][1]:
            return self._opaque[place][2]
        return None

    def _add_operation(self, op: tf.Operation) -> None:
        of_each = [self.numbers[id(t)] for t in op.inputs]
        if op.type in raw.IDENTITIES and not has_own_gradient(op) and not _to_integers(op):
            for result, number in zip(op.outputs, of_each, strict=True):
                self.numbers[id(result)] = number
            return
        if op.type == "IdentityN":
            for result, number in zip(op.outputs, of_each, strict=True):
                if number is None:
                    self.numbers[id(result)] = None
                else:
                    self._add_step(op, (number,), [result])
            return
        if op.type in ("ConcatV2", "Pack"):
            # A part without data has a place among the channels, too.
            parts = list(op.inputs) if op.type == "Pack" else list(op.inputs)[:-1]
            of_each = [self._placed(t) for t in parts]
        self._add_step(op, tuple(n for n in of_each if n is not None), op.outputs)

    def _placed(self, tensor: tf.Tensor) -> int:
        """The number of a tensor; a new one at each use where it holds no data."""
        number = self.numbers[id(tensor)]
        if number is None:
            number = len(self.tensors)
            self.tensors.append(tensor)
        return number

    def _add_step(
        self, op: tf.Operation, inputs: tuple[int, ...], results: Iterable[tf.Tensor]
    ) -> None:
        for read in self.reads_of(op):
            if self._opaque_output(read) is None:  # a gradient reads what a layer has read
                for variable in self.reads.variables(read):
                    self.readers[variable].add(op)
        step = Step(op, inputs, tuple(self.number(tensor) for tensor in results))
        if op.type in raw.ELEMENTWISE and len(step.outputs) == 1:
            source, output = self._common(inputs), step.outputs[0]
            if source is not None and _fills(self.tensors[source], self.tensors[output]):
                step.of = self.parents[output] = source
                self._depth[output] = self._depth.get(source, 0) + 1
        self.found.append(step)

    def _common(self, numbers: tuple[int, ...]) -> int | None:
        """The nearest tensor that all of the given ones are functions of, number by number."""
        first, *others = numbers
        for other in others:
            while first != other:
                deeper = first if self._depth.get(first, 0) >= self._depth.get(other, 0) else other
                if deeper not in self.parents:
                    return None
                if deeper == first:
                    first = self.parents[first]
                else:
                    other = self.parents[other]
        return first


def _to_integers(op: tf.Operation) -> bool:
    return op.type == "Cast" and not op.outputs[0].dtype.is_floating


def _fills(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether a tensor has the shape of another; sizes that are not known are not broadcast."""
    if one.shape.rank is None or one.shape.rank != other.shape.rank:
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(size in (None, filled) for size, filled in pairs)

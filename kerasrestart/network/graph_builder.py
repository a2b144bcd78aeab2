"""Joins the traced calls of layers by the raw operations between them."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections import Counter, defaultdict
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.applied_kernels import applied_kernels
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.keras_internals import direct_sublayers
from kerasrestart.network.normalizations import find_normalizations
from kerasrestart.network.operation_words import words_of
from kerasrestart.network.tensorflow_internals import has_own_gradient
from kerasrestart.network.trace import Trace, TracedCall
from kerasrestart.network.variable_reads import VariableReads


@dataclasses.dataclass(eq=False)
class _Step:
    """A call, or a TensorFlow operation, with the numbers of its tensors.

    `of` is, for an operation that maps each number of one tensor, that tensor.
    """

    made_by: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    of: int | None = None


class GraphBuilder:
    """Makes a `Graph` of a trace.

    Only what depends on the data is followed, backwards from the inputs of each call. Operations
    that map each number by itself, from one tensor to another, become one: `x * sigmoid(x)` is an
    activation function, not a product of two tensors.
    """

    def __init__(self, trace: Trace, names: dict[int, str]):
        self._trace, self._names = trace, names
        self._numbers: dict[int, int | None] = {}  # by id of a tensor; None: no data in it
        self._tensors: list[tf.Tensor] = []
        self._steps: list[_Step] = []
        # Tensors that are functions of each other, number by number, form trees: the one that a
        # tensor can be computed from alone is its parent.
        self._parent: dict[int, int] = {}
        self._depth: dict[int, int] = {}
        # Begin, end and output of the calls that are taken as a whole.
        self._opaque: list[tuple[int, int, int]] = []
        self._ordinals = {op.name: n for n, op in enumerate(trace.graph.get_operations(), 1)}
        self._reads = VariableReads(trace.graph)
        self._readers: dict[int, set[str]] = defaultdict(set)  # by variable, their names

    def build(self) -> Graph:
        """Returns the graph."""
        trace = self._trace
        for tensor in trace.inputs:
            self._number(tensor)
        places: dict[int, TracedCall] = {}
        returned: set[int] = set()
        for call in trace.calls:
            given = [self._reach(tensor) for tensor in call.inputs]
            if call.opaque:
                self._add_layer(call, given)
            results = [self._reach(tensor) for tensor in call.outputs]
            if isinstance(call.layer, keras.Model):
                returned.update(number for number in results if number is not None)
            if len(results) == 1 and results[0] is not None and results[0] not in given:
                places.setdefault(results[0], call)
        outputs = [self._reach(tensor) for tensor in trace.outputs]
        losses = [self._reach(tensor) for tensor in trace.losses]
        ends = {number for number in (*outputs, *losses) if number is not None}
        normalized = find_normalizations(
            self._steps_before(ends), self._numbers, self._tensors, ends
        )
        norm_results = (norm.result for norm in normalized.values())
        calls = self._calls(self._kept({*ends, *places, *norm_results}))
        used = {number for call in calls for number in (*call.inputs, *call.outputs)} | ends
        return Graph(
            calls,
            {number: _shape(self._tensors[number]) for number in sorted(used)},
            {number for number in outputs if number is not None},
            {number for number in losses if number is not None},
            self._places(places, calls),
            self._names,
            trace.elsewhere,
            trace.trained,
            Counter(id(call.layer) for call in trace.calls),
            self._readers,
            normalized,
            returned,
            self._updated_weights(),
        )

    def _steps_before(self, ends: set[int]) -> list[_Step]:
        """The steps of the forward pass that something in `ends` depends on."""
        needed, found = set(ends), []
        for step in reversed(self._steps):
            if not self._is_backward(step) and not needed.isdisjoint(step.outputs):
                needed.update(step.inputs)
                found.append(step)
        return found[::-1]

    def _number(self, tensor: tf.Tensor) -> int:
        number = self._numbers.get(id(tensor))
        if number is None:
            number = self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        return number

    def _add_layer(self, call: TracedCall, given: list[int | None]) -> None:
        if isinstance(call.layer, keras.layers.Concatenate) and any(n is not None for n in given):
            # A part without data has its channels, too.
            given = [self._placed(tensor) for tensor in call.inputs if tensor.shape.rank]
        inputs = tuple(number for number in given if number is not None)
        if not inputs and call.inputs:  # such as noise, of a generator
            inputs = tuple(self._placed(tensor) for tensor in call.inputs)
        known = {number for number in given if number is not None}
        # A layer may give back what it gets, such as a dropout of nothing: then it is not there.
        new = [t for t in call.outputs if self._numbers.get(id(t)) not in known or not known]
        if inputs and new:
            outputs = tuple(self._number(tensor) for tensor in new)
            self._steps.append(_Step(call, inputs, outputs))
            self._opaque.append((call.begin, call.end, outputs[0]))

    def _reach(self, tensor: tf.Tensor) -> int | None:
        """Adds all operations that lead to a tensor; returns its number, None without data."""
        if tensor.graph is not self._trace.graph:
            return None
        stack = [tensor]
        while stack:
            op = stack[-1].op
            if id(stack[-1]) in self._numbers:
                stack.pop()
                continue
            cut = op.type in raw.SHAPES_ONLY
            waiting = [] if cut else [t for t in op.inputs if id(t) not in self._numbers]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if cut or all(self._numbers[id(t)] is None for t in op.inputs):
                for result in op.outputs:
                    self._numbers.setdefault(id(result), None)
                if not cut:
                    self._reads.note(op)
            elif (inside := self._opaque_output(op)) is not None:
                # Such as the logits of a sigmoid, which a loss takes in its place.
                for result in op.outputs:
                    self._numbers.setdefault(id(result), inside)
            else:
                self._add_operation(op)
        return self._numbers[id(tensor)]

    def _opaque_output(self, op: tf.Operation) -> int | None:
        """The output of the call that is taken as a whole and makes an operation; else None."""
        ordinal = self._ordinals[op.name]
        place = bisect.bisect_left(self._opaque, (ordinal,)) - 1
        if place >= 0 and ordinal <= self._opaque[place][1]:
            return self._opaque[place][2]
        return None

    def _add_operation(self, op: tf.Operation) -> None:
        of_each = [self._numbers[id(t)] for t in op.inputs]
        if op.type in raw.IDENTITIES and not has_own_gradient(op) and not _to_integers(op):
            for result, number in zip(op.outputs, of_each, strict=True):
                self._numbers[id(result)] = number
            return
        if op.type == "IdentityN":
            for result, number in zip(op.outputs, of_each, strict=True):
                if number is None:
                    self._numbers[id(result)] = None
                else:
                    self._add_step(op, (number,), [result])
            return
        if op.type in ("ConcatV2", "Pack"):
            # A part without data has a place among the channels, too.
            parts = list(op.inputs) if op.type == "Pack" else list(op.inputs)[:-1]
            of_each = [self._placed(t) for t in parts]
        self._add_step(op, tuple(n for n in of_each if n is not None), op.outputs)

    def _placed(self, tensor: tf.Tensor) -> int:
        number = self._numbers[id(tensor)]
        if number is None:
            number = len(self._tensors)
            self._tensors.append(tensor)
        return number

    def _add_step(self, op: tf.Operation, inputs: tuple[int, ...], results) -> None:
        for read in self._reads_of(op):
            if self._opaque_output(read) is None:  # a gradient reads what a layer has read
                for variable in self._reads.variables(read):
                    self._readers[variable].add(self._owner(op))
        outputs = tuple(self._number(tensor) for tensor in results)
        step = _Step(op, inputs, outputs)
        if op.type in raw.ELEMENTWISE and len(outputs) == 1:
            step.of = self._common(inputs)
            if step.of is not None and _fills(self._tensors[step.of], results[0]):
                self._parent[outputs[0]] = step.of
                self._depth[outputs[0]] = self._depth.get(step.of, 0) + 1
            else:
                step.of = None
        self._steps.append(step)

    def _reads_of(self, op: tf.Operation) -> frozenset[tf.Operation]:
        """The reads of variables whose numbers an operation combines with data, one by one."""
        # A single number, such as a penalty on a kernel, takes no place in what is computed.
        dataless = [t for t in op.inputs if self._numbers[id(t)] is None and t.shape.rank != 0]
        return self._reads.by(op, dataless)

    def _common(self, numbers: tuple[int, ...]) -> int | None:
        """The nearest tensor that all of the given ones are functions of, number by number."""
        first, *others = numbers
        for other in others:
            while first != other:
                deeper = first if self._depth.get(first, 0) >= self._depth.get(other, 0) else other
                if deeper not in self._parent:
                    return None
                if deeper == first:
                    first = self._parent[first]
                else:
                    other = self._parent[other]
        return first

    def _kept(self, ends: set[int]) -> set[int]:
        """The tensors that are more than a stage within an elementwise function."""
        kept = set(ends)
        for step in self._steps:
            if step.of is None:
                kept.update(step.inputs)
                kept.update(step.outputs)
        return kept

    def _calls(self, kept: set[int]) -> list[Call]:
        calls, makers = [], {}
        for step in self._steps:
            makers[step.outputs[0]] = step
            backward = self._is_backward(step)
            if isinstance(step.made_by, TracedCall):
                call = Call(step.made_by.layer, step.made_by.occurrence, step.inputs, step.outputs)
            elif step.of is None:
                operation = self._operation(step.made_by)
                call = Call(operation, 0, step.inputs, step.outputs, backward)
            elif step.outputs[0] in kept:
                source = step.of
                while source not in kept and source in self._parent:
                    source = self._parent[source]
                function = self._function(step, source, makers)
                call = Call(function, 0, (source,), step.outputs, backward)
            else:
                continue
            calls.append(call)
        return calls

    def _is_backward(self, step: _Step) -> bool:
        """Whether a backward pass makes a step; layers that it calls again are not its own."""
        if isinstance(step.made_by, TracedCall):
            return False
        ordinal = self._ordinals[step.made_by.name]
        return any(begin < ordinal <= end for begin, end in self._trace.backward)

    def _operation(self, op: tf.Operation) -> raw.RawOperation:
        operation = raw.raw_operation(op, self._owner(op))
        with_data = [i for i, t in enumerate(op.inputs) if self._numbers[id(t)] is not None]
        first = with_data == [1 if op.type == "Split" else 0]
        if operation.kind not in ("merge", "concatenate") and not first:
            # The data decide what is taken, such as indices of a gather.
            operation = raw.RawOperation(operation.name, op.type)
        kernels = self._kernels(op, [op.inputs[i] for i in with_data])
        maker = self._innermost.get(self._ordinals[op.name])
        return dataclasses.replace(operation, maker=maker, **kernels) if kernels else operation

    def _kernels(self, op: tf.Operation, data: list[tf.Tensor]) -> dict[str, Any]:
        """What is known of the kernels by which an operation makes features."""
        applied = {
            place: kernel
            for place, kernel in applied_kernels(op).items()
            if self._numbers[id(op.inputs[place])] is None
        }
        of_applied = (self._reads.of(op.inputs[place]) for place in applied)
        if kernels := frozenset().union(*of_applied):
            filters = sum(kernel.filters for kernel in applied.values())
            return {"kernels": kernels, "filters": filters, "convolves": True}
        reads = self._reads_of(op)
        if not reads or not raw.makes_features(op, data):
            return {}
        kernels = frozenset().union(*map(self._reads.variables, reads))
        if op.name not in self._mixed:
            alone = len(data) == 1 and data[0] is op.inputs[0]
            return {"kernels": kernels, "filters": raw.features_made(op) if alone else 0}
        numbers = sum(read.outputs[0].shape.num_elements() or 0 for read in reads)
        size = self._mixed[op.name]
        filters = numbers // size if size else 0
        return {"kernels": kernels, "filters": filters, "convolves": True, "mixes_kernels": True}

    @functools.cached_property
    def _mixed(self) -> dict[str, int]:
        """The operations that make kernels of convolutions of weights and data.

        By name, how many numbers one filter has that they make.
        """
        makers = {number: step for step in self._steps for number in step.outputs}
        found: dict[str, int] = {}
        for step in self._steps:
            if isinstance(step.made_by, TracedCall):
                continue
            for place, kernel in applied_kernels(step.made_by).items():
                stack = [self._numbers[id(step.made_by.inputs[place])]]
                while stack:
                    before = makers.get(stack.pop())
                    op = None if before is None else before.made_by
                    if not isinstance(op, tf.Operation) or op.type in raw.CONVOLUTIONS:
                        continue
                    data = [t for t in op.inputs if self._numbers[id(t)] is not None]
                    if self._reads_of(op) and raw.makes_features(op, data):
                        found[op.name] = kernel.size
                    else:
                        stack += before.inputs
        return found

    def _updated_weights(self) -> set[int]:
        """Ids of the variables of which something is applied that a gradient has changed.

        Such as `kernel - rate * gradient`, the fast weights of an inner loop.
        """
        makers = {number: step for step in self._steps for number in step.outputs}
        found: set[int] = set()
        for step in self._steps:
            op = step.made_by
            if isinstance(op, TracedCall) or self._is_backward(step):
                continue
            applied = [op.inputs[place] for place in applied_kernels(op)]
            if op.type in raw.MATRIX_PRODUCTS:
                applied = [t for t in op.inputs if self._numbers[id(t)] is not None]
            for tensor in applied:
                found |= self._updated(self._numbers[id(tensor)], makers)
        return found

    def _updated(self, number: int | None, makers: dict[int, _Step]) -> set[int]:
        """The variables that a tensor is made of, number by number, beside a gradient."""
        variables: set[int] = set()
        stack, seen, by_gradient = [number], {number}, False
        while stack:
            step = makers.get(stack.pop())
            if step is None or isinstance(step.made_by, TracedCall):
                continue
            if self._is_backward(step):
                by_gradient = True
            elif step.made_by.type in raw.ELEMENTWISE | raw.RESHAPING:
                for read in self._reads_of(step.made_by):
                    variables |= set(self._reads.variables(read))
                stack += set(step.inputs) - seen
                seen |= set(step.inputs)
        return variables if by_gradient else set()

    def _function(self, last: _Step, source: int, makers: dict[int, _Step]) -> raw.RawOperation:
        """All operations from one tensor to another as one."""
        found, types, stack = {source: raw.LINEAR}, [], [last.outputs[0]]
        while stack:
            step = makers[stack[-1]]
            waiting = [number for number in step.inputs if number not in found]
            if waiting:
                stack += waiting
                continue
            number, op = stack.pop(), step.made_by
            if number in found:
                continue
            if op.type == "IdentityN":
                found[number] = raw.NONLINEAR
            else:
                of_each = [self._numbers[id(t)] for t in op.inputs]
                found[number] = raw.homogeneity_of(
                    op, [raw.CONSTANT if n is None else found[n] for n in of_each]
                )
            types.append(op.type)
        homogeneity = found[last.outputs[0]]
        return raw.RawOperation(
            self._owner(last.made_by),
            _title(types),
            "elementwise",
            homogeneous=homogeneity == raw.LINEAR,
            activates=homogeneity == raw.NONLINEAR or bool(raw.HOMOGENEOUS & set(types)),
        )

    def _owner(self, op: tf.Operation) -> str:
        """The layer that an operation belongs to, or what it is within a block of layers."""
        inside = self._innermost.get(self._ordinals[op.name])
        if inside is None:
            return words_of(op.type)
        name = self._names.get(id(inside), inside.name)
        return f"{words_of(op.type)} in {name}" if direct_sublayers(inside) else name

    @functools.cached_property
    def _innermost(self) -> dict[int, keras.Layer]:
        """For the number of each operation, the innermost layer in whose call it is made."""
        layers_of: dict[int, keras.Layer] = {}
        for call in self._trace.calls:  # inner calls end first
            if not call.opaque:
                for ordinal in range(call.begin + 1, call.end + 1):
                    layers_of.setdefault(ordinal, call.layer)
        return layers_of

    def _places(self, places: dict[int, TracedCall], calls: list[Call]) -> dict[int, Call]:
        """The calls whose outputs can be read: all that is made of these comes after the call."""
        made_by = {id(step.made_by): step for step in self._steps}
        readers = defaultdict(list)
        for step in self._steps:
            for number in step.inputs:
                readers[number].append(step.made_by)
        own = {tensor: call for call in calls for tensor in call.outputs}
        found = {}
        for number, traced in places.items():
            if id(traced.layer) in self._trace.elsewhere:
                continue  # its calls in sight are not all of its calls
            if id(traced) in made_by:
                found[number] = own[number]
            elif all(self._begins(reader) >= traced.end for reader in readers[number]):
                found[number] = Call(traced.layer, traced.occurrence, own[number].inputs, (number,))
        return found

    def _begins(self, made_by: TracedCall | tf.Operation) -> int:
        if isinstance(made_by, TracedCall):
            return made_by.begin
        return self._ordinals[made_by.name] - 1


def _to_integers(op: tf.Operation) -> bool:
    return op.type == "Cast" and not op.outputs[0].dtype.is_floating


def _shape(tensor: tf.Tensor) -> tuple[int | None, ...]:
    return () if tensor.shape.rank is None else tuple(tensor.shape)


def _fills(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether a tensor has the shape of another; sizes that are not known are not broadcast."""
    if one.shape.rank is None or one.shape.rank != other.shape.rank:
        return False
    pairs = zip(_shape(one), _shape(other), strict=True)
    return all(size in (None, filled) for size, filled in pairs)


def _title(types: list[str]) -> str:
    """The usual name of a function, else its operations."""
    if {"Erf", "Erfc"} & set(types) or {"Tanh", "Pow"} <= set(types):
        return "Gelu"
    if {"Sigmoid", "Mul"} <= set(types):
        return "Silu"
    return "+".join(dict.fromkeys(types))

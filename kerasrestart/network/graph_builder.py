"""Joins the traced calls of layers by the raw operations between them."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict

import keras
import tensorflow as tf

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.graph import Call, Graph
from kerasrestart.network.keras_internals import direct_sublayers
from kerasrestart.network.normalizations import find_normalizations
from kerasrestart.network.operation_words import words_of
from kerasrestart.network.step_kernels import StepKernels
from kerasrestart.network.steps import Step, Steps
from kerasrestart.network.trace import Trace, TracedCall


class GraphBuilder:
    """Makes a `Graph` of a trace.

    Operations that map each number by itself, from one tensor to another, become one:
    `x * sigmoid(x)` is an activation function, not a product of two tensors.

    Args:
        trace: The trace.
        names: By id of a layer, its key.
    """

    def __init__(self, trace: Trace, names: dict[int, str]):
        self._trace, self._names = trace, names
        self._steps = Steps(trace)

    def build(self) -> Graph:
        """Returns the graph."""
        trace, steps = self._trace, self._steps
        inputs = frozenset(steps.number(tensor) for tensor in trace.inputs)
        places: dict[int, TracedCall] = {}
        returned: set[int] = set()
        for call in trace.calls:
            given = [steps.reach(tensor) for tensor in call.inputs]
            if call.opaque:
                steps.add_layer(call, given)
            results = [steps.reach(tensor) for tensor in call.outputs]
            if isinstance(call.layer, keras.Model):
                returned.update(number for number in results if number is not None)
            if len(results) == 1 and results[0] is not None and results[0] not in given:
                places.setdefault(results[0], call)
        outputs = [steps.reach(tensor) for tensor in trace.outputs]
        losses = [steps.reach(tensor) for tensor in trace.losses]
        ends = {number for number in (*outputs, *losses) if number is not None}
        normalized = find_normalizations(steps, ends)
        norm_results = (norm.result for norm in normalized.values())
        kernels = StepKernels(steps)
        calls = self._calls(self._kept({*ends, *places, *norm_results}), kernels)
        used = {number for call in calls for number in (*call.inputs, *call.outputs)} | ends
        graph = Graph(
            calls,
            {number: _shape(steps.tensors[number]) for number in sorted(used)},
            {number for number in outputs if number is not None},
            {number for number in losses if number is not None},
            self._places(places, calls),
            self._names,
            trace.elsewhere,
            trace.trained_together,
            Counter(id(call.layer) for call in trace.calls),
            {of: {self._owner(op) for op in ops} for of, ops in steps.readers.items()},
            normalized,
            returned,
            kernels.updated(),
        )
        graph.inputs = inputs
        return graph

    def _kept(self, ends: set[int]) -> set[int]:
        """The tensors that are more than a stage within an elementwise function."""
        kept = set(ends)
        for step in self._steps.found:
            if step.of is None:
                kept.update(step.inputs)
                kept.update(step.outputs)
        return kept

    def _calls(self, kept: set[int], kernels: StepKernels) -> list[Call]:
        calls, parents = [], self._steps.parents
        for step in self._steps.found:
            backward = self._steps.is_backward(step)
            if isinstance(step.made_by, TracedCall):
                call = Call(step.made_by.layer, step.made_by.occurrence, step.inputs, step.outputs)
            elif step.of is None:
                operation = self._operation(step.made_by, kernels)
                call = Call(operation, 0, step.inputs, step.outputs, backward)
            elif step.outputs[0] in kept:
                source = step.of
                while source not in kept and source in parents:
                    source = parents[source]
                function = self._function(step, source)
                call = Call(function, 0, (source,), step.outputs, backward)
            else:
                continue
            calls.append(call)
        return calls

    def _operation(self, op: tf.Operation, kernels: StepKernels) -> raw.RawOperation:
        operation = raw.raw_operation(op, self._owner(op))
        has_data = [self._steps.numbers[id(tensor)] is not None for tensor in op.inputs]
        place = 1 if op.type == "Split" else 0
        alone = has_data[place] and sum(has_data) == 1
        if operation.kind not in ("merge", "concatenate") and not alone:
            # The data decide what is taken, such as indices of a gather.
            operation = raw.RawOperation(operation.name, op.type)
        known = kernels.of(op)
        maker = self._innermost.get(self._steps.ordinal(op))
        return dataclasses.replace(operation, maker=maker, **known) if known else operation

    def _function(self, last: Step, source: int) -> raw.RawOperation:
        """All operations from one tensor to another as one."""
        found, types, stack = {source: raw.LINEAR}, [], [last.outputs[0]]
        begins: list[str] = []  # the operations that read the tensor itself
        is_affine = True  # whether the others scale and shift what one operation gives
        while stack:
            step = self._steps.makers[stack[-1]]
            waiting = [number for number in step.inputs if number not in found]
            if waiting:
                stack += waiting
                continue
            number = stack.pop()
            op: tf.Operation = step.made_by
            if number in found:
                continue
            if op.type == "IdentityN":
                found[number] = raw.NONLINEAR
            else:
                of_each = [self._steps.numbers[id(t)] for t in op.inputs]
                found[number] = raw.homogeneity_of(
                    op, [raw.CONSTANT if n is None else found[n] for n in of_each]
                )
            types.append(op.type)
            if source in step.inputs:
                begins.append(op.type)
            elif op.type not in raw.SCALES_AND_SHIFTS or len(step.inputs) > 1:
                is_affine = False
        homogeneity = found[last.outputs[0]]
        return raw.RawOperation(
            self._owner(last.made_by),
            begins[0] if is_affine and _is_activation(begins) else _title(types, begins),
            "elementwise",
            homogeneous=homogeneity == raw.LINEAR,
            activates=homogeneity == raw.NONLINEAR or bool(raw.HOMOGENEOUS & set(types)),
        )

    def _owner(self, op: tf.Operation) -> str:
        """The layer that an operation belongs to, or what it is within a block of layers."""
        inside = self._innermost.get(self._steps.ordinal(op))
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
        made_by = {id(step.made_by): step for step in self._steps.found}
        readers = defaultdict(list)
        for step in self._steps.found:
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
        return self._steps.ordinal(made_by) - 1


def _shape(tensor: tf.Tensor) -> tuple[int | None, ...]:
    return () if tensor.shape.rank is None else tuple(tensor.shape)


def _is_activation(types: list[str]) -> bool:
    return len(types) == 1 and types[0] in raw.OUTPUT_GRADIENTS


def _title(types: list[str], begins: list[str]) -> str:
    """The usual name of a function, else its operations.

    Args:
        types: All of its operations.
        begins: Those that read its tensor.
    """
    if {"Erf", "Erfc"} & set(types) or {"Tanh", "Pow"} <= set(types):
        return "Gelu"
    if {"Sigmoid", "Mul"} <= set(types) and len(begins) > 1:
        return "Silu"
    return "+".join(dict.fromkeys(types))

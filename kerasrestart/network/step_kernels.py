"""The kernels that a layer's raw operations apply, and weights that an inner loop has changed."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.applied_kernels import applied_kernels
from kerasrestart.network.steps import Step, Steps
from kerasrestart.network.trace import TracedCall


class StepKernels:
    """What the operations among some steps apply.

    Args:
        steps: The steps, all found.
    """

    def __init__(self, steps: Steps):
        self._steps = steps

    def of(self, op: tf.Operation) -> dict[str, Any]:
        """What a `RawOperation` says of the kernels by which an operation makes features."""
        steps, data = self._steps, self._steps.with_data(op)
        applied = {
            place: kernel
            for place, kernel in applied_kernels(op).items()
            if steps.numbers[id(op.inputs[place])] is None
        }
        of_applied = (steps.reads.of(op.inputs[place]) for place in applied)
        if kernels := frozenset().union(*of_applied):
            filters = sum(kernel.filters for kernel in applied.values())
            return {"kernels": kernels, "filters": filters, "convolves": True}
        reads = steps.reads_of(op)
        if not reads or not raw.makes_features(op, data):
            return {}
        kernels = frozenset().union(*map(steps.reads.variables, reads))
        if op.name not in self._mixed:
            alone = len(data) == 1 and data[0] is op.inputs[0]
            return {"kernels": kernels, "filters": raw.features_made(op) if alone else 0}
        numbers = sum(read.outputs[0].shape.num_elements() or 0 for read in reads)
        size = self._mixed[op.name]
        filters = numbers // size if size else 0
        return {"kernels": kernels, "filters": filters, "convolves": True, "mixes_kernels": True}

    def updated(self) -> set[int]:
        """Ids of the variables of which something is applied that a gradient has changed.

        Such as `kernel - rate * gradient`, the fast weights of an inner loop.
        """
        steps, found = self._steps, set[int]()
        for step in steps.found:
            op = step.made_by
            if isinstance(op, TracedCall) or steps.is_backward(step):
                continue
            applied = [op.inputs[place] for place in applied_kernels(op)]
            if op.type in raw.MATRIX_PRODUCTS:
                applied = steps.with_data(op)
            for tensor in applied:
                found |= self._updated(steps.numbers[id(tensor)])
        return found

    def _updated(self, number: int | None) -> set[int]:
        """The variables that a tensor is made of, number by number, beside a gradient."""
        variables: set[int] = set()
        stack, seen, by_gradient = [number], {number}, False
        while stack:
            step = self._maker(stack.pop())
            if step is None or isinstance(step.made_by, TracedCall):
                continue
            if self._steps.is_backward(step):
                by_gradient = True
            elif step.made_by.type in raw.ELEMENTWISE | raw.RESHAPING:
                for read in self._steps.reads_of(step.made_by):
                    variables |= set(self._steps.reads.variables(read))
                stack += set(step.inputs) - seen
                seen |= set(step.inputs)
        return variables if by_gradient else set()

    @functools.cached_property
    def _mixed(self) -> dict[str, int]:
        """The operations that make kernels of convolutions of weights and data.

        By name, how many numbers one filter has that they make.
        """
        steps, found = self._steps, dict[str, int]()
        for step in steps.found:
            if isinstance(step.made_by, TracedCall):
                continue
            for place, kernel in applied_kernels(step.made_by).items():
                stack = [steps.numbers[id(step.made_by.inputs[place])]]
                while stack:
                    before = self._maker(stack.pop())
                    op = None if before is None else before.made_by
                    if not isinstance(op, tf.Operation) or op.type in raw.CONVOLUTIONS:
                        continue
                    if steps.reads_of(op) and raw.makes_features(op, steps.with_data(op)):
                        found[op.name] = kernel.size
                    else:
                        stack += before.inputs
        return found

    def _maker(self, number: int | None) -> Step | None:
        return None if number is None else self._steps.makers.get(number)

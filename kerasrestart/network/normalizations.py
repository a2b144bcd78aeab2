"""Finds norms that are made of operations, such as a custom instance norm.

They are known by what they compute. A tensor is normalized where all that is computed from it, with
means over some of its axes, joins in a tensor of the same shape that does not change when the first
one is scaled. A gate such as squeeze-and-excitation has weights in between, so it is not a norm.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from kerasrestart.network.degrees import degree_of, mixes_numbers
from kerasrestart.network.operations import HOMOGENEOUS


class Step(Protocol):
    """An operation, or a call of a layer, with the numbers of its tensors."""

    made_by: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_normalizations(
    steps: Sequence[Step],
    numbers: Mapping[int, int | None],
    tensors: Sequence[tf.Tensor],
    ends: set[int],
) -> dict[int, int]:
    """Finds which tensors are normalized, and where.

    Args:
        steps: All operations and calls of layers, in execution order.
        numbers: By id of a tensor, its number.
        tensors: By number, the tensors.
        ends: Numbers of the tensors that are outputs or losses.

    Returns:
        By number of a tensor, that of the normalized one, before its scale and shift.
    """
    readers: dict[int, list[int]] = defaultdict(list)
    for place, step in enumerate(steps):
        for number in set(step.inputs):
            readers[number].append(place)

    def degree(step: Step, degrees: Mapping[int | None, float]) -> float | None:
        if not isinstance(step.made_by, tf.Operation):
            of_inputs = [degrees.get(number, 0.0) for number in step.inputs]
            passes = isinstance(step.made_by.layer, HOMOGENEOUS)
            return of_inputs[0] if passes else None
        of_inputs = [degrees.get(numbers.get(id(t)), 0.0) for t in step.made_by.inputs]
        return degree_of(step.made_by, of_inputs)

    def normalized(start: int) -> int | None:
        degrees: dict[int | None, float] = {start: 1.0}
        ahead, mixed = list(readers[start]), False
        while ahead:
            place = heapq.heappop(ahead)
            step, found = steps[place], degree(steps[place], degrees)
            if found is None or not ends.isdisjoint(step.inputs):
                return None
            is_operation = isinstance(step.made_by, tf.Operation)
            mixed = mixed or not is_operation or mixes_numbers(step.made_by)
            result = step.outputs[0]
            if not ahead and mixed and found == 0 and _same_form(tensors[result], tensors[start]):
                return result
            degrees.update(dict.fromkeys(step.outputs, found))
            for number in step.outputs:
                for reader in readers[number]:
                    if reader not in ahead:
                        heapq.heappush(ahead, reader)
        return None

    found = ((number, normalized(number)) for number in list(readers))
    return {number: result for number, result in found if result is not None}


def _same_form(one: tf.Tensor, other: tf.Tensor) -> bool:
    return (
        bool(one.shape.rank)  # known, and not a single number, such as a loss
        and one.shape.rank == other.shape.rank
        and one.shape[-1] == other.shape[-1]
        and one.shape.is_compatible_with(other.shape)
    )

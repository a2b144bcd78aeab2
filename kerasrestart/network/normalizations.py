"""Finds norms that are made of operations, such as a custom instance norm.

They are known by what they compute. A tensor is normalized where all that is computed from it, with
means over some of its axes, joins in a tensor of the same shape that does not change when the first
one is scaled. A gate such as squeeze-and-excitation has weights in between, so it is not a norm.

Either the numbers do not change, or their gradients see no change: what a batch renormalization
stops the gradient of is a constant to these, and sum(z * dC/dz) vanishes all the same.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from kerasrestart.network.degrees import MOVING, degree_of, mixes_numbers
from kerasrestart.network.operations import HOMOGENEOUS, channels_first
from kerasrestart.network.raw_operations import REDUCTIONS, raw_operation
from kerasrestart.network.steps import Step, Steps


class Normalized(NamedTuple):
    """Where a tensor is normalized.

    Attributes:
        result: The number of the normalized tensor, before its scale and shift.
        by_channel: Whether surely each channel is by itself, the channels being its last axis.
        across_channels: Whether surely all channels are normalized together.
    """

    result: int
    by_channel: bool
    across_channels: bool


def find_normalizations(computation: Steps, ends: set[int]) -> dict[int, Normalized]:
    """Finds which tensors are normalized, and where.

    Args:
        computation: Its steps, all found.
        ends: Numbers of the tensors that are outputs or losses.

    Returns:
        By number of a tensor, where it is normalized.
    """
    steps = computation.forward_before(ends)
    numbers, tensors = computation.numbers, computation.tensors
    readers: dict[int, list[int]] = defaultdict(list)
    for place, step in enumerate(steps):
        for number in set(step.inputs):
            readers[number].append(place)

    with_gradient = _before_stops(steps, ends)
    has_stops = any(_stops_gradient(step) for step in steps)

    def degree(step: Step, degrees: Mapping[int | None, float]) -> float | None:
        if not isinstance(step.made_by, tf.Operation):
            of_inputs = [degrees.get(number, 0.0) for number in step.inputs]
            passes = isinstance(step.made_by.layer, HOMOGENEOUS)
            return of_inputs[0] if passes else None
        of_inputs = [degrees.get(numbers.get(id(t)), 0.0) for t in step.made_by.inputs]
        return degree_of(step.made_by, of_inputs)

    def normalized(start: int, for_gradients: bool = False) -> Normalized | None:
        degrees: dict[int | None, float] = {start: 1.0}
        stopped: dict[int | None, float] = {}  # the degrees of what gradients take for constants
        ahead, mixed, by_channel, across = list(readers[start]), False, True, True
        while ahead:
            place = heapq.heappop(ahead)
            step = steps[place]
            # That of `tf.nn.moments` has a mean that is stopped, and the variance's gradient.
            is_variance = _type_of(step) == "SquaredDifference"
            found = degree(step, degrees | stopped if is_variance else degrees)
            if for_gradients and _stops_gradient(step):
                stopped.update(dict.fromkeys(step.outputs, found or 0.0))
                continue
            if for_gradients and found is None and with_gradient.isdisjoint(step.outputs):
                continue
            if found is None or not ends.isdisjoint(step.inputs):
                return None
            is_operation = isinstance(step.made_by, tf.Operation)
            mixed = mixed or not is_operation or mixes_numbers(step.made_by)
            by_channel = by_channel and _keeps_channels(step, tensors)
            across = across and _joins_channels(step, tensors)
            result = step.outputs[0]
            if not ahead and mixed and found == 0 and _same_form(tensors[result], tensors[start]):
                return Normalized(result, by_channel, across)
            degrees.update(dict.fromkeys(step.outputs, found))
            for number in step.outputs:
                for reader in readers[number]:
                    if reader not in ahead:
                        heapq.heappush(ahead, reader)
        return None

    found = {number: normalized(number) for number in list(readers)}
    for number in [number for number, result in found.items() if result is None and has_stops]:
        found[number] = normalized(number, for_gradients=True)
    return {number: result for number, result in found.items() if result is not None}


def _before_stops(steps: Sequence[Step], ends: set[int]) -> set[int]:
    """The tensors that gradients reach from the ends."""
    reached = set(ends)
    for step in reversed(steps):
        if not reached.isdisjoint(step.outputs) and not _stops_gradient(step):
            reached.update(step.inputs)
    return reached


def _keeps_channels(step: Step, tensors: Sequence[tf.Tensor]) -> bool:
    if not isinstance(step.made_by, tf.Operation):
        return not channels_first(step.made_by.layer)
    before, after = tensors[step.inputs[0]].shape, tensors[step.outputs[0]].shape
    if mixes_numbers(step.made_by) or step.made_by.type in MOVING:
        operation = raw_operation(step.made_by, "")
        if operation.kind == "reshape":
            return bool(before.rank and after.rank) and before[-1] == after[-1] is not None
        return operation.keeps_channels(before.rank - 1)
    return True


def _joins_channels(step: Step, tensors: Sequence[tf.Tensor]) -> bool:
    """Whether an operation that mixes numbers takes one of all channels; true of the others."""
    if not isinstance(step.made_by, tf.Operation):
        return False
    if not mixes_numbers(step.made_by) and step.made_by.type not in MOVING:
        return True
    return step.made_by.type in REDUCTIONS and not _keeps_channels(step, tensors)


def _type_of(step: Step) -> str | None:
    return step.made_by.type if isinstance(step.made_by, tf.Operation) else None


def _stops_gradient(step: Step) -> bool:
    return _type_of(step) == "StopGradient"


def _same_form(one: tf.Tensor, other: tf.Tensor) -> bool:
    return (
        bool(one.shape.rank)  # known, and not a single number, such as a loss
        and one.shape.rank == other.shape.rank
        and one.shape[-1] == other.shape[-1]
        and one.shape.is_compatible_with(other.shape)
    )

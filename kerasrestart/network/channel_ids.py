"""Which filter each channel of each tensor comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kerasrestart.network.graph import Call
from kerasrestart.network.operations import LAST

NO_FILTER = -1  # of a channel that comes from no filter, such as a colour of the image


class Tensors:
    """The ids of filters along the channel axis of each tensor of a graph.

    Args:
        shapes: By number of a tensor, its shape.
    """

    def __init__(self, shapes: Mapping[int, tuple[int | None, ...]]):
        self._shapes = shapes
        self._ids: dict[int, np.ndarray] = {}
        self._axis: dict[int, int] = {}
        self._sources: dict[int, frozenset[str]] = {}

    def shape(self, tensor: int) -> tuple[int | None, ...]:
        """The shape of a tensor, batch first; empty where it is not known."""
        return self._shapes[tensor]

    def ids(self, tensor: int) -> np.ndarray:
        """Ids along the channel axis; empty where the tensor comes from no filter at all."""
        return self._ids.get(tensor, np.zeros(0, int))

    def axis(self, tensor: int) -> int:
        """The channel axis, `LAST` or 1."""
        return self._axis.get(tensor, LAST)

    def sources(self, tensor: int) -> frozenset[str]:
        """What the channels of a tensor come from that come from no filter."""
        return self._sources.get(tensor, frozenset({"an input"}))

    def write_sources(self, call: Call, unfollowed: str | None) -> None:
        """Sets the sources of the results of a call, whose ids are set.

        Args:
            call: The call.
            unfollowed: The name of its operation, where channels of filters are lost in it.
        """
        lacking = [t for t in call.inputs if NO_FILTER in self.ids(t) or not self.ids(t).size]
        passed = frozenset().union(*(self.sources(tensor) for tensor in lacking))
        found = passed if unfollowed is None else frozenset({unfollowed})
        self._sources.update(dict.fromkeys(call.outputs, found) if call.inputs else {})

    def write(self, tensors: Sequence[int], ids: Sequence[np.ndarray], axis: int) -> None:
        """Sets the ids of the results of a call, and along which axis they lie."""
        for tensor, own in zip(tensors, ids, strict=False):
            self._ids[tensor] = own
            self._axis[tensor] = LAST if len(self._shapes[tensor]) == 2 else axis

    def concatenated(self, call: Call, along: int | None, axis: int) -> np.ndarray | None:
        """The ids of a concatenation along an axis, None for a new one; None if they are mixed."""
        inputs, rank = (
            [self.ids(tensor) for tensor in call.inputs],
            len(self.shape(call.outputs[0])),
        )
        if along is not None and along % rank == axis % rank:
            sizes = [self.shape(tensor)[axis] for tensor in call.inputs]
            if None in sizes:
                return None
            return np.concatenate([padded(of, n) for of, n in zip(inputs, sizes, strict=True)])
        same = all(np.array_equal(inputs[0], ids) for ids in inputs)
        return inputs[0] if same and (along is not None or axis == LAST) else None

    def reshaped(
        self, call: Call, axis: int, channels_first: bool = False
    ) -> tuple[np.ndarray | None, int]:
        """The ids behind a Flatten or Reshape, and the axis along which they lie.

        Args:
            call: The call.
            axis: The channel axis of what it takes.
            channels_first: Whether it moves the channels to the end first, as a Flatten does that
                is made with `data_format="channels_first"`.
        """
        ids = self.ids(call.inputs[0])
        before, after = self.shape(call.inputs[0]), self.shape(call.outputs[0])
        if not ids.size:
            return ids, LAST
        if channels_first:
            if axis == LAST and len(before) > 2:
                return None, LAST
            axis = LAST
        outermost = axis == 1 or (len(before) == 2 and len(after) > 2 and after[-1] != ids.size)
        if outermost and not _same_examples(before, after):
            return None, LAST
        if outermost and len(after) > 2:
            return (ids, 1) if after[1] == ids.size else (None, LAST)
        features = after[-1] if after else None
        if features is None or features % ids.size:
            return None, LAST
        # Innermost, the channels repeat as long as none is split; outermost, each is one block.
        repeated = np.tile if axis == LAST else np.repeat
        return repeated(ids, features // ids.size), LAST


def _same_examples(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> bool:
    """Whether a reshape leaves the numbers of each example together."""
    sizes = (*before[1:], *after[1:])
    return None not in sizes and math.prod(before[1:]) == math.prod(after[1:])


def padded(ids: np.ndarray, channels: int) -> np.ndarray:
    """The ids of a tensor's channels, also of one that comes from no filter at all."""
    return ids if ids.size else np.full(channels, NO_FILTER)

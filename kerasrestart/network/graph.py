"""One flat view of what a model computes: calls of layers, and the raw operations between them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from kerasrestart.network.normalizations import Normalized
from kerasrestart.network.raw_operations import RawOperation


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation in the order in which a forward pass makes them.

    A layer that is used twice has two calls with different `occurrence`.

    Attributes:
        operation: The Keras layer, or the raw operation.
        occurrence: How many calls of the same operation come before this one in a forward pass.
        inputs: Numbers of the tensors that go in.
        outputs: Numbers of the tensors that come out.
        backward: Whether it is part of a backward pass inside the step, as of a gradient penalty.
    """

    operation: keras.Layer | RawOperation
    occurrence: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    backward: bool = False


@dataclasses.dataclass(frozen=True)
class OwnKernels:
    """The kernels that a custom layer applies by raw operations.

    Attributes:
        layer: The layer, or the model where its own `call` applies them.
        filters: How many filters or units they have, where that is known.
        convolves: Whether one of them is that of a convolution.
        unfollowed: Why they would not be watched as those of a Keras layer either; or None.
        calls: The raw operations that apply them.
    """

    layer: keras.Layer
    filters: int
    convolves: bool
    unfollowed: str | None
    calls: tuple[Call, ...]


@dataclasses.dataclass
class LayerNotes:
    """What is known of a layer beside its calls.

    Attributes:
        is_altered: Whether it has filters, and a `call` of its own.
        misplaced: Why a channel that it gives may be something else than its filter's.
        coupled: By what a channel that it gives depends on other filters, too.
        own_kernels: The kernels of its own that it applies by raw operations.
        shared_weights: What else of the model reads its weights.
    """

    is_altered: bool = False
    misplaced: str | None = None
    coupled: str | None = None
    own_kernels: OwnKernels | None = None
    shared_weights: tuple[str, ...] = ()


class Graph:
    """All calls that a forward pass of a model makes, and who reads what.

    The calls of one layer here are in the order in which a running forward pass makes them.
    `find_filter_layers` makes it.

    Attributes:
        calls: All calls, in execution order.
        consumers: For each tensor, the calls that read it in a forward pass.
        shapes: The shape of each tensor, batch first; None for what is not known.
        outputs: The tensors that the model gives, or the losses of a training step.
        losses: Tensors that layers add to the loss on their own.
        places: For each tensor that the call of a layer gives as its only output, that call. Beside
            those of `calls` these are layers that are opened, such as a block of layers.
        names: By id of a layer, its key: the name where that is unique, else the path.
        elsewhere: By id of a layer, why its calls are not among `calls`.
        trained: Ids of the variables that train; None if that is not known.
        trained_together: For each loss, ids of the variables that it trains.
        uses: By id of a layer, how often it is called.
        readers: By id of a variable, see `variable_ids`, the names of the raw operations that
            compute with it.
        normalized: For each tensor that raw operations normalize, where.
        returned: The tensors that models inside the model return.
        updated: Ids of the variables of which something is applied by raw operations that a
            gradient has changed, as in an inner loop.
        makers: For each tensor, the call that gives it.
        of_call: The graph of the model's call, where this is the graph of what trains it.
        holders: By id of a layer that a model inside the model holds, the id of the innermost.
        inputs: The tensors of data that the model or its training step takes.
        updates: The optimizers that the training step applies, with their variables, in this order.
        is_partial: Whether training may compute more than this graph shows, so that tensors may
            have readers that are not seen.
    """

    def __init__(
        self,
        calls: Iterable[Call],
        shapes: Mapping[int, tuple[int | None, ...]],
        outputs: Iterable[int],
        losses: Iterable[int] = (),
        places: Mapping[int, Call] | None = None,
        names: Mapping[int, str] | None = None,
        elsewhere: Mapping[int, str] | None = None,
        trained_together: Iterable[set[int]] | None = None,
        uses: Mapping[int, int] | None = None,
        readers: Mapping[int, set[str]] | None = None,
        normalized: Mapping[int, Normalized] | None = None,
        returned: Iterable[int] = (),
        updated: Iterable[int] = (),
    ):
        self.calls = list(calls)
        self.shapes = dict(shapes)
        self.outputs = frozenset(outputs)
        self.losses = frozenset(losses)
        self.places = dict(places or {})
        self.names = dict(names or {})
        self.elsewhere = dict(elsewhere or {})
        self.trained_together = list(trained_together or ())
        self.trained = None if trained_together is None else set().union(*self.trained_together)
        self.uses = dict(uses or {})
        self.readers = dict(readers or {})
        self.normalized = dict(normalized or {})
        self.returned = frozenset(returned)
        self.updated = frozenset(updated)
        self.makers = {tensor: call for call in self.calls for tensor in call.outputs}
        self._notes: dict[int, LayerNotes] = defaultdict(LayerNotes)
        self.of_call: Graph | None = None
        self.holders: dict[int, int] = {}
        self.updates: list[tuple[keras.optimizers.Optimizer, Sequence[Any]]] = []
        self.inputs: frozenset[int] = frozenset()
        self.is_partial = False
        self._ends = self.outputs | self.losses
        self._reaching = self._tensors_before(self.outputs)
        self._training = self._tensors_before(self._ends)
        forward = self._tensors_before(self._ends, through_gradients=False)
        self.consumers: dict[int, list[Call]] = defaultdict(list)
        self._of: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            self._of[id(call.operation)].append(call)
            # A gradient reads what a function has between its operations: not a reader of its own.
            for_gradient = not self._training.isdisjoint(call.outputs) and (
                call.backward or forward.isdisjoint(call.outputs)
            )
            for tensor in () if for_gradient else set(call.inputs):
                self.consumers[tensor].append(call)

    def notes_of(self, layer: keras.Layer) -> LayerNotes:
        """What is known of a layer beside its calls; those who look into the trace write it."""
        return self._notes[id(layer)]

    def own_kernels(self) -> list[OwnKernels]:
        """The kernels that layers apply by raw operations."""
        return [notes.own_kernels for notes in self._notes.values() if notes.own_kernels]

    def calls_of(self, operation: keras.Layer | RawOperation | None) -> list[Call]:
        """All calls of one operation, in execution order."""
        return self._of.get(id(operation), [])

    def uses_of(self, layer: keras.Layer) -> int:
        """How often a layer is called, also where its calls are looked into."""
        return self.uses.get(id(layer), len(self.calls_of(layer)))

    def name_of(self, operation: keras.Layer | RawOperation) -> str:
        """The key of a layer, or the name of a raw operation."""
        return self.names.get(id(operation), operation.name)

    def only_consumer(self, call: Call) -> Call | None:
        """The call that reads what `call` gives, if no other does and one result alone is read."""
        read = [tensor for tensor in call.outputs if tensor in self.consumers]
        if len(read) != 1 or not self._ends.isdisjoint(call.outputs):
            return None
        readers = self.consumers[read[0]]
        return readers[0] if len(readers) == 1 else None

    def reaches_output(self, call: Call) -> bool:
        """Whether an output of the model depends on a call."""
        return any(tensor in self._reaching for tensor in call.outputs)

    def reaches_loss(self, call: Call) -> bool:
        """Whether an output, or a loss that a layer adds, depends on a call."""
        return any(tensor in self._training for tensor in call.outputs)

    def _tensors_before(self, ends: frozenset[int], through_gradients: bool = True) -> set[int]:
        seen, stack = set(ends), list(ends)
        while stack:
            call = self.makers.get(stack.pop())
            if call is not None and (through_gradients or not call.backward):
                new = set(call.inputs) - seen
                seen |= new
                stack += new
        return seen

"""What one training step leaves for the scores."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.network.gradient_calls import differentiation, tapes_heard
from kerasrestart.network.hooks import hooked
from kerasrestart.network.optimizers import Update, hearing_updates
from kerasrestart.network.reading_places import NORM
from kerasrestart.network.tensorflow_internals import tape_records
from kerasrestart.network.variable_reads import variable_ids
from kerasrestart.scoring.affine_weights import ValueAndGradient
from kerasrestart.scoring.criteria import Criterion, Needs
from kerasrestart.scoring.feature_maps import positions_of
from kerasrestart.scoring.plan import CallKey, Reading, ReadingPlan
from kerasrestart.scoring.probe import current_graph, probe, same_graph
from kerasrestart.scoring.reader_inputs import ReaderInputs
from kerasrestart.scoring.uses import Part, Use

ACTIVATIONS = {
    "Relu": tf.nn.relu,
    "Relu6": tf.nn.relu6,
    "Elu": tf.nn.elu,
    "Selu": tf.nn.selu,
    "Sigmoid": tf.sigmoid,
    "Softplus": tf.nn.softplus,
    "Tanh": tf.tanh,
}
NO_LAYER = "its activation function is not a layer, so that its activation cannot be read"
NO_NORM = (
    "its norm is not a layer that follows it, and scores of what a norm reads are about zero: make "
    "it one"
)
JACOBIAN = "its gradient is taken of each example apart, by a Jacobian, which gives no score"
SHARED = (
    "is read after a layer that others share, and that is not called as often as in the traced pass"
)
INNER = "runs inside a loop, a condition or a function of its own, where no score can be taken"


class StepRecord:
    """Hears the forward and backward passes of one training step.

    Everything is added to Python lists while the step is traced, or runs eagerly; nothing is
    written to a variable. So a step may make any number of passes, with any number of tapes.

    A backward pass counts for the layers that it trains: those of which it has a weight among its
    sources. A gradient by an input alone, as of a gradient penalty or of adversarial examples,
    does not; where the loss depends on it, the pass by the weights runs through it, and counts.
    The pass by a generator's weights does not count for the discriminator that it runs through.

    Args:
        plan: What is read.
        criterion: The criterion.
        inputs: What takes the means of what readers of filters get. Defaults to None.

    Attributes:
        saliencies: By number of a filter layer, for each time its feature map was read: the sum
            of its saliencies over positions and examples, float32 `[filters]`, and the number of
            positions. Known after `join_passes`.
        gradients: By `id` of a variable, its value and gradient each time these were applied.
        inputs: By name of a reader, the means of what it read, one for each call.
        maps: The feature maps that are probed, before the probe.
        called_again: Numbers of the layers that no tape hears in the forward pass, as inside
            `tf.recompute_grad`: they are called again for the gradient by their weights.
        out_of_reach: Numbers of the layers of which a part cannot be read, and why.
        complete: Whether the forward pass has ended.
        optimizers: Those that were seen to apply gradients.
    """

    def __init__(self, plan: ReadingPlan, criterion: Criterion, inputs: ReaderInputs | None = None):
        self.saliencies: dict[int, list[tuple[tf.Tensor, int | tf.Tensor]]] = defaultdict(list)
        self.gradients: dict[int, list[ValueAndGradient]] = defaultdict(list)
        self.inputs: dict[str, list[tf.Tensor]] = defaultdict(list)
        self.maps: list[tf.Tensor] = []
        self.called_again: set[int] = set()
        self.out_of_reach: dict[int, str] = {}
        self.complete = False
        self.optimizers: list[keras.optimizers.Optimizer] = []
        self._updates = False
        self._plan = plan
        self._criterion = criterion
        self._reader_inputs = inputs
        self._sources: set[int] | None = None  # of a backward pass; None outside of one
        self._target: tuple[int, ...] = ()  # of a backward pass; empty if that is not known
        self._targets: list[Any] = []  # are kept, so that none of their ids is given again
        self._in_jacobian = False
        self._graph = current_graph()
        self._calls: Counter[int] = Counter()
        # Maps of a criterion that needs no gradient: looked at when their readers are known.
        self._forward: list[tuple[Reading, tf.Tensor, int | tf.Tensor]] = []
        self._positions: dict[CallKey, int | tf.Tensor] = {}
        self._uses: list[Use] = []  # those that a backward pass has reached
        # Those whose parts are looked at when the backward pass has ended.
        self._waiting: list[Use] = []

    @contextlib.contextmanager
    def listening(self, *, hears_updates: bool = False) -> Iterator[None]:
        """Hears the layers of the plan while the context is open.

        Args:
            hears_updates: Whether to hear what optimizers apply, too. Defaults to False.
        """
        plan = self._plan
        readers = {} if self._reader_inputs is None else self._reader_inputs.readers
        inputs = [
            (layer, partial(self._call_reader, name, layer)) for name, layer in readers.items()
        ]
        weights = {id(v): id(v) for of_layer in plan.weights for v in of_layer}
        weights |= {id(v.value): id(v) for of_layer in plan.weights for v in of_layer}
        updates = hearing_updates(partial(self._call_apply, weights)) if hears_updates else None
        with self._reading(), hooked(inputs), updates or contextlib.nullcontext():
            yield
        for reading, feature_map, positions in self._forward:
            self.add_activation(reading, feature_map, positions)
        self._forward.clear()
        self._leave_out_shared()
        self.complete = True

    @contextlib.contextmanager
    def backward_pass(self) -> Iterator[None]:
        """Counts the gradient taken in the context, whatever its sources.

        Layers are heard there too: some are called again for their gradient, as those of
        `tf.recompute_grad`.
        """
        with self._pass(set().union(*self._plan.trained)), self._reading():
            yield

    @contextlib.contextmanager
    def _pass(self, sources: set[int], target: tuple[int, ...] = ()) -> Iterator[None]:
        """A backward pass by these sources; parts of one that fails do not wait for the next.

        Args:
            sources: The ids of the variables.
            target: What is differentiated, as ids. Defaults to an empty tuple: that is not known.
        """
        self._sources, self._target = sources, target
        try:
            yield
            for use in self._waiting:
                self._add_use(use)
        finally:
            self._sources, self._target = None, ()
            for use in self._waiting:
                use.parts.clear()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Hears the layers of the plan, and which gradients are taken."""
        operations = self._plan.operations.values()
        layers = [(operation, partial(self._call_layer, operation)) for operation in operations]
        takes_gradients = self._criterion.needs_maps and self._criterion.needs_gradient
        heard: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if takes_gradients:
            heard = tapes_heard(self._call_gradient, self._call_jacobian)
        with hooked(layers), heard:
            yield

    def called(self, operation: keras.Operation) -> bool:
        """Whether an operation of the plan was called."""
        return self._calls[id(operation)] > 0

    def check_complete(self) -> None:
        """Raises ValueError where the forward pass has not ended yet."""
        if not self.complete:
            raise ValueError(
                "There are no feature maps yet: make the forward pass inside the recording "
                "context, and take the gradients when that has ended."
            )

    def add_gradient(self, variable: int, value: tf.Tensor, gradient: tf.Tensor | None) -> None:
        """Keeps a value of the variable of this `id` and the gradient by it, if there is one."""
        if gradient is not None and same_graph(gradient, self._graph):
            self.gradients[variable].append((value, tf.convert_to_tensor(gradient)))

    def add_activation(
        self, reading: Reading, feature_map: tf.Tensor, positions: int | tf.Tensor
    ) -> None:
        """Adds the activations of a use, for a criterion that needs no gradient.

        Args:
            reading: Where it is read.
            feature_map: The activations.
            positions: How many there are for each example and filter.
        """
        self._add_use(Use(reading, positions, [Part(feature_map, feature_map, None)]))

    def _call_layer(
        self, operation: keras.Operation, call: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        return self._heard(operation, call(*args, **kwargs))

    def _call_reader(
        self, name: str, layer: keras.Layer, call: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        read = keras.tree.flatten((args, kwargs))[0]
        if same_graph(read, self._graph):
            self.inputs[name].append(ReaderInputs.mean(layer, read))
        return call(*args, **kwargs)

    def _call_apply(self, weights: dict[int, int], apply: Callable[[], Any], update: Update) -> Any:
        """Takes the gradients as they are given, before the optimizer scales or clips them."""
        self.optimizers.append(update.optimizer)
        if self._updates:  # of an optimizer inside another, or of the class that one is derived of
            return apply()
        for variable, gradient in zip(update.variables, update.gradients, strict=False):
            if id(variable) in weights and gradient is not None:
                # Read now: the optimizer is about to change it.
                value = tf.convert_to_tensor(variable)
                self.add_gradient(weights[id(variable)], value, gradient)
        self._updates = True
        try:
            return apply()
        finally:
            self._updates = False

    def _call_gradient(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._sources is not None:  # of a function with its own gradient: part of that pass
            return call(*args, **kwargs)
        target, sources, weights = differentiation(args, kwargs)
        self._targets.append((target, weights))
        key = tuple(map(id, keras.tree.flatten((target, weights))))
        with self._pass(variable_ids(sources), key):
            return call(*args, **kwargs)

    def _call_jacobian(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        # Its loop over the targets runs as one operation, where no single gradient can be read.
        self._in_jacobian = True
        try:
            return self._call_gradient(call, args, kwargs)
        finally:
            self._in_jacobian = False

    def _heard(self, operation: keras.Operation, output: Any) -> Any:
        key = id(operation), self._calls[id(operation)] % self._plan.calls[id(operation)]
        self._calls[id(operation)] += 1
        if key in self._plan.counted and tf.is_tensor(output):
            self._positions[key] = positions_of(output, self._plan.counted[key])
        for reading in self._plan.readings.get(key, ()):
            output = self._read(reading, output)
        return output

    def _read(self, reading: Reading, output: Any) -> Any:
        if not tf.is_tensor(output) or not same_graph(output, self._graph):
            self.out_of_reach[reading.number] = INNER
            return output
        positions = self._positions.get(reading.own)
        if positions is None:  # the place is called, and the layer was not
            self.out_of_reach[reading.number] = SHARED
            return output
        if tf.is_tensor(positions) and not same_graph(positions, self._graph):
            self.out_of_reach[reading.number] = INNER
            return output
        if not self._criterion.needs_gradient:
            if reading.unread is None or reading.unread in ACTIVATIONS:
                activation = ACTIVATIONS.get(reading.unread, lambda tensor: tensor)
                self._forward.append((reading, activation(output), positions))
            else:
                self.out_of_reach[reading.number] = _why_unread(reading)
            return output
        contributes = self._criterion.needs is Needs.CONTRIBUTION
        if reading.unread == NORM.type or (reading.unread and not contributes):
            self.out_of_reach[reading.number] = _why_unread(reading)
            return output
        if not tape_records():
            self.called_again.add(reading.number)
            return output
        self.maps.append(output)

        use = Use(reading, positions)

        def report(gradient: tf.Tensor) -> tf.Tensor:
            if self._trains(reading.number):
                if self._in_jacobian:
                    self.out_of_reach[reading.number] = JACOBIAN
                else:
                    use.parts.append(Part(output, probed, gradient))
                    # Of a graph, what the rest of the pass computes may be of use.
                    if tf.is_symbolic_tensor(gradient):
                        self._add_at_end(use)
                    elif use not in self._waiting:
                        self._add_use(use)
            return self._second_order_probe(use, gradient)

        probed = probe(output, report)
        return probed

    def _second_order_probe(self, use: Use, gradient: tf.Tensor) -> tf.Tensor:
        """Returns a gradient by a map, and hears the gradient by it where it is differentiated.

        Without a filter its part in the gradient is gone, too, as of a gradient penalty.
        """
        contributes = self._criterion.needs is Needs.CONTRIBUTION
        if not (contributes and tape_records() and same_graph(gradient, self._graph)):
            return gradient
        is_recorded = False

        def report(second: tf.Tensor) -> None:
            # A forward accumulator runs this while it is recorded.
            if is_recorded and self._trains(use.reading.number):
                use.parts.append(Part(gradient, gradient, second))

        self._add_at_end(use)
        probed = probe(gradient, report)
        is_recorded = True
        return probed

    def _trains(self, number: int) -> bool:
        """Whether the backward pass is one by weights of a filter layer."""
        return self._sources is not None and bool(self._sources & self._plan.trained[number])

    def _add_at_end(self, use: Use) -> None:
        """Adds a use when the backward pass has ended, with all of its parts."""
        if use not in self._waiting:
            self._waiting.append(use)

    def _add_use(self, use: Use) -> None:
        """Adds what a backward pass gave of a use."""
        if not use.parts:
            return
        if not use.is_within(self._graph):
            use.parts.clear()
            self.out_of_reach[use.reading.number] = INNER
        elif use.end_pass(self._criterion, self._target) and use not in self._uses:
            self._uses.append(use)

    def join_passes(self) -> None:
        """Adds the saliencies of all uses, of what all passes so far gave of them."""
        for use in self._uses:
            saliency = use.saliency(self._criterion)
            self.saliencies[use.reading.number].append((saliency, use.positions))
        self._uses.clear()

    def clear(self) -> None:
        """Forgets the saliencies and gradients, which were added."""
        self.saliencies.clear()
        self.gradients.clear()

    def _leave_out_shared(self) -> None:
        """Leaves out layers whose place others share, where its calls are not those of the plan."""
        calls = self._plan.calls
        for (place, _), readings in self._plan.readings.items():
            if self._calls[place] % calls[place]:
                shared = [one for one in readings if calls[one.own[0]] != calls[place]]
                self.out_of_reach |= {one.number: SHARED for one in shared}


def _why_unread(reading: Reading) -> str:
    return NO_NORM if reading.unread == NORM.type else NO_LAYER

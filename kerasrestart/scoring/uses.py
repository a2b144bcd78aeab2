"""What the backward passes of a step give of each use of a filter layer."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from kerasrestart.scoring.criteria import Criterion, Needs
from kerasrestart.scoring.plan import Reading
from kerasrestart.scoring.probe import current_graph, same_graph
from kerasrestart.scoring.scored_part import scored_part


class Part(NamedTuple):
    """What is gone with a filter: its feature map, or the gradient by that.

    Attributes:
        value: The map, or the gradient.
        passed_on: The same values, as the network or the tape reads them.
        gradient: The gradient by it; None for a criterion that needs none.
    """

    value: tf.Tensor
    passed_on: tf.Tensor
    gradient: tf.Tensor | None


@dataclasses.dataclass(eq=False)
class Use:
    """One use of a filter layer in a forward pass; several backward passes count by their sum.

    Attributes:
        reading: Where it is read.
        positions: The number of positions of its feature map.
        parts: What the present backward pass gave of it.
        of_parts: What those of the passes that have ended add to its saliencies.
        targets: What these passes differentiated, as ids. A gradient by each weight apart takes
            several passes of one target, which count once.
    """

    reading: Reading
    positions: int | tf.Tensor
    parts: list[Part] = dataclasses.field(default_factory=list)
    of_parts: list[tf.Tensor] = dataclasses.field(default_factory=list)
    targets: set[tuple[int, ...]] = dataclasses.field(default_factory=set)

    def is_within(self, graph: tf.Graph | None) -> bool:
        """Whether a graph has all gradients, and is the one that is being built."""
        gradients = [part.gradient for part in self.parts if part.gradient is not None]
        return current_graph() is graph and all(same_graph(one, graph) for one in gradients)

    def end_pass(self, criterion: Criterion, target: tuple[int, ...] = ()) -> bool:
        """Computes what the parts of a backward pass add to the saliencies, and forgets the parts.

        Args:
            criterion: The criterion.
            target: What the pass differentiated, as ids. Defaults to an empty tuple: not known.

        Returns:
            Whether they add something.
        """
        parts = list(self.parts)
        self.parts.clear()
        if target in self.targets:
            return False
        if target:
            self.targets.add(target)
        # The parts of a second order are those by the map itself, before the activation function.
        activation = self.reading.unread if len(parts) == 1 else None
        only_product = criterion.signed is not None
        for part in parts:
            scored = scored_part(*part, activation=activation, only_product=only_product)
            self.of_parts.append(criterion.of_part(*scored, self.reading.channel_axis))
        return True

    def saliency(self, criterion: Criterion) -> tf.Tensor:
        """The sum over examples of what was computed, `[filters]`, which is then forgotten.

        That of a criterion of activations is the mean over rows: a pass over two views of a batch
        at once has twice as many.
        """
        of_examples = criterion.joined(self.of_parts)
        self.of_parts.clear()
        total = tf.reduce_sum(of_examples, axis=0)
        if criterion.needs is not Needs.ACTIVATION:
            return total
        rows = tf.cast(tf.shape(of_examples)[0], of_examples.dtype)
        return tf.math.divide_no_nan(total, rows)

"""Accumulates the scores of all filters of a model, batch by batch, inside a training step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.sites import Site, find_sites
from kerasrestart.scoring import criteria
from kerasrestart.scoring.recorder import record_outputs


@dataclasses.dataclass
class FeatureMaps:
    """What one forward pass leaves at the reading places, use by use in the order of the sites.

    Attributes:
        sites: The number of the site that each belongs to.
        tensors: The feature maps; empty until the recording context has ended.
        positions: For each, the number of positions M of the convolution's own output: an int, or
            a float32 scalar tensor where the size of the images is not known when traced.
    """

    sites: list[int] = dataclasses.field(default_factory=list)
    tensors: list[tf.Tensor] = dataclasses.field(default_factory=list)
    positions: list[int | tf.Tensor] = dataclasses.field(default_factory=list)


class Scorer:
    """Mean saliency of each filter over the examples seen since the last `reset`.

    For filter k of layer l, with feature map z of M positions and cost C of one example,

        score(l, k) = mean over examples of |1/M * sum over positions of dC/dz * z|

    The state is two variables, whatever the number of layers: the sums of all filters of all
    layers end to end, and how many examples came and how many of them were scored.

    Args:
        model: A built Functional or Sequential model.
        criterion: A name in `kerasrestart.scoring.criteria.CRITERIA`, or a function like those.

    Attributes:
        sites: The scored layers, by name, in execution order.

    Raises:
        TypeError, ValueError: As `find_sites` and `criteria.get` do.

    Example, in a training step of one's own:

    ```python
    with tf.GradientTape() as tape, scorer.record() as maps:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = scorer.gradients(
        tape, loss, model.trainable_weights, maps, batch_size=tf.shape(x)[0]
    )
    ```
    """

    def __init__(self, model: keras.Model, criterion: str | criteria.Criterion = "taylor"):
        self.criterion = criteria.get(criterion)
        self.sites: dict[str, Site] = find_sites(model)
        filters = sum(site.filters for site in self.sites.values())
        self._sums = tf.Variable(tf.zeros(filters), trainable=False, name="score_sums")
        self._examples = tf.Variable([0.0, 0.0], trainable=False, name="seen_and_scored_examples")

    @contextlib.contextmanager
    def record(self) -> Iterator[FeatureMaps]:
        """Records the feature maps of the one forward pass that is made inside the context."""
        uses = [use for site in self.sites.values() for use in site.reads]
        maps = FeatureMaps()
        with record_outputs(call.operation for use in uses for call in use) as outputs:
            yield maps
        for number, site in enumerate(self.sites.values()):
            for own, read in site.reads:
                maps.sites.append(number)
                maps.tensors.append(outputs[id(read.operation)][read.occurrence])
                own_output = outputs[id(own.operation)][own.occurrence]
                maps.positions.append(_positions(own_output, site.channel_axis))

    def gradients(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        weights: Sequence[Any],
        maps: FeatureMaps,
        *,
        batch_size: int | tf.Tensor,
        costs_per_loss: float | tf.Tensor | None = None,
        skip_if_not_finite: bool = False,
    ) -> list[tf.Tensor | None]:
        """Differentiates the loss by `weights` and, in the same pass, scores the batch.

        Args:
            tape: The tape that watched the forward pass.
            loss: L, the scalar to differentiate.
            weights: Variables; may be empty.
            maps: What `record` yielded around that forward pass.
            batch_size: Number of examples.
            costs_per_loss: What turns dL/dz into dC/dz, C being the cost of one example: the batch
                size where L is a mean over the batch (the default), divided by the loss scale where
                one is used.
            skip_if_not_finite: Whether a batch with a score that is infinite or not a number is
                left out whole, as a loss-scaling optimizer leaves out its step. Otherwise such
                scores stay, and show that training has failed.

        Returns:
            The gradients by `weights`, as `tape.gradient` gives them.

        Raises:
            ValueError: The recording context has not ended yet, or no forward pass was made in it.
        """
        if not maps.tensors:
            raise ValueError(
                "There are no feature maps yet: make the forward pass inside the recording "
                "context, and take the gradients when that has ended."
            )
        gradients, by_map = tape.gradient(loss, (list(weights), maps.tensors))
        sums = self._batch_sums(maps, by_map)
        sums *= tf.cast(batch_size if costs_per_loss is None else costs_per_loss, tf.float32)
        seen = scored = tf.cast(batch_size, tf.float32)
        if skip_if_not_finite:
            finite = tf.reduce_all(tf.math.is_finite(sums))
            sums, scored = tf.where(finite, sums, 0.0), tf.where(finite, scored, 0.0)
        self._sums.assign_add(sums)
        self._examples.assign_add(tf.stack([seen, scored]))
        return gradients

    def _batch_sums(self, maps: FeatureMaps, by_map: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Sums of the saliencies over the batch, all filters of all layers end to end."""
        sites = list(self.sites.values())
        sums = [tf.zeros(site.filters) for site in sites]
        uses = zip(maps.sites, maps.tensors, maps.positions, by_map, strict=True)
        for number, z, positions, dz in uses:
            if dz is not None:  # None: the loss does not depend on z.
                saliency = self.criterion(z, dz, sites[number].channel_axis)
                sums[number] += tf.reduce_sum(saliency, axis=0) / tf.cast(positions, tf.float32)
        return tf.concat(sums, axis=0)

    @property
    def seen(self) -> int:
        """Number of examples that came since the last reset."""
        return int(self._examples[0])

    @property
    def examples(self) -> int:
        """Number of examples scored since the last reset: without batches that overflowed."""
        return int(self._examples[1])

    def result(self) -> dict[str, np.ndarray]:
        """Returns the scores: by layer name, float32 `[filters]`; zeros before the first batch."""
        means = self._sums.numpy() / np.float32(max(self.examples, 1))
        ends = np.cumsum([site.filters for site in self.sites.values()])
        return dict(zip(self.sites, np.split(means, ends[:-1]), strict=True))

    def reset(self) -> None:
        """Forgets all examples seen."""
        self._sums.assign(tf.zeros_like(self._sums))
        self._examples.assign([0.0, 0.0])


def _positions(output: tf.Tensor, channel_axis: int) -> int | tf.Tensor:
    """Number of positions of a feature map, known when traced wherever the shape is."""
    static, channel_axis = output.shape, channel_axis % output.shape.rank
    axes = [axis for axis in range(1, static.rank) if axis != channel_axis]
    if all(static[axis] is not None for axis in axes):
        return int(np.prod([static[axis] for axis in axes]))
    return tf.cast(tf.reduce_prod(tf.gather(tf.shape(output), axes)), tf.float32)

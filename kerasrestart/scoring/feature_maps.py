"""The feature maps of one forward pass, and what a criterion makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.network.graph import Call
from kerasrestart.scoring.criteria import Criterion, Needs


@dataclasses.dataclass
class FeatureMaps:
    """What one forward pass leaves at the reading places, use by use in the order of the filter_layers.

    Attributes:
        layers: The number of the filter layer that each belongs to.
        tensors: The feature maps; empty until the recording context has ended.
        positions: For each, what its sum over positions is divided by: an int, or a float32 scalar
            tensor where the size of the images is not known when traced.
        reader_input_means: Means of what readers of filters got, where these are asked for; else None.
        complete: Whether the recording context has ended.
    """

    layers: list[int] = dataclasses.field(default_factory=list)
    tensors: list[tf.Tensor] = dataclasses.field(default_factory=list)
    positions: list[int | tf.Tensor] = dataclasses.field(default_factory=list)
    reader_input_means: tf.Tensor | None = None
    complete: bool = False

    def check_complete(self) -> None:
        """Raises ValueError where the recording context has not ended yet."""
        if not self.complete:
            raise ValueError(
                "There are no feature maps yet: make the forward pass inside the recording "
                "context, and take the gradients when that has ended."
            )


def uses_of(filter_layer: FilterLayer, criterion: Criterion) -> Sequence[tuple[Call, Call]]:
    """For each use: the call whose positions are counted, and the one that is read."""
    if not criterion.needs_maps:
        return ()
    if criterion.needs is Needs.CONTRIBUTION:
        return filter_layer.reads
    return [(call, call) for call in filter_layer.activations]


def sums_of_maps(
    criterion: Criterion,
    filter_layers: Sequence[FilterLayer],
    maps: FeatureMaps,
    by_map: Sequence[tf.Tensor | None] | None = None,
) -> tf.Tensor:
    """Sums of the saliencies over the batch, all filters of all layers end to end.

    Args:
        criterion: One that needs feature maps.
        filter_layers: The scored layers.
        maps: Their feature maps.
        by_map: For each, the gradient of the loss by it. Defaults to None: none is needed.

    Returns:
        float32 `[filters of all layers]`.
    """
    by_map = [None] * len(maps.tensors) if by_map is None else by_map
    sums: list[tf.Tensor | None] = [None] * len(filter_layers)
    # What is the same for all layers comes once, behind the concatenation: in a network of
    # hundreds of layers each operation of a layer counts.
    divisors = np.ones(len(filter_layers), np.float32)
    uses = zip(maps.layers, maps.tensors, maps.positions, by_map, strict=True)
    for number, z, positions, dz in uses:
        if dz is None and criterion.needs_gradient:
            continue  # the loss does not depend on z
        saliency = criterion.saliency(z, dz, filter_layers[number].channel_axis)
        of_batch = tf.reduce_sum(saliency, axis=0)
        criterion.check(of_batch.shape, filter_layers[number].name, filter_layers[number].filters)
        if maps.layers.count(number) == 1 and isinstance(positions, int):
            divisors[number] = positions
        else:
            of_batch /= tf.cast(positions, tf.float32)
        sums[number] = of_batch if sums[number] is None else sums[number] + of_batch
    filters = [filter_layer.filters for filter_layer in filter_layers]
    whole = tf.concat(
        [tf.zeros(n) if of is None else of for n, of in zip(filters, sums, strict=True)], axis=0
    )
    return whole / np.repeat(divisors, filters)


def positions_of(output: tf.Tensor, channel_axis: int) -> int | tf.Tensor:
    """Number of positions of a feature map, known when traced wherever the shape is."""
    static, channel_axis = output.shape, channel_axis % output.shape.rank
    axes = [axis for axis in range(1, static.rank) if axis != channel_axis]
    if all(static[axis] is not None for axis in axes):
        return int(np.prod([static[axis] for axis in axes]))
    return tf.cast(tf.reduce_prod(tf.gather(tf.shape(output), axes)), tf.float32)

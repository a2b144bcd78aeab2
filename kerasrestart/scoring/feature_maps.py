"""The feature maps of one forward pass, and what a criterion makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kerasrestart.network.graph import Call
from kerasrestart.network.sites import Site
from kerasrestart.scoring.criteria import Criterion, Needs


@dataclasses.dataclass
class FeatureMaps:
    """What one forward pass leaves at the reading places, use by use in the order of the sites.

    Attributes:
        sites: The number of the site that each belongs to.
        tensors: The feature maps; empty until the recording context has ended.
        positions: For each, what its sum over positions is divided by: an int, or a float32 scalar
            tensor where the size of the images is not known when traced.
        mean_inputs: Means of what readers of filters got, where these are asked for; else None.
        complete: Whether the recording context has ended.
    """

    sites: list[int] = dataclasses.field(default_factory=list)
    tensors: list[tf.Tensor] = dataclasses.field(default_factory=list)
    positions: list[int | tf.Tensor] = dataclasses.field(default_factory=list)
    mean_inputs: tf.Tensor | None = None
    complete: bool = False

    def check_complete(self) -> None:
        """Raises ValueError where the recording context has not ended yet."""
        if not self.complete:
            raise ValueError(
                "There are no feature maps yet: make the forward pass inside the recording "
                "context, and take the gradients when that has ended."
            )


def uses_of(site: Site, criterion: Criterion) -> Sequence[tuple[Call, Call]]:
    """For each use: the call whose positions are counted, and the one that is read."""
    if not criterion.needs_maps:
        return ()
    if criterion.needs is Needs.CONTRIBUTION:
        return site.reads
    return [(call, call) for call in site.activations]


def sums_of_maps(
    criterion: Criterion,
    sites: Sequence[Site],
    maps: FeatureMaps,
    by_map: Sequence[tf.Tensor | None] | None = None,
) -> tf.Tensor:
    """Sums of the saliencies over the batch, all filters of all layers end to end.

    Args:
        criterion: One that needs feature maps.
        sites: The scored layers.
        maps: Their feature maps.
        by_map: For each, the gradient of the loss by it. Defaults to None: none is needed.

    Returns:
        float32 `[filters of all layers]`.
    """
    by_map = [None] * len(maps.tensors) if by_map is None else by_map
    sums: list[tf.Tensor | None] = [None] * len(sites)
    # What is the same for all layers comes once, behind the concatenation: in a network of
    # hundreds of layers each operation of a layer counts.
    divisors = np.ones(len(sites), np.float32)
    uses = zip(maps.sites, maps.tensors, maps.positions, by_map, strict=True)
    for number, z, positions, dz in uses:
        if dz is None and criterion.needs_gradient:
            continue  # the loss does not depend on z
        saliency = criterion.saliency(z, dz, sites[number].channel_axis)
        of_batch = tf.reduce_sum(saliency, axis=0)
        criterion.check(of_batch.shape, sites[number].name, sites[number].filters)
        if maps.sites.count(number) == 1 and isinstance(positions, int):
            divisors[number] = positions
        else:
            of_batch /= tf.cast(positions, tf.float32)
        sums[number] = of_batch if sums[number] is None else sums[number] + of_batch
    filters = [site.filters for site in sites]
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

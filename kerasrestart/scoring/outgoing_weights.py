"""The L1 norms of the weights by which other layers read each filter."""

from __future__ import annotations

import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayers

NO_READER = "no weights are known that read its channels"


class OutgoingWeights:
    """The layers that read each scored layer, and on which channels.

    Where filters are added up, as at the end of residual blocks, the weights that read the sum
    count for each of them.

    Args:
        found: The filter layers of a model.

    Attributes:
        out_of_reach: Numbers of the layers whose outgoing weights are not known, and why.
    """

    def __init__(self, found: FilterLayers):
        self._layers = list(found.layers.values())
        self._readers = [found.channels.readers_of(layer.layer) for layer in self._layers]
        self.out_of_reach = {
            number: NO_READER for number, readers in enumerate(self._readers) if not readers
        }

    def norms(self) -> tf.Tensor:
        """The norms as the weights are now: float32 `[filters of all layers]`, end to end."""
        return tf.concat([self._of_layer(n) for n in range(len(self._layers))], axis=0)

    def _of_layer(self, number: int) -> tf.Tensor:
        filters = self._layers[number].filters
        norms = [tf.zeros(filters)]
        for reader, filter_of in self._readers[number]:
            kernel = tf.cast(tf.abs(kernels.reading_kernel(reader).value), tf.float32)
            by_channel = kernels.sums_by_channel(reader, kernel)
            # Channels of other layers' filters, marked -1, are dropped.
            norms.append(tf.math.unsorted_segment_sum(by_channel, filter_of, filters))
        return tf.add_n(norms)

"""The inputs of the layers that read filters, of which the means are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayers


class ReaderInputs:
    """The layers that read filters which could lose their outgoing weights, and their input means.

    Args:
        found: The filter layers of a model.

    Attributes:
        readers: The layers, by key.
        size: How many numbers the means of all of them are together.
    """

    def __init__(self, found: FilterLayers):
        paths = [found.channels.outgoing(layer.layer) for layer in found.layers.values()]
        self.readers: dict[str, layers.Layer] = {
            found.graph.name_of(reader.layer): reader.layer
            for path in paths
            if not path.obstacle()
            for reader in path.readers
        }
        self.size = sum(map(kernels.channels_of, self.readers.values()))
        self._missing: set[str] = set()

    @staticmethod
    def mean(layer: layers.Layer, tensor: tf.Tensor) -> tf.Tensor:
        """Mean over examples and positions of what a layer reads, float32 `[channels]`."""
        axis = kernels.channel_axis_of(layer) % tensor.shape.rank
        others = [other for other in range(tensor.shape.rank) if other != axis]
        return tf.reduce_mean(tf.cast(tensor, tf.float32), others)

    def means(self, inputs: Mapping[str, Sequence[tf.Tensor]]) -> tf.Tensor:
        """Means of one batch.

        Args:
            inputs: By key of a reader, the means of its calls.

        Returns:
            float32 `[size]`: the means of all readers, end to end.
        """
        means = []
        for name, layer in self.readers.items():
            of_calls = inputs.get(name, ())
            if of_calls:
                means.append(tf.add_n(list(of_calls)) / len(of_calls))
            else:  # it ran where nothing can be read
                self._missing.add(name)
                means.append(tf.zeros(kernels.channels_of(layer)))
        return tf.concat(means, axis=0)

    def start_of(self, name: str) -> int:
        """The place of a reader's first number in `means`."""
        before = list(self.readers).index(name)
        return sum(map(kernels.channels_of, list(self.readers.values())[:before]))

    def by_layer(self, means: np.ndarray) -> dict[str, np.ndarray]:
        """Splits `[size]` into the readers' means, by key; without those that were not read."""
        ends = np.cumsum([kernels.channels_of(layer) for layer in self.readers.values()])
        split = zip(self.readers, np.split(means, ends[:-1]), strict=True)
        return {name: of_layer for name, of_layer in split if name not in self._missing}

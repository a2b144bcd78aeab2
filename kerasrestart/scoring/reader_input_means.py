"""What layers read on average: by it a bias makes up for a filter that is taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayers, find_filter_layers
from kerasrestart.network.graph import Call
from kerasrestart.scoring.batches import as_batches
from kerasrestart.scoring.recorder import record_outputs


def reader_input_means(
    model: keras.Model, x: Any, *, batch_size: int = 128
) -> dict[str, np.ndarray]:
    """Means of what layers read of filters, over a set of examples, in inference mode.

    Args:
        model: A built Functional or Sequential model.
        x: Inputs: arrays, or batches `x`, `(x, y)` or `(x, y, sample_weight)` as a
            `tf.data.Dataset` or a `keras.utils.PyDataset`.
        batch_size: Examples in a batch, where `x` is arrays. Defaults to 128.

    Returns:
        By name of each layer that reads channels of filters by a kernel, float32 `[channels]`: the
        mean of its input over examples, positions and uses of the layer.

    Raises:
        ValueError: There is no example, or the model has no filters.
        TypeError: The model has no graph; or `x` is neither arrays nor a data set.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more. Received: {batch_size}")
    batches = as_batches(x, size=batch_size)
    inputs = ReaderInputs(find_filter_layers(model, ".*"))
    sums, examples = tf.Variable(tf.zeros(inputs.size)), 0

    @tf.function(reduce_retracing=True)
    def add_batch(x: Any) -> tf.Tensor:
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        with record_outputs(inputs.operations) as outputs:
            model(x, training=False)
        sums.assign_add(tf.cast(size, tf.float32) * inputs.means(outputs))
        return size

    for batch in batches:
        examples += int(add_batch(keras.utils.unpack_x_y_sample_weight(batch)[0]))
    if not examples:
        raise ValueError("There is no example to take means over: x is empty.")
    return inputs.by_layer(sums.numpy() / np.float32(examples))


class ReaderInputs:
    """The inputs of all layers that read filters which could lose their outgoing weights.

    Args:
        found: The filter layers of a model; their readers are supported.

    Attributes:
        size: How many numbers the means of all these layers are together.
    """

    def __init__(self, found: FilterLayers):
        channels = ChannelMap(found.graph)
        paths = [channels.outgoing(filter_layer.layer) for filter_layer in found.layers.values()]
        readers = {r.layer.name: r.layer for p in paths if not p.obstacle() for r in p.readers}
        makes = {tensor: call for call in found.graph.calls for tensor in call.outputs}
        self._readers: dict[str, layers.Layer] = readers
        # For each reader and each of its uses: the call that makes what it reads, and which of that
        # call's outputs it is.
        self._inputs: dict[str, list[tuple[Call, int]]] = {}
        for name, layer in readers.items():
            read = [call.inputs[0] for call in found.graph.calls_of(layer)]
            self._inputs[name] = [(makes[t], makes[t].outputs.index(t)) for t in read]
        self.size = sum(map(kernels.channels_of, readers.values()))

    @property
    def operations(self) -> list[keras.Operation]:
        """The operations of which the outputs are read."""
        return [call.operation for uses in self._inputs.values() for call, _ in uses]

    def means(self, outputs: Mapping[int, Sequence[Any]]) -> tf.Tensor:
        """Means of one batch.

        Args:
            outputs: What `record_outputs(operations)` has recorded.

        Returns:
            float32 `[size]`: the means of all readers, end to end.
        """
        means = []
        for name, uses in self._inputs.items():
            axis, of_uses = kernels.channel_axis_of(self._readers[name]), []
            for call, which in uses:
                output = outputs[id(call.operation)][call.occurrence]
                tensor = tf.cast(keras.tree.flatten(output)[which], tf.float32)
                others = [a for a in range(tensor.shape.rank) if a != axis % tensor.shape.rank]
                of_uses.append(tf.reduce_mean(tensor, others))
            means.append(tf.add_n(of_uses) / len(of_uses))
        return tf.concat(means, axis=0)

    def by_layer(self, means: np.ndarray) -> dict[str, np.ndarray]:
        """Splits `[size]` into the readers' means, by name."""
        ends = np.cumsum([kernels.channels_of(layer) for layer in self._readers.values()])
        return dict(zip(self._readers, np.split(means, ends[:-1]), strict=True))

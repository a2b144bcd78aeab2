"""What layers read on average: by it a bias makes up for a filter that is taken away."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.input_specs import has_input_layers
from kerasrestart.scoring import criteria
from kerasrestart.scoring.batches import as_batches, call_in_inference
from kerasrestart.scoring.plan import ReadingPlan
from kerasrestart.scoring.reader_inputs import ReaderInputs
from kerasrestart.scoring.step_record import StepRecord


def reader_input_means(
    model: keras.Model, x: Any, *, batch_size: int = 128
) -> dict[str, np.ndarray]:
    """Means of what layers read of filters, over a set of examples, in inference mode.

    ```python
    chosen = kerasrestart.select_filters(kerasrestart.score_filters(model, x, y), fraction=0.1)
    means = kerasrestart.reader_input_means(model, x)
    kerasrestart.restart_filters(model, chosen, outgoing="zero", reader_input_means=means)
    ```

    Args:
        model: A built model.
        x: Inputs: arrays, or batches `x`, `(x, y)` or `(x, y, sample_weight)` as a
            `tf.data.Dataset` or a `keras.utils.PyDataset`.
        batch_size: Examples in a batch, where `x` is arrays. Defaults to 128.

    Returns:
        By name of each layer that reads channels of filters by a kernel, float32 `[channels]`: the
        mean of its input over examples, positions and uses of the layer.

    Raises:
        ValueError: There is no example, or the model has no filters or cannot be traced.
        TypeError: `model` is not a Keras model; or `x` is neither arrays nor a data set.
    """
    batches = as_batches(x, size=batch_size)
    example = keras.utils.unpack_x_y_sample_weight(batches.element_spec)[0]
    found = find_filter_layers(model, ".*", None if has_input_layers(model) else example)
    inputs = ReaderInputs(found)
    nothing = criteria.CRITERIA["magnitude"]
    plan = ReadingPlan(found.graph, list(found.layers.values()), nothing)
    sums, examples = tf.Variable(tf.zeros(inputs.size)), 0

    @tf.function(reduce_retracing=True, autograph=False)
    def add_batch(x: Any) -> tf.Tensor:
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        record = StepRecord(plan, nothing, inputs)
        with record.listening():
            call_in_inference(model, x)
        sums.assign_add(tf.cast(size, tf.float32) * inputs.means(record.inputs))
        return size

    for batch in batches:
        examples += int(add_batch(keras.utils.unpack_x_y_sample_weight(batch)[0]))
    if not examples:
        raise ValueError("There is no example to take means over: x is empty.")
    return inputs.by_layer(sums.numpy() / np.float32(examples))

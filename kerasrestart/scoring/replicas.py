"""Replicas of a model, one for each device: their sums, and their parts of each batch.

They belong to the `tf.distribute.Strategy` in whose scope the model was built, or to the strategy
of the step that is running. Without a strategy there is one replica.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def sum_variable(value: Any, name: str) -> tf.Variable:
    """Makes a variable that each replica adds to on its own; reading it gives the sum over all.

    Args:
        value: Its first value, zero: under a strategy every replica begins with it.
        name: Its name.
    """
    return tf.Variable(
        value,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def count() -> int:
    """Number of replicas that the current step runs on."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Undoes the division by the number of replicas that a Keras loss carries under a strategy."""
    return value * count() if count() > 1 else value


def total(own: tf.Tensor) -> tf.Tensor:
    """The sum over all replicas of a number that each has; called in a replica's step."""
    if count() == 1:
        return own
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)


def share_of_sum(own: tf.Tensor) -> tf.Tensor:
    """A replica's part of the sum over all replicas, times the number of replicas.

    It is 1 where all values are equal, and 0 where all are zero.

    Args:
        own: float32 scalar, 0 or more; called in a replica's step.
    """
    return tf.math.divide_no_nan(over_replicas(own), total(own))


def split_batches(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Gives each replica its part of each batch, in order: sizes differ by one example at most.

    TensorFlow fills one replica after the other, so that the last ones may get no example of a
    short batch. A worker makes whole batches, and keeps its parts.

    Args:
        dataset: Batches: any structure of tensors whose first axis is that of the examples.
        strategy: The strategy.

    Returns:
        What `fit`, or a loop in the strategy's scope, can take: `dataset` itself where there is one
        replica.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return dataset

    def parts_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
        of_worker = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * of_worker

        def parts(*batch: Any) -> tf.data.Dataset:
            size = tf.shape(keras.tree.flatten(batch)[0], tf.int64)[0]

            def part(number: tf.Tensor) -> Any:
                begin, end = size * number // replicas, size * (number + 1) // replicas
                of_replica = keras.tree.map_structure(lambda t: t[begin:end], batch)
                return of_replica if len(of_replica) > 1 else of_replica[0]

            return tf.data.Dataset.range(first, first + of_worker).map(part)

        split, count = dataset.flat_map(parts), dataset.cardinality()
        if count != tf.data.UNKNOWN_CARDINALITY:
            known = count * of_worker if count > 0 else count
            split = split.apply(tf.data.experimental.assert_cardinality(known))
        return split.prefetch(2 * of_worker)

    return strategy.distribute_datasets_from_function(parts_of)

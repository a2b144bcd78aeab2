"""TensorFlow's strategies for several devices of one machine."""

from __future__ import annotations

import contextlib
import os

import keras
import tensorflow as tf

from kerasrestart.network.keras_internals import layers_inside
from kerasrestart.scoring.replicas import split_batches


def set_up_devices() -> list[str]:
    """Makes TensorFlow find its devices, and lets it take GPU memory as it is needed.

    Returns:
        The GPUs, such as `["GPU:0"]`; `["CPU"]` where there is none.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # the process uses it already
            tf.config.experimental.set_memory_growth(gpu, True)
    found = tf.config.list_logical_devices("GPU")
    return [f"GPU:{number}" for number in range(len(found))] or ["CPU"]


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes the strategy that a setting names.

    Args:
        name: `"none"`: TensorFlow's default, of one replica; or `"mirrored"`: one replica on each
            GPU, or on each logical device of the CPU where there is no GPU.
    """
    set_up_devices()
    if name == "none":
        return tf.distribute.get_strategy()
    tf.get_logger().setLevel("WARNING")  # otherwise each collective prints a line
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    # Of a cluster, or of nonsense: a run is on one machine.
    config = os.environ.pop("TF_CONFIG", None)
    try:
        return tf.distribute.MirroredStrategy(
            [f"{kind}:{n}" for n in range(len(tf.config.list_logical_devices(kind)))]
        )
    finally:
        if config is not None:
            os.environ["TF_CONFIG"] = config


def check_batches(strategy: tf.distribute.Strategy, examples: int, batch_size: int) -> None:
    """Checks that the batches of an epoch can be split over the replicas.

    Keras averages the replicas' parts of the first batch, and fails where their sizes differ. Of a
    later batch each replica needs one example: a batch norm would return NaN for none, and
    TensorFlow's convolutions fail on CPUs.

    Args:
        strategy: The strategy.
        examples: Number of examples in an epoch.
        batch_size: Examples of a batch; the last one may have fewer.

    Raises:
        ValueError: The first batch cannot be split evenly, or the last has too few examples.
    """
    replicas, last = strategy.num_replicas_in_sync, examples % batch_size or batch_size
    if min(examples, batch_size) % replicas:
        raise ValueError(
            f"A batch is split over {replicas} replicas: --batch_size must be a multiple of "
            f"{replicas}, with at least as many images. Received: batches of {batch_size}, "
            f"{examples} images"
        )
    if last < replicas:
        raise ValueError(
            f"Each of {replicas} replicas needs an example of each batch, but of {examples} in "
            f"batches of {batch_size} the last has {last}: pass another --batch_size."
        )


def evaluation_input(
    batches: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Splits batches over replicas, for a `fit` or `evaluate` with a number of steps.

    A split dataset reports the number of its parts, which is not that of its batches. Keras would
    keep an iterator that has ended, and stop with `StopIteration` in the second epoch. Repeated
    without end, the dataset reports no number.

    Args:
        batches: All batches of one evaluation.
        strategy: The strategy.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches
    return split_batches(batches.repeat(), strategy)


def synchronize_norms(model: keras.Model) -> None:
    """Makes batch norms use the statistics of the whole batch, as they do on one device.

    Otherwise each replica has statistics of its own, and those of the first are saved.
    """
    for layer in layers_inside(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True

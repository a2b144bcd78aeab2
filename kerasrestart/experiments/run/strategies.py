"""TensorFlow's strategies for several devices and machines, and what workers agree on."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class WorkersStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """A `MultiWorkerMirroredStrategy` under which the `fit` of Keras 3 works.

    Keras asks it to reduce two things that it cannot: a whole batch, of which only shapes and types
    are looked at; and along the first axis the logs of a step, which are scalars and have none.
    Neither needs the other workers: the logs of an epoch come from metrics, summed over all.
    """

    def reduce(self, reduce_op, value, axis):
        """Reduces as `tf.distribute.Strategy.reduce` does, and these two by what is held here."""
        if tf.nest.is_nested(value):
            return tf.nest.map_structure(lambda v: self.experimental_local_results(v)[0], value)
        held = self.experimental_local_results(value)
        if axis == 0 and held[0].shape.rank == 0:
            return tf.reduce_mean(tf.stack(held), axis=0)
        return super().reduce(reduce_op, value, axis)


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes the strategy that a flag names.

    With several workers this waits for the others, and must come before TensorFlow has computed
    anything.

    Args:
        name: A value of `--strategy`. `"none"` gives TensorFlow's default, of one
            replica.

    Raises:
        ValueError: TF_CONFIG is missing or wrong, with several workers.
    """
    if name == "multiworker":
        cluster, task = read_cluster(os.environ)
        print(f"Worker {task + 1} of {len(cluster)}: waiting for the others.", flush=True)
    if name != "none":
        tf.get_logger().setLevel("WARNING")  # else each collective is a line
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if name == "multiworker":
        return WorkersStrategy()
    if name == "mirrored":
        # All GPUs, or the logical devices of a CPU.
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [f"{kind}:{n}" for n in range(len(tf.config.list_logical_devices(kind)))]
        )
    return tf.distribute.get_strategy()


def read_cluster(environment: Mapping[str, str]) -> tuple[list[str], int]:
    """Reads TF_CONFIG.

    Args:
        environment: Variables of the environment.

    Returns:
        The addresses of all workers, the chief first, and which of them this process is.

    Raises:
        ValueError: It is missing, or does not say that.
    """
    text = environment.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        kinds, task = config["cluster"], config["task"]
        if set(kinds) - {"chief", "worker"}:
            raise ValueError(f"tasks of other kinds than chief and worker: {', '.join(kinds)}")
        addresses = [*kinds.get("chief", []), *kinds["worker"]]
        if not all(isinstance(address, str) and ":" in address for address in addresses):
            raise ValueError("addresses are host:port")
        own = kinds[task["type"]][int(task["index"])]
        return addresses, addresses.index(own)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        kind = "" if isinstance(error, json.JSONDecodeError) else f" ({error!r})"
        raise ValueError(
            "--strategy=multiworker needs the environment variable TF_CONFIG, with the addresses "
            f"of all workers and the place of this one, such as {_EXAMPLE}. "
            f"Received: {text!r}{kind if text else ''}"
        ) from error


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one, of all workers, that writes."""
    return not isinstance(strategy, WorkersStrategy) or read_cluster(os.environ)[1] == 0


def check_batches(strategy: tf.distribute.Strategy, examples: int, batch_size: int) -> None:
    """Checks that each replica has an example of each batch.

    A batch norm would make NaN of none; and on CPUs TensorFlow's convolutions fail.

    Args:
        strategy: The strategy.
        examples: How many there are in an epoch.
        batch_size: Examples of a batch, but for the last.

    Raises:
        ValueError: The last batch has fewer examples than there are replicas.
    """
    replicas, last = strategy.num_replicas_in_sync, examples % batch_size or batch_size
    if last < replicas:
        raise ValueError(
            f"Each of {replicas} replicas needs an example of each batch, but of {examples} in "
            f"batches of {batch_size} the last has {last}: pass another --batch_size."
        )


def synchronize_norms(model: keras.Model) -> None:
    """Makes batch norms take the statistics of the whole batch, as they would on one device.

    Else each replica would have statistics of its own, and those of the first would be saved.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def agree(strategy: tf.distribute.Strategy, identity: Any) -> None:
    """Checks that all workers are to compute the same.

    Args:
        strategy: The strategy.
        identity: Plain data.

    Raises:
        ValueError: Another worker has other data.
    """
    if not isinstance(strategy, WorkersStrategy):
        return
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()
    rows = _gather(strategy, np.frombuffer(digest, np.int32)).reshape(-1, 8)
    if (rows != rows[0]).any():
        raise ValueError(
            "The workers have not all the same flags and images: start all of them with the same "
            "command line."
        )


def take_files_of_chief(
    strategy: tf.distribute.Strategy, folder: pathlib.Path, names: Iterable[str]
) -> None:
    """Copies files of the chief's folder into that of each other worker.

    Args:
        strategy: The strategy.
        folder: The own folder.
        names: Names of files; those that the chief does not have are left out.
    """
    if not isinstance(strategy, WorkersStrategy):
        return
    chief, packed = is_chief(strategy), b""
    for path in [folder / name for name in names] if chief else []:
        data = path.read_bytes() if path.exists() else b""
        packed += len(data).to_bytes(8, "little") + data
    words = np.frombuffer(packed + bytes(-len(packed) % 4), np.int32)
    # The chief's come first. From the others a zero: TensorFlow crashes where there is nothing.
    found = _gather(strategy, words if chief else np.zeros(1, np.int32)).tobytes()
    for name in () if chief else names:
        end = 8 + int.from_bytes(found[:8], "little")
        if end > 8:
            (folder / name).write_bytes(found[8:end])
        found = found[end:]


def _gather(strategy: tf.distribute.Strategy, words: np.ndarray) -> np.ndarray:
    """The int32 words of all replicas, end to end."""
    held = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(words))
    return strategy.gather(held, axis=0).numpy()

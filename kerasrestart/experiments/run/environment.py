"""What a run depends on besides its settings: global options of Keras and TensorFlow.

A user's `~/.keras/keras.json` and the environment can set them; a run sets those that it can, and
records the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_RECORDED_VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS")


@contextlib.contextmanager
def run_environment(dtype_policy: str) -> Iterator[None]:
    """Sets Keras's global options to what a run expects; afterwards they are what they were.

    Args:
        dtype_policy: Name of the dtype policy, such as `"float32"` or `"mixed_float16"`.
    """
    config = keras.config
    before = config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy()
    config.set_floatx("float32")
    config.set_epsilon(1e-7)
    config.set_image_data_format("channels_last")
    config.set_dtype_policy(dtype_policy)
    try:
        yield
    finally:
        floatx, epsilon, image_data_format, policy = before
        config.set_floatx(floatx)
        config.set_epsilon(epsilon)
        config.set_image_data_format(image_data_format)
        config.set_dtype_policy(policy)


def describe_environment() -> dict[str, Any]:
    """Returns the options that change the numbers of a run, by name, as they are now."""
    return {
        "backend": keras.config.backend(),
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        **{name: os.environ.get(name) for name in _RECORDED_VARIABLES},
    }

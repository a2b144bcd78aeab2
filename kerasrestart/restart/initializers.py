"""What restarted filters are initialised with: the `--init` names and the rules behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import random

from kerasrestart.names import PAPER_INITIALIZERS as NAMES

# A rule draws a whole kernel, of which the columns of the restarted filters are then taken: so each
# rule sees the full fan-in and fan-out. (kernel, axis of the filters, seed) -> new kernel.
Rule = Callable[[tf.Tensor, int, int], tf.Tensor]


def he(kernel: tf.Tensor, axis: int, seed: int) -> tf.Tensor:
    """Equation (4) of "Partial Restart of Neural Network" as printed: U(-b, b), b = sqrt(6) / (2n).

    n is the fan-in of a filter. The bound of He et al. (2015) is sqrt(6 / n), which Keras has as
    `he_uniform`; for n = 75 the printed one is 0.016 where He's is 0.28.
    """
    fan_in = math.prod(kernel.shape) // kernel.shape[axis]
    bound = math.sqrt(6) / (2 * fan_in)
    return random.uniform(kernel.shape, -bound, bound, dtype=kernel.dtype, seed=seed)


def minmax(kernel: tf.Tensor, axis: int, seed: int) -> tf.Tensor:
    """U(min, max) of the filter's own present weights."""
    others = _all_axes_but(axis, kernel)
    low = tf.reduce_min(kernel, axis=others, keepdims=True)
    high = tf.reduce_max(kernel, axis=others, keepdims=True)
    drawn = low + (high - low) * random.uniform(kernel.shape, dtype=kernel.dtype, seed=seed)
    return tf.clip_by_value(drawn, low, high)  # rounding may leave the range by one bit


def distribution(kernel: tf.Tensor, axis: int, seed: int) -> tf.Tensor:
    """Drawn with replacement from the filter's own present weights: their distribution as it is."""
    order = [*_all_axes_but(axis, kernel), axis % kernel.shape.rank]
    filters_last = tf.transpose(kernel, order)
    flat = tf.reshape(filters_last, (-1, filters_last.shape[-1]))
    rows = random.randint(flat.shape, 0, flat.shape[0], seed=seed)
    drawn = keras.ops.take_along_axis(flat, rows, axis=0)
    return tf.transpose(tf.reshape(drawn, filters_last.shape), tf.argsort(order))


def _all_axes_but(axis: int, kernel: tf.Tensor) -> list[int]:
    return [a for a in range(kernel.shape.rank) if a != axis % kernel.shape.rank]


OWN_RULES: dict[str, Rule] = {"he": he, "minmax": minmax, "distribution": distribution}
KERAS_RULES = {
    "uniform": keras.initializers.RandomUniform(-0.05, 0.05),
    "xavier": keras.initializers.GlorotUniform(),
}


def get(initializer: Any) -> Rule | None:
    """Returns the rule behind an initializer.

    Args:
        initializer: One of the names `uniform`, `he`, `xavier`, `minmax`, `distribution`, `none`
            (or None: nothing is reset), or what `keras.initializers.get` takes: a name, a
            config dict, an instance. The seed of an instance is replaced at each draw by one made
            from the restart's own seed: otherwise each restart would draw the same weights.

    Returns:
        The rule, or None for `none`.

    Raises:
        ValueError: Neither a name of ours nor an initializer of Keras.
    """
    if initializer is None or initializer == "none":
        return None
    if isinstance(initializer, str) and initializer in OWN_RULES:
        return OWN_RULES[initializer]
    if isinstance(initializer, str) and initializer in KERAS_RULES:
        return from_keras(KERAS_RULES[initializer])
    try:
        return from_keras(keras.initializers.get(initializer))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Unknown initializer: {initializer!r}. Expected one of {list(NAMES)}, or the name, "
            "config or instance of a Keras initializer."
        ) from error


def from_keras(initializer: Callable[..., Any]) -> Rule:
    """The rule that draws by a Keras initializer, or a function like one."""

    def draw(kernel: tf.Tensor, axis: int, seed: int) -> tf.Tensor:
        del axis  # Keras reads fan-in and fan-out off the shape
        drawn = initializer
        if isinstance(initializer, keras.initializers.Initializer):
            config = initializer.get_config()
            if "seed" in config:
                drawn = type(initializer).from_config({**config, "seed": seed})
        return tf.convert_to_tensor(drawn(kernel.shape, dtype=kernel.dtype))

    return draw


def describe(initializer: Any) -> str:
    """A name for messages and records.

    Args:
        initializer: As in `get`.
    """
    if initializer is None or isinstance(initializer, str):
        return initializer or "none"
    if isinstance(initializer, dict):
        return str(initializer.get("class_name", initializer))
    return getattr(initializer, "__name__", type(initializer).__name__)

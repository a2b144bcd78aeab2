"""Initializers for restarted filters: the names, and the rules behind them.

| name | new incoming weights of a restarted filter |
|---|---|
| `uniform` | U(-0.05, 0.05) |
| `he` | U(-b, b), b = sqrt(6) / (2 fan-in): equation (4) of the paper as printed |
| `xavier` | Glorot uniform |
| `minmax` | U(min, max) of the filter's own present weights |
| `distribution` | sampled with replacement from the filter's own present weights |
| `orthogonal_to_survivors` | directions that the surviving filters do not use |
| `norm_matched` | Xavier, scaled to the survivors' mean norm; another base: `NormMatched(base)` |
| `clone` | a surviving filter plus noise; another amount: `Clone(noise)` |
| `own` | as the layer's own `kernel_initializer` draws them |
| any Keras initializer | by name, config or instance: `he_uniform`, `orthogonal`, ... |

A rule is a function `(kernel, axis, seed, chosen) -> new kernel`:

- `kernel`: the present weights of a layer, a tensor of any rank;
- `axis`: the axis of the filters in `kernel`: -1, or -2 for a transposed convolution;
- `seed`: an int from 0 to 2^31 - 1, different at each restart and for each layer. The same seed
  must give the same weights;
- `chosen`: bool array `[filters]`, true for the filters that get new weights. At least one is
  false: the survivors;
- it returns a whole kernel of the same shape. Only the chosen filters are used, so a rule sees the
  full fan-in and fan-out.

Your own initializer is such a function, passed as `initializer=`:

```python
import numpy as np

def as_the_mean_survivor(kernel, axis, seed, chosen):
    filters_first = np.moveaxis(kernel.numpy(), axis, 0)
    mean = filters_first[~chosen].mean(axis=0)
    noise = np.random.default_rng(seed).normal(0, 0.01, filters_first.shape)
    return np.moveaxis(mean + noise, 0, axis)

kerasrestart.PartialRestart(initializer=as_the_mean_survivor)
```
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import random

from kerasrestart.network.own_functions import form_of, takes
from kerasrestart.network.text import did_you_mean
from kerasrestart.restart.initializer_names import CONTROLS, INITIALIZERS, describe
from kerasrestart.restart.survivor_rules import (
    Clone,
    orthogonal_to_survivors,
    with_norm_of_survivors,
)

Rule = Callable[[tf.Tensor, int, int, np.ndarray], tf.Tensor]


def he(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """Draws U(-b, b), b = sqrt(6) / (2n), n the fan-in: equation (4) of the paper as printed.

    The bound of He et al. (2015) is sqrt(6 / n), which Keras calls `he_uniform`. For n = 75 the
    printed bound is 0.016 and He's is 0.28.

    Source: Han and Zhang, "Partial Restart of Neural Network", equation (4).
    """
    del chosen
    fan_in = math.prod(kernel.shape) // kernel.shape[axis]
    bound = math.sqrt(6) / (2 * fan_in)
    return random.uniform(kernel.shape, -bound, bound, dtype=kernel.dtype, seed=seed)


def minmax(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """Draws U(min, max) of each filter's own present weights."""
    del chosen
    others = _all_axes_but(axis, kernel)
    low = tf.reduce_min(kernel, axis=others, keepdims=True)
    high = tf.reduce_max(kernel, axis=others, keepdims=True)
    drawn = low + (high - low) * random.uniform(kernel.shape, dtype=kernel.dtype, seed=seed)
    return tf.clip_by_value(drawn, low, high)  # rounding may exceed the range by one bit


def distribution(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """Samples with replacement from each filter's own present weights."""
    del chosen
    order = [*_all_axes_but(axis, kernel), axis % kernel.shape.rank]
    filters_last = tf.transpose(kernel, order)
    flat = tf.reshape(filters_last, (-1, filters_last.shape[-1]))
    rows = random.randint(flat.shape, 0, flat.shape[0], seed=seed)
    drawn = keras.ops.take_along_axis(flat, rows, axis=0)
    return tf.transpose(tf.reshape(drawn, filters_last.shape), tf.argsort(order))


def _all_axes_but(axis: int, kernel: tf.Tensor) -> list[int]:
    return [a for a in range(kernel.shape.rank) if a != axis % kernel.shape.rank]


@dataclasses.dataclass(frozen=True, repr=False)
class NormMatched:
    """Draws by another initializer and scales each filter to the survivors' mean L2 norm.

    Where all survivors are zero, the filters are left as `base` draws them. A filter that `base`
    draws as zeros is drawn by `xavier`.

    Example:
    ```python
    kerasrestart.PartialRestart(initializer=kerasrestart.NormMatched("he_normal"))
    ```

    Args:
        base: The other initializer, as in `get`. Defaults to `"xavier"`.

    Raises:
        ValueError: `base` is not an initializer, or draws zeros only; at a draw: all filters are
            chosen.
    """

    base: Any = "xavier"

    def __post_init__(self):
        get(self.base, "base")
        is_zeros = isinstance(self.base, str) and self.base == "zeros"
        if is_zeros or isinstance(self.base, keras.initializers.Zeros):
            raise ValueError(
                "base must be an initializer that draws other numbers than zeros, which cannot be "
                f"scaled to the norm of the survivors. Received: {self.base!r}"
            )
        if isinstance(self.base, str) and self.base == "own":
            raise ValueError(
                "base must be one initializer, such as 'he_uniform'. Received: 'own', which is "
                "another in each layer"
            )

    def __call__(self, kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        """Draws a kernel."""
        drawn = get(self.base, "base")(kernel, axis, seed, chosen)
        return with_norm_of_survivors(drawn, kernel, axis, chosen, seed)

    def __repr__(self):
        return f"NormMatched(base={describe(self.base)!r})"


class Own:
    """Draws as the layer's own `kernel_initializer`; where no layer is known, by `xavier`."""

    def __call__(self, kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        """Draws a kernel of no layer."""
        return get("xavier")(kernel, axis, seed, chosen)

    def of_layer(self, layer: keras.Layer) -> Rule:
        """Returns the rule of a layer.

        Args:
            layer: A layer with filters.
        """
        for name in ("pointwise_initializer", "depthwise_initializer", "kernel_initializer"):
            if hasattr(layer, name):
                return from_keras(getattr(layer, name))
        return self


NAMED = {
    "uniform": keras.initializers.RandomUniform(-0.05, 0.05),
    "he": he,
    "xavier": keras.initializers.GlorotUniform(),
    "minmax": minmax,
    "distribution": distribution,
    "orthogonal_to_survivors": orthogonal_to_survivors,
    "norm_matched": NormMatched,
    "clone": Clone,
    "own": Own,
}
NAMES = tuple(NAMED)


def get(initializer: Any, argument: str = "initializer") -> Rule:
    """Returns the rule behind an initializer.

    Args:
        initializer: One of

            - a name of the table at the top of this module;
            - `NormMatched(base)` or `Clone(noise)`, for another base or noise than the names use;
            - your own rule, a function as described at the top of this module;
            - anything that `keras.initializers.get` takes: a name, a config dict, an instance, a
              function `(shape, dtype)`. The seed of an instance is replaced at each draw by one
              derived from the restart's seed: otherwise each restart would draw the same weights.
        argument: The argument that takes it, for errors. Defaults to `"initializer"`.

    Returns:
        The rule.

    Raises:
        ValueError: It is none of these.
    """
    if initializer is None or (isinstance(initializer, str) and initializer in CONTROLS):
        control = initializer or "none"
        raise ValueError(
            f"{argument} must be an initializer such as 'uniform'; a control is "
            f"PartialRestart(control={control!r}). Received: {initializer!r}"
        )
    try:
        found: Any = initializer
        if isinstance(initializer, str):
            found = NAMED.get(initializer, initializer)
        found = found() if inspect.isclass(found) else found
        if isinstance(found, Own):
            return found
        if _is_rule(found):
            return from_function(found)
        found = keras.initializers.get(found)
    except (ValueError, TypeError, KeyError) as error:  # KeyError: an incomplete config
        raise _unknown(argument, initializer) from error
    if not takes(found, "shape", dtype="dtype"):
        raise _unknown(argument, initializer)
    return from_keras(found)


def from_keras(initializer: Callable[..., Any]) -> Rule:
    """Returns the rule that draws by a Keras initializer, or by a function like one."""

    def draw(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        del axis, chosen  # Keras computes fan-in and fan-out from the shape
        kind: Any = type(initializer)
        if kind in _CONSTANT and len(kernel.shape) == 1:
            return _constant(kind, tuple(kernel.shape), kernel.dtype)
        drawn = initializer
        if isinstance(initializer, keras.initializers.Initializer):
            config = initializer.get_config()
            if "seed" in config:
                drawn = type(initializer).from_config({**config, "seed": seed})
        return tf.convert_to_tensor(drawn(kernel.shape, dtype=kernel.dtype))

    return draw


_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones)


@functools.lru_cache(maxsize=64)
def _constant(kind: Any, shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
    """What the norms and biases of a deep network begin with, made once for all."""
    with tf.init_scope():  # not a tensor of a graph that is traced now
        return tf.convert_to_tensor(kind()(shape, dtype=dtype))


def from_function(function: Rule) -> Rule:
    """Returns the rule that calls a user's rule."""

    def draw(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        return tf.convert_to_tensor(function(kernel, axis, seed, chosen))

    return draw


def _unknown(argument: str, initializer: Any) -> ValueError:
    form = "a function (kernel, axis, seed, chosen) -> kernel, or (shape, dtype) as of Keras's"
    if callable(initializer) and not inspect.isclass(initializer):
        return ValueError(f"{argument} must be {form}. Received: {form_of(initializer)}")
    hint = did_you_mean(initializer, INITIALIZERS) if isinstance(initializer, str) else ""
    return ValueError(
        f"{argument} must be one of {list(NAMES)}, the name, config or instance of a Keras "
        f"initializer, or {form}. Received: {initializer!r}{hint}"
    )


def _is_rule(initializer: Any) -> bool:
    # Keras initializers may also take four positional arguments, but they all take a `dtype`.
    return takes(initializer, "kernel", "axis", "seed", "chosen") and not takes(
        initializer, "shape", dtype="dtype"
    )


def derive_seed(seed: int, place: int) -> int:
    """Returns a seed that depends on `seed` and `place`, independent of those of other places.

    Args:
        seed: 0 or more.
        place: The number of the draw under this seed: 0 or more.

    Returns:
        From 0 to 2^31 - 1.
    """
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0] >> 1)

"""What restarted filters are initialised with: the `--init` names and the rules behind them.

A rule is a function `(kernel, axis, seed, chosen) -> new kernel`:

- `kernel`: the present weights of a layer, a tensor of any rank;
- `axis`: the axis of `kernel` along which its filters lie: -1, or -2 of a transposed convolution;
- `seed`: an int from 0 to 2^31 - 1, another at each restart and for each layer. The same seed is to
  give the same weights;
- `chosen`: bool array `[filters]`, true for the filters that get new weights. At least one is
  false: the survivors;
- it returns a whole kernel of the same shape, of which the chosen filters are then taken: so a rule
  sees the full fan-in and fan-out, and what it returns for the survivors is not used.

To write one's own initializer, write such a function and give it as `initializer=`:

```python
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
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import random

from kerasrestart.restart.initializer_names import PAPER_INITIALIZERS, SURVIVOR_INITIALIZERS
from kerasrestart.restart.survivor_rules import (
    Clone,
    orthogonal_to_survivors,
    with_norm_of_survivors,
)

Rule = Callable[[tf.Tensor, int, int, np.ndarray], tf.Tensor]
NAMES = (*PAPER_INITIALIZERS, *SURVIVOR_INITIALIZERS)


def he(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """Equation (4) of "Partial Restart of Neural Network" as printed: U(-b, b), b = sqrt(6) / (2n).

    n is the fan-in of a filter. The bound of He et al. (2015) is sqrt(6 / n), which Keras has as
    `he_uniform`; for n = 75 the printed one is 0.016 where He's is 0.28.
    """
    del chosen
    fan_in = math.prod(kernel.shape) // kernel.shape[axis]
    bound = math.sqrt(6) / (2 * fan_in)
    return random.uniform(kernel.shape, -bound, bound, dtype=kernel.dtype, seed=seed)


def minmax(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """U(min, max) of the filter's own present weights."""
    del chosen
    others = _all_axes_but(axis, kernel)
    low = tf.reduce_min(kernel, axis=others, keepdims=True)
    high = tf.reduce_max(kernel, axis=others, keepdims=True)
    drawn = low + (high - low) * random.uniform(kernel.shape, dtype=kernel.dtype, seed=seed)
    return tf.clip_by_value(drawn, low, high)  # rounding may leave the range by one bit


def distribution(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """Drawn with replacement from the filter's own present weights: their distribution as it is."""
    del chosen
    order = [*_all_axes_but(axis, kernel), axis % kernel.shape.rank]
    filters_last = tf.transpose(kernel, order)
    flat = tf.reshape(filters_last, (-1, filters_last.shape[-1]))
    rows = random.randint(flat.shape, 0, flat.shape[0], seed=seed)
    drawn = keras.ops.take_along_axis(flat, rows, axis=0)
    return tf.transpose(tf.reshape(drawn, filters_last.shape), tf.argsort(order))


def slots(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
    """The present weights, bias and norm as they are: a restart of the optimizer's slots alone."""
    del axis, seed, chosen
    return kernel


def _all_axes_but(axis: int, kernel: tf.Tensor) -> list[int]:
    return [a for a in range(kernel.shape.rank) if a != axis % kernel.shape.rank]


@dataclasses.dataclass(frozen=True, repr=False)
class NormMatched:
    """A rule: another rule's weights, each filter scaled to the survivors' mean L2 norm.

    Args:
        base: The other rule: what `get` takes but `"none"`. Defaults to `"xavier"`.

    Raises:
        ValueError: `base` is no rule; at a draw: no filter survives, the survivors are all zero, or
            a filter that `base` draws is.

    Example:
    ```python
    kerasrestart.PartialRestart(initializer=NormMatched("he_normal"))
    ```
    """

    base: Any = "xavier"

    def __post_init__(self):
        if get(self.base) is None:
            raise ValueError(f"base must be an initializer that draws. Received: {self.base!r}")

    def __call__(self, kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        """Draws a kernel, as a rule does."""
        drawn = get(self.base)(kernel, axis, seed, chosen)
        return with_norm_of_survivors(drawn, kernel, axis, chosen)

    def __repr__(self):
        return f"NormMatched(base={describe(self.base)!r})"


NAMED = {
    "uniform": keras.initializers.RandomUniform(-0.05, 0.05),
    "he": he,
    "xavier": keras.initializers.GlorotUniform(),
    "minmax": minmax,
    "distribution": distribution,
    "slots": slots,
    "orthogonal_to_survivors": orthogonal_to_survivors,
    "norm_matched": NormMatched,
    "clone": Clone,
}


def get(initializer: Any) -> Rule | None:
    """Returns the rule behind an initializer.

    Args:
        initializer: One of

            - a name: `uniform`, `he`, `xavier`, `minmax`, `distribution`, and
              `orthogonal_to_survivors`, `norm_matched`, `clone`, which look at the surviving
              filters; `slots`: the weights stay, only the optimizer forgets what it knew of them;
              `none` (or None): nothing is reset;
            - `NormMatched(base)` or `Clone(noise)`, for another base or noise than the names have;
            - a function of your own that is a rule: see the head of this module;
            - what `keras.initializers.get` takes: a name, a config dict, an instance, a function
              `(shape, dtype)`. The seed of an instance is replaced at each draw by one made from
              the restart's own seed: otherwise each restart would draw the same weights.

    Returns:
        The rule, or None for `none`.

    Raises:
        ValueError: None of these.
    """
    if initializer is None or initializer == "none":
        return None
    try:
        found: Any = initializer
        if isinstance(initializer, str):
            found = NAMED.get(initializer, initializer)
        found = found() if inspect.isclass(found) else found
        if found is slots:
            return slots
        if _is_rule(found):
            return from_function(found)
        found = keras.initializers.get(found)
    except (ValueError, TypeError, KeyError) as error:  # KeyError: a config that lacks an argument
        raise _unknown(initializer) from error
    if not _can_be_called(found, "shape", dtype="dtype"):
        raise _unknown(initializer)
    return from_keras(found)


def from_keras(initializer: Callable[..., Any]) -> Rule:
    """The rule that draws by a Keras initializer, or a function like one."""

    def draw(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        del axis, chosen  # Keras reads fan-in and fan-out off the shape
        drawn = initializer
        if isinstance(initializer, keras.initializers.Initializer):
            config = initializer.get_config()
            if "seed" in config:
                drawn = type(initializer).from_config({**config, "seed": seed})
        return tf.convert_to_tensor(drawn(kernel.shape, dtype=kernel.dtype))

    return draw


def from_function(function: Rule) -> Rule:
    """The rule that draws by a function of that signature, and looks at what it returns."""

    def draw(kernel: tf.Tensor, axis: int, seed: int, chosen: np.ndarray) -> tf.Tensor:
        drawn = tf.cast(function(kernel, axis, seed, chosen), kernel.dtype)
        if drawn.shape != kernel.shape:
            raise ValueError(
                f"Initializer {describe(function)} must return a kernel of shape {kernel.shape}. "
                f"Received: {drawn.shape}"
            )
        return drawn

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
    if dataclasses.is_dataclass(initializer) and not inspect.isclass(initializer):
        return repr(initializer)
    return getattr(initializer, "__name__", type(initializer).__name__)


def _unknown(initializer: Any) -> ValueError:
    return ValueError(
        f"Unknown initializer: {initializer!r}. Expected one of {list(NAMES)}, the name, config or "
        "instance of a Keras initializer, or a function (kernel, axis, seed, chosen) that returns "
        "a kernel."
    )


def _is_rule(initializer: Any) -> bool:
    # Those of Keras may take four arguments by position as well, but all take a `dtype`.
    return _can_be_called(initializer, "kernel", "axis", "seed", "chosen") and not _can_be_called(
        initializer, "shape", dtype="dtype"
    )


def _can_be_called(function: Any, *arguments: Any, **named: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments, **named)
    except (TypeError, ValueError):  # not callable, of no known signature, or of another one
        return False
    return True


def derive_seed(seed: int, place: int) -> int:
    """A seed that is a function of `seed` and `place`, statistically independent of its siblings.

    Args:
        seed: 0 or more.
        place: Which of the draws under this seed: 0 or more.

    Returns:
        From 0 to 2^31 - 1.
    """
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0] >> 1)

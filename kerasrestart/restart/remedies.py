"""What competes with a restart of filters: whole layers, the whole model, or the optimizer's state.

Each is a function of a model, and `PartialRestart(reset=...)` takes each as a small object, which
it applies with a seed of its own at the end of each round:

| function | as an object |
|---|---|
| `reset_layer(model, "logits")` | `ResetLayer("logits")` |
| `reset_model(model)` | `ResetModel()` |
| `shrink_and_perturb(model, 0.4, 0.01)` | `ShrinkAndPerturb(0.4, 0.01)` |
| `reset_optimizer(model)` | `ResetOptimizer()` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from kerasrestart.network.own_functions import check_function
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.reset_layers import (
    check_reset,
    check_shrink,
    checked_names,
    reset_layer,
    reset_model,
    reset_optimizer,
    shrink_and_perturb,
)


class Remedy:
    """What `PartialRestart(reset=...)` applies instead of a restart of filters."""

    def apply(self, model: keras.Model, seed: int, optimizer: Any = None) -> None:
        """Changes a model in place; `seed` differs at each restart."""
        raise NotImplementedError

    def check(self, model: keras.Model) -> None:
        """Raises ValueError where `apply` would; called before training."""


@dataclasses.dataclass(frozen=True)
class ResetLayer(Remedy):
    """`reset_layer` as an argument of `PartialRestart`.

    Example:
    ```python
    head = kerasrestart.PartialRestart(
        when=kerasrestart.EveryEpochs(6), reset=kerasrestart.ResetLayer("logits"), max_restarts=14
    )
    ```

    Args:
        layers: As in `reset_layer`.
    """

    layers: str | tuple[str, ...]

    def __post_init__(self):
        names = checked_names(self.layers)  # a list as a tuple
        object.__setattr__(self, "layers", self.layers if isinstance(self.layers, str) else names)

    def apply(self, model: keras.Model, seed: int, optimizer: Any = None) -> None:
        """Calls `reset_layer`."""
        reset_layer(model, self.layers, seed=seed, optimizer=optimizer)

    def check(self, model: keras.Model) -> None:
        """Looks for the layers, and makes each again as a trial."""
        check_reset(model, self.layers)


@dataclasses.dataclass(frozen=True)
class ResetModel(Remedy):
    """`reset_model` as an argument of `PartialRestart`.

    Example:
    ```python
    scratch = kerasrestart.PartialRestart(
        when=kerasrestart.EveryEpochs(6), reset=kerasrestart.ResetModel(), max_restarts=14
    )
    ```
    """

    def apply(self, model: keras.Model, seed: int, optimizer: Any = None) -> None:
        """Calls `reset_model`."""
        reset_model(model, seed=seed, optimizer=optimizer)

    def check(self, model: keras.Model) -> None:
        """Makes each layer again as a trial."""
        check_reset(model, None)


@dataclasses.dataclass(frozen=True)
class ShrinkAndPerturb(Remedy):
    """`shrink_and_perturb` as an argument of `PartialRestart`.

    Example:
    ```python
    shrunk = kerasrestart.PartialRestart(
        when=kerasrestart.EveryEpochs(6), reset=kerasrestart.ShrinkAndPerturb(0.4, 0.01)
    )
    ```

    Args:
        shrink: As in `shrink_and_perturb`.
        perturb: As in `shrink_and_perturb`.
    """

    shrink: float
    perturb: float

    def __post_init__(self):
        check_shrink(self.shrink, self.perturb)

    def apply(self, model: keras.Model, seed: int, optimizer: Any = None) -> None:
        """Calls `shrink_and_perturb`."""
        shrink_and_perturb(model, self.shrink, self.perturb, seed=seed, optimizer=optimizer)


@dataclasses.dataclass(frozen=True)
class ResetOptimizer(Remedy):
    """`reset_optimizer` as an argument of `PartialRestart`.

    Example:
    ```python
    state = kerasrestart.PartialRestart(
        when=kerasrestart.EveryEpochs(6), reset=kerasrestart.ResetOptimizer()
    )
    ```
    """

    def apply(self, model: keras.Model, seed: int, optimizer: Any = None) -> None:
        """Calls `reset_optimizer`."""
        del seed
        reset_optimizer(model, optimizer=optimizer)


def split_reset(reset: Any) -> tuple[Reset, Remedy | Callable[[keras.Model], None] | None]:
    """Splits what `PartialRestart(reset=)` got into a `Reset` and the remedy in its place, if any.

    Raises:
        ValueError: It is neither, or it cannot be called with a model.
    """
    if isinstance(reset, Reset):
        return reset, None
    if isinstance(reset, Remedy):
        for method, arguments in (("apply", ("model", 0, None)), ("check", ("model",))):
            form = "a Remedy with the methods apply(model, seed, optimizer) and check(model)"
            check_function("reset", getattr(reset, method), form, *arguments)
    else:
        form = "a Reset, a remedy such as ResetLayer('logits'), or a function (model) -> None"
        check_function("reset", reset, form, "model")
    return Reset(), reset

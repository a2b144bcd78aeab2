"""The interface of objects that follow restarts as they happen."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from kerasrestart.network.arguments import check
from kerasrestart.network.own_functions import check_function

if TYPE_CHECKING:  # reports and studies read records without importing TensorFlow
    import keras
    import numpy as np

    from kerasrestart.restart.records import RestartEvent, RestartState, Round
    from kerasrestart.scoring.scorer import Scorer


class Restarts(Protocol):
    """What an observer reads of a `PartialRestart`; each attribute is described there."""

    state: RestartState
    scores: dict[str, np.ndarray]

    @property
    def model(self) -> keras.Model: ...  # noqa: D102
    @property
    def scorer(self) -> Scorer: ...  # noqa: D102
    @property
    def events(self) -> list[RestartEvent]: ...  # noqa: D102
    @property
    def rounds(self) -> list[Round]: ...  # noqa: D102
    @property
    def monitor(self) -> str: ...  # noqa: D102
    @property
    def higher_is_better(self) -> bool: ...  # noqa: D102
    def resume(  # noqa: D102
        self, state: RestartState, scores: Mapping[str, np.ndarray] | None = None
    ) -> None: ...


class RestartObserver:
    """Follows rounds and restarts; derive a class and override what is of interest.

    Example:
    ```python
    class Printer(kerasrestart.RestartObserver):
        def on_restart_end(self, event, restart):
            print(event.epoch, {name: layer.filters for name, layer in event.layers.items()})

    restart = kerasrestart.PartialRestart(observers=[Printer()])
    ```

    Each method gets the `PartialRestart` itself. An observer may read and evaluate its `model`, but
    must leave the weights unchanged.
    """

    def on_train_begin(self, restart: Restarts) -> None:
        """Training begins; the layers with filters are known."""

    def on_epoch_begin(self, epoch: int, restart: Restarts) -> None:
        """An epoch begins; a restart that the last epoch led to comes after this call."""

    def on_epoch_end(self, epoch: int, restart: Restarts) -> None:
        """An epoch is over and recorded; what it leads to is not decided yet."""

    def on_round_end(self, ended: Round, restart: Restarts) -> None:
        """A round is over; the model is as its last epoch left it."""

    def on_decision(self, epoch: int, restart: Restarts) -> None:
        """What an epoch leads to is decided: `restart.state` is what the next begins with."""

    def on_restart_begin(self, event: RestartEvent, restart: Restarts) -> None:
        """Filters are about to be restarted."""

    def on_restart_end(self, event: RestartEvent, restart: Restarts) -> None:
        """Filters have been restarted."""

    def on_train_end(self, restart: Restarts) -> None:
        """Training is over."""


def check_observer(observer: Any) -> None:
    """Checks that an object follows restarts, and that its methods can be called; ValueError."""
    check("observers", observer, isinstance(observer, RestartObserver), "RestartObservers")
    for method, of_base in inspect.getmembers(RestartObserver, inspect.isfunction):
        _, *arguments = inspect.signature(of_base).parameters
        form = f"RestartObservers with the method {method}({', '.join(arguments)})"
        check_function("observers", getattr(observer, method), form, *arguments)

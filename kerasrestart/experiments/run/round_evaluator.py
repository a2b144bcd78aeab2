"""Reads the test set, once a round: at its best epoch and at its last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.restart.observer import RestartObserver


class RoundEvaluator(RestartObserver):
    """Keeps each round's best weights, and evaluates the round when it is over.

    The best epoch is chosen by the monitored metric: the test set has no part in any choice.

    Args:
        test: A `tf.data.Dataset` of batches `(images, labels)`; None where no test could tell
            anything.
        steps: How many batches it has. Defaults to None: as many as come.

    Attributes:
        evaluations: For each round that is over, by its number, test accuracy at its best and at
            its last epoch: keys `best` and `last`; None without a test.
        best_weights: The weights of the best epoch of the run so far, as `model.get_weights`.
    """

    def __init__(self, test: Any, steps: int | None = None):
        self.test, self.steps = test, steps
        self.evaluations: dict[int, dict[str, float | None]] = {}
        self.best_weights: list[np.ndarray] = []
        self._of_round: list[np.ndarray] = []
        self._best_value: float | None = None

    def on_epoch_end(self, epoch, restart):
        """Keeps the weights where they are the best of the round, or of the run."""
        if restart.rounds[-1].best_epoch != epoch:
            return
        self._of_round = restart.model.get_weights()
        value = restart.rounds[-1].best_metrics[restart.monitor]
        better = np.greater if restart.higher_is_better else np.less
        if self._best_value is None or better(value, self._best_value):
            self.best_weights, self._best_value = self._of_round, value

    def on_round_end(self, ended, restart):
        """Evaluates the last epoch and the best, and leaves the weights as they were."""
        model = restart.model
        last = best = self._accuracy(model)
        if ended.best_epoch != ended.first_epoch + ended.epochs - 1:
            last_weights = model.get_weights()
            model.set_weights(self._of_round)
            best = self._accuracy(model)
            model.set_weights(last_weights)
        self.evaluations[ended.round] = {"best": best, "last": last}

    def _accuracy(self, model: keras.Model) -> float | None:
        if self.test is None:
            return None
        logs = model.evaluate(self.test, steps=self.steps, verbose=0, return_dict=True)
        return logs["accuracy"]

    def get_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that it holds: arrays by name, and plain data."""
        held = {f"run/{n}": array for n, array in enumerate(self.best_weights)}
        same = self._of_round is self.best_weights
        if not same:
            held |= {f"round/{n}": array for n, array in enumerate(self._of_round)}
        evaluations = {str(n): of_round for n, of_round in self.evaluations.items()}
        content = {"evaluations": evaluations, "best_value": self._best_value, "same": same}
        return held, content

    def set_state(self, held: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> None:
        """Takes up what `get_state` returned; KeyError where something is missing."""
        best, of_round = (
            [held[f"{part}/{n}"] for n in range(sum(k.startswith(f"{part}/") for k in held))]
            for part in ("run", "round")
        )
        self.evaluations = {int(n): of_round for n, of_round in content["evaluations"].items()}
        self._best_value = content["best_value"]
        self.best_weights = best
        self._of_round = best if content["same"] else of_round

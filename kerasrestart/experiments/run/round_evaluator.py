"""Evaluates the test set once a round: at the round's best epoch and at its last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.restart.observer import RestartObserver


class RoundEvaluator(RestartObserver):
    """Keeps the best weights of each round, and evaluates the round when it is over.

    The monitored metric decides which epoch is the best: the test set has no part in any choice.

    Args:
        test: A `tf.data.Dataset` of batches `(images, labels)`; None where a test has no meaning.
        steps: Number of its batches. Defaults to None: all that there are.

    Attributes:
        evaluations: For each round that is over, by its number, test accuracy at its best and at
            its last epoch: keys `best` and `last`; None without a test.
        best_weights: The weights of the best epoch of the run so far, as `model.get_weights`.
    """

    def __init__(self, test: Any, steps: int | None = None):
        self.test, self.steps = test, steps
        self.evaluations: dict[int, dict[str, float | None]] = {}
        self.best_weights: Sequence[np.ndarray] = []
        self._round_weights: Sequence[np.ndarray] = []
        self._best_value: float | None = None

    def on_epoch_end(self, epoch, restart):
        """Keeps the weights where they are the best of the round, or of the run."""
        if restart.rounds[-1].best_epoch != epoch:
            return
        self._round_weights = restart.model.get_weights()
        value = restart.rounds[-1].best_metrics[restart.monitor]
        better = np.greater if restart.higher_is_better else np.less
        if self._best_value is None or better(value, self._best_value):
            self.best_weights, self._best_value = self._round_weights, value

    def on_round_end(self, ended, restart):
        """Evaluates the last epoch and the best, and leaves the weights as they were."""
        model = restart.model
        last = best = self.accuracy(model)
        if ended.best_epoch != ended.first_epoch + ended.epochs - 1:
            last_weights = model.get_weights()
            model.set_weights(self._round_weights)
            best = self.accuracy(model)
            model.set_weights(last_weights)
        self.evaluations[ended.round] = {"best": best, "last": last}

    def accuracy(self, model: keras.Model) -> float | None:
        """Test accuracy of a model as it is, 0..1; None without a test."""
        if self.test is None:
            return None
        logs = model.evaluate(self.test, steps=self.steps, verbose=0, return_dict=True)
        return logs["accuracy"]

    def get_state(self) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray], dict[str, Any]]:
        """Returns all that it holds.

        Returns:
            The best weights of the run; those of the round, empty where they are the same; and
            plain data.
        """
        same = self._round_weights is self.best_weights
        evaluations = {str(n): of_round for n, of_round in self.evaluations.items()}
        content = {"evaluations": evaluations, "best_value": self._best_value, "same": same}
        return self.best_weights, [] if same else self._round_weights, content

    def set_state(
        self,
        run_best: Sequence[np.ndarray],
        round_best: Sequence[np.ndarray],
        content: Mapping[str, Any],
    ) -> None:
        """Restores what `get_state` returned.

        Raises:
            KeyError, TypeError, ValueError: The plain data are not what it returned.
        """
        evaluations = {
            int(n): {name: of_round[name] for name in ("best", "last")}
            for n, of_round in content["evaluations"].items()
        }
        best_value, same = content["best_value"], content["same"]
        self.evaluations, self._best_value = evaluations, best_value
        self.best_weights = run_best
        self._round_weights = run_best if same else round_best


class TestEachEpoch(keras.callbacks.Callback):
    """Adds `test_accuracy` to the logs of each epoch, for the callbacks after it in the list.

    Args:
        evaluator: The `RoundEvaluator` with the test set.
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, evaluator: RoundEvaluator):
        super().__init__()
        self.evaluator = evaluator

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates the test set; without one, the logs stay as they are."""
        accuracy = self.evaluator.accuracy(self.model)
        if logs is not None and accuracy is not None:
            logs["test_accuracy"] = accuracy

"""Outcomes of a study's runs, read from the files in their folders."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.combinations import UNTESTED_TASKS
from kerasrestart.experiments.records.history import HISTORY, read_history
from kerasrestart.experiments.records.run_record import read_record

OUTCOMES = ("test", "final", "online")
"""What runs can be compared by: test accuracy at the best epoch; accuracy at the last epoch; and
mean training accuracy over all epochs, the measure of continual learning."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a study's grid.

    Attributes:
        model: Name of the network in the study.
        arm: Name of the arm.
        seed: Arms with the same model, variation and seed share a baseline, so they are paired.
        variation: The swept flags, such as `fraction=0.1`; empty without a sweep.
        outcome: What runs are compared by, one of `OUTCOMES`.
    """

    model: str
    arm: str
    seed: int
    variation: str = ""
    outcome: str = "test"

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return "-".join(filter(None, (self.model, self.arm, self.variation, f"s{self.seed}")))


@dataclasses.dataclass(frozen=True)
class CellResult:
    """The result of a complete run.

    Attributes:
        cell: The run's cell in the grid.
        record: Content of `run.json`.
        history: Column of `history.csv` -> its value in each epoch; NaN for an empty field.
    """

    cell: Cell
    record: Mapping[str, Any]
    history: Mapping[str, tuple[float, ...]]

    @property
    def by_round(self) -> tuple[float, ...]:
        """Accuracy of each round, 0..1, starting with the baseline.

        This is the test accuracy at the round's best epoch by the monitored metric. With tasks in
        which only training accuracy is meaningful it is that of the round's last epoch.
        """
        key = "train_accuracy_last" if self._is_untested else "test_accuracy"
        return tuple(row[key] for row in self.record["table"])

    @property
    def chosen(self) -> float:
        """The outcome that arms are compared by: an accuracy, 0..1.

        With `online` this is the mean training accuracy over all epochs, the baseline's included,
        each measured while the epoch trains; with `final` it is `last`. Of class subsets only the
        tasks of several classes count, as in the paper: a single class is learned at once.

        With `test` this is the test accuracy at the best epoch after the baseline, chosen by the
        monitored metric; the test set is not used for the choice. If each round is a separate task,
        it is the mean of `by_round` over the rounds after the first. A run without a restart has
        the outcome of its baseline.
        """
        if self.cell.outcome == "online":
            length = self.record["settings"]["round_epochs"]
            accuracies = [
                accuracy
                for epoch, accuracy in enumerate(self.history["accuracy"])
                if self._is_measured(epoch // length)
            ]
            return math.fsum(accuracies) / len(accuracies)
        if self.cell.outcome == "final":
            return self.last
        after = range(1, len(self.by_round)) or range(1)
        if self._tasks == "none":
            return self.by_round[self._best_round(after)]
        measured = [n for n in after if self._is_measured(n)] or [0]
        return math.fsum(self.by_round[n] for n in measured) / len(measured)

    @property
    def validation(self) -> float | None:
        """Validation accuracy at the epoch of `chosen`; `None` if that is not one epoch."""
        if self._tasks != "none" or self.cell.outcome != "test":
            return None
        after = range(1, len(self.by_round)) or range(1)
        return self.record["table"][self._best_round(after)]["validation_accuracy"]

    @property
    def last(self) -> float:
        """Accuracy at the last epoch of the run, 0..1."""
        key = "train_accuracy_last" if self._is_untested else "test_accuracy_last"
        return self.record["table"][-1][key]

    @property
    def tuning_score(self) -> float:
        """What a value is chosen by in tuning, in which the test set has no part.

        This is `chosen` where that is a training accuracy, otherwise the validation accuracy of the
        same epochs.
        """
        if self.cell.outcome == "online" or self._is_untested:
            return self.chosen
        if self.cell.outcome == "final":
            return self.history["val_accuracy"][-1]
        by_round = [row["validation_accuracy"] for row in self.record["table"]]
        after = range(1, len(by_round)) or range(1)
        if self._tasks == "none":
            return by_round[self._best_round(after)]
        return math.fsum(by_round[n] for n in after) / len(after)

    @property
    def tuning_measure(self) -> str:
        """Description of `tuning_score`."""
        return self.outcome.replace("test accuracy", "validation accuracy")

    @property
    def epochs(self) -> int:
        """Number of epochs of the run, including its baseline."""
        return sum(of_round["epochs"] for of_round in self.record["rounds"])

    @property
    def measure(self) -> str:
        """Description of `by_round` and `last`."""
        return "training accuracy" if self._is_untested else "test accuracy"

    @property
    def outcome(self) -> str:
        """Description of `chosen`."""
        if self.cell.outcome == "online":
            epochs = "all epochs" if self._is_measured(1) else "the epochs of the hard tasks"
            return f"mean training accuracy over {epochs}, measured while they train (online)"
        if self.cell.outcome == "final":
            return f"{self.measure} at the last epoch"
        if self._is_untested:
            task = "each task" if self._is_measured(1) else "each hard task"
            return f"mean training accuracy at the end of {task} after the first"
        if self._tasks == "shuffled_classes":
            return "mean test accuracy over the tasks after the first, each at its best epoch"
        return "test accuracy at the best epoch after the baseline"

    @property
    def is_model_selected(self) -> bool:
        """Whether the epochs of `chosen` are selected by the monitored metric."""
        return self.cell.outcome == "test" and not self._is_untested

    def _is_measured(self, number: int) -> bool:
        return self._tasks != "class_subsets" or not number % 2

    @property
    def _is_untested(self) -> bool:
        return self._tasks in UNTESTED_TASKS

    @property
    def _tasks(self) -> str:
        return self.record["settings"]["tasks"]

    def _best_round(self, rounds: range) -> int:
        """Returns the round with the best monitored value; the first one in a tie."""
        monitor = self.record["settings"]["monitor"]
        sign = 1 if monitor.endswith("accuracy") else -1

        def goodness(n: int) -> float:
            value = sign * self.record["rounds"][n]["best_metrics"][monitor]
            return -math.inf if math.isnan(value) else value

        return max(rounds, key=goodness)


def load_cell(folder: pathlib.Path, cell: Cell) -> CellResult | None:
    """Reads the result of a run.

    Example:
    ```python
    cell = Cell("mininet", "uniform", seed=0)
    result = load_cell(pathlib.Path("tf_logs/small_data") / cell.name, cell)
    result.chosen  # 0.612
    ```

    Args:
        folder: The run's folder.
        cell: The run's cell in the study's grid.

    Returns:
        The result, or `None` if the run is not complete.

    Raises:
        ValueError: If the record is not that of a study's run.
    """
    record = read_record(folder)
    if record is None:
        return None
    result = CellResult(cell, record, read_history(folder, record.get("files", {}).get(HISTORY)))
    try:
        is_valid = all(isinstance(value, float) for value in (result.chosen, result.last))
    except (KeyError, IndexError, TypeError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{folder} has a run record without a table of rounds. Remove the folder.")
    return result


def common_settings(results: Sequence[CellResult]) -> dict[str, Any]:
    """Returns the settings with the same value in all runs (at least one), in their usual order."""
    first, *others = (result.record["settings"] for result in results)
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }

"""What a run of a study came to: its outcomes, read off the files in its folder."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.records.history import read_history
from kerasrestart.experiments.records.run_record import read_record


@dataclasses.dataclass(frozen=True)
class Cell:
    """A place in the grid of a study.

    Attributes:
        model: The network's name in the study.
        arm: What is compared.
        seed: Arms of one model, variation and seed have their baseline in common: they are paired.
        variation: The swept flags, such as `fraction=0.1`; empty without a sweep.
    """

    model: str
    arm: str
    seed: int
    variation: str = ""

    @property
    def name(self) -> str:
        """The name of its run, and of the run's folder."""
        return "-".join(filter(None, (self.model, self.arm, self.variation, f"s{self.seed}")))


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A run that has ended.

    Attributes:
        cell: Its place.
        record: `run.json`.
        history: By column, the metrics of each epoch; NaN where there is no number.
    """

    cell: Cell
    record: Mapping[str, Any]
    history: Mapping[str, tuple[float, ...]]

    @property
    def by_round(self) -> tuple[float, ...]:
        """The measure of each round, the baseline's first: a share, 0..1.

        That is test accuracy at the round's best epoch by the monitored metric. Where each round
        has labels drawn by lot, only the training images can tell how well they were learned: there
        it is the training accuracy of the round's last epoch.
        """
        key = "train_accuracy_last" if self._tasks == "random_labels" else "test_accuracy"
        return tuple(row[key] for row in self.record["table"])

    @property
    def chosen(self) -> float:
        """The outcome that arms are compared by: a share, 0..1.

        That is test accuracy at the epoch that the monitored metric chooses among all after the
        baseline, which the arms have in common; the test set has no part in the choice. Where each
        round is a task of its own, it is the mean of `by_round` over the rounds after the first. A
        run that made no restart has its baseline's.
        """
        after = range(1, len(self.by_round)) or range(1)
        if self._tasks == "none":
            return self.by_round[self._best_round(after)]
        return math.fsum(self.by_round[n] for n in after) / len(after)

    @property
    def validation(self) -> float | None:
        """Validation accuracy at the epoch of `chosen`; None where each round is its own task."""
        if self._tasks != "none":
            return None
        after = range(1, len(self.by_round)) or range(1)
        return self.record["table"][self._best_round(after)]["validation_accuracy"]

    @property
    def last(self) -> float:
        """The measure at the last epoch of the run, whichever was best: a share, 0..1."""
        random = self._tasks == "random_labels"
        return self.record["table"][-1]["train_accuracy_last" if random else "test_accuracy_last"]

    @property
    def epochs(self) -> int:
        """How many epochs the run has made, those of its baseline too."""
        return sum(of_round["epochs"] for of_round in self.record["rounds"])

    @property
    def measure(self) -> str:
        """What `by_round` and `last` are, in words."""
        return "training accuracy" if self._tasks == "random_labels" else "test accuracy"

    @property
    def outcome(self) -> str:
        """What `chosen` is, in words."""
        if self._tasks == "random_labels":
            return "mean training accuracy at the end of each task after the first"
        if self._tasks == "shuffled_classes":
            return "mean test accuracy over the tasks after the first, each at its best epoch"
        return "test accuracy at the best epoch after the baseline"

    @property
    def chooses(self) -> bool:
        """Whether `chosen` is that of epochs which the monitored metric has chosen."""
        return self._tasks != "random_labels"

    @property
    def _tasks(self) -> str:
        return self.record["settings"]["tasks"]

    def _best_round(self, rounds: range) -> int:
        """The round with the best monitored value: the first of those that are equally good."""
        monitor = self.record["settings"]["monitor"]
        sign = 1 if monitor.endswith("accuracy") else -1

        def goodness(n: int) -> float:
            value = sign * self.record["rounds"][n]["best_metrics"][monitor]
            return -math.inf if math.isnan(value) else value

        return max(rounds, key=goodness)


def load_cell(folder: pathlib.Path, cell: Cell) -> CellResult | None:
    """Reads a run.

    Args:
        folder: The run's folder.
        cell: Its place in the study.

    Returns:
        The result; None where the run has not ended.

    Raises:
        ValueError: The record is not one that a run of a study writes.
    """
    record = read_record(folder)
    if record is None:
        return None
    result = CellResult(cell, record, read_history(folder))
    try:
        whole = all(isinstance(value, float) for value in (result.chosen, result.last))
    except (KeyError, IndexError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{folder} holds a record without a table of rounds: remove it.")
    return result


def common_settings(results: Sequence[CellResult]) -> dict[str, Any]:
    """The settings that have the same value in all runs, one or more, in their usual order."""
    first, *others = (result.record["settings"] for result in results)
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }

"""Regimes in which networks lose the ability to learn: the examples and labels of each epoch."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from kerasrestart.experiments.data.dataset import Split, stratified
from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed
from kerasrestart.experiments.settings import TASKS


def with_label_noise(split: Split, share: float, classes: int, seed: int) -> Split:
    """Replaces the labels of some examples by wrong ones.

    Args:
        split: The examples.
        share: Fraction of the examples, 0..1, rounded to a whole number of examples.
        classes: Number of classes. A wrong label is drawn uniformly from the other classes.
        seed: At least 0. The choice is a pure function of `seed` and the number of examples.

    Returns:
        The same images with the new labels.

    Raises:
        DataError: If `share` is out of range.
    """
    if not 0 <= share <= 1:
        raise DataError(f"label_noise must be in 0..1. Received: {share!r}")
    rng = np.random.default_rng([check_seed(seed), 1])
    wrong = rng.permutation(len(split))[: round(share * len(split))]
    labels = split.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return Split(split.images, labels)


class Regime(Protocol):
    """The examples and labels of each epoch, as functions of the epoch's number."""

    @property
    def generalizes(self) -> bool:
        """Whether accuracy on other images measures learning; if not, there is no validation."""
        ...

    def epoch_labels(self, epoch: int) -> np.ndarray:
        """Returns the labels of all training examples in this epoch, int32 `[n]`."""
        ...

    def epoch_examples(self, epoch: int) -> np.ndarray | None:
        """Returns the indices of the examples used in this epoch; `None` for all."""
        ...

    def class_order(self, epoch: int) -> np.ndarray:
        """Returns the label of each class in validation and test, int32 `[classes]`."""
        ...

    def phase(self, epoch: int) -> int:
        """Returns the phase of an epoch, from 0; examples and labels change between phases."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Stationary:
    """All examples with their own labels in every epoch.

    Args:
        split: The training examples.
        classes: Number of classes.
    """

    split: Split
    classes: int

    @property
    def generalizes(self) -> bool:
        """See `Regime`."""
        return True

    def phase(self, epoch: int) -> int:
        """See `Regime`."""
        del epoch
        return 0

    def epoch_labels(self, epoch: int) -> np.ndarray:
        """See `Regime`."""
        del epoch
        return self.split.labels

    def epoch_examples(self, epoch: int) -> np.ndarray | None:
        """See `Regime`."""
        del epoch
        return None

    def class_order(self, epoch: int) -> np.ndarray:
        """See `Regime`."""
        del epoch
        return np.arange(self.classes, dtype=np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class WarmStart(Stationary):
    """A fraction of the examples in the first epochs, then all of them.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training" (NeurIPS 2020).

    Example:
    ```python
    regime = WarmStart(split, classes=10, fraction=0.5, epochs=15, seed=0)
    ```

    Args:
        split: The training examples.
        classes: Number of classes.
        fraction: Fraction of the examples, between 0 and 1 (both excluded), stratified by class. An
            epoch has as many steps as with all examples, so each is seen several times.
        epochs: Number of epochs on the fraction, at least 1.
        seed: At least 0. Seeds the choice of examples.

    Raises:
        DataError: If an argument is out of range.
    """

    fraction: float
    epochs: int
    seed: int
    _part: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise DataError(
                f"warm_start_fraction must be above 0 and below 1. Received: {self.fraction!r}"
            )
        check_integer("epochs", self.epochs, 1)
        count = max(1, round(self.fraction * len(self.split)))
        part = stratified(self.split.labels, count, self.seed)
        object.__setattr__(self, "_part", part)

    def phase(self, epoch: int) -> int:
        """See `Regime`."""
        return int(epoch >= self.epochs)

    def epoch_examples(self, epoch: int) -> np.ndarray | None:
        """See `Regime`."""
        return None if self.phase(epoch) else self._part


@dataclasses.dataclass(frozen=True, eq=False)
class TaskSequence(Stationary):
    """A sequence of tasks for one network: new labels every few epochs.

    Networks trained this way lose plasticity: they fit each task less well than the previous one.
    Source: Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024);
    random labels as in Lyle et al., "Understanding plasticity in neural networks" (ICML 2023).

    Example:
    ```python
    regime = TaskSequence(split, classes=10, kind="shuffled_classes", epochs=6, seed=0)
    ```

    Args:
        split: The training examples.
        classes: Number of classes.
        kind: `"random_labels"`: each task assigns a random label to every training example, which
            can only be memorised, so accuracy on other images is meaningless; or
            `"shuffled_classes"`: each task after the first permutes the classes, in training,
            validation and test.
        epochs: Epochs per task, at least 1.
        seed: At least 0. The labels of a task are a function of `seed` and the task's number.

    Raises:
        DataError: If an argument is out of range.
    """

    kind: str
    epochs: int
    seed: int

    def __post_init__(self):
        kinds = [kind for kind in TASKS if kind not in ("none", "class_subsets")]
        if self.kind not in kinds:
            raise DataError(f"tasks must be one of {', '.join(kinds)}. Received: {self.kind!r}")
        check_integer("epochs", self.epochs, 1)
        check_seed(self.seed)

    @property
    def generalizes(self) -> bool:
        """See `Regime`."""
        return self.kind != "random_labels"

    def phase(self, epoch: int) -> int:
        """See `Regime`."""
        return epoch // self.epochs

    def epoch_labels(self, epoch: int) -> np.ndarray:
        """See `Regime`."""
        if self.kind == "random_labels":
            labels = self._rng(epoch).integers(0, self.classes, len(self.split))
            return labels.astype(np.int32)
        return self.class_order(epoch)[self.split.labels]

    def class_order(self, epoch: int) -> np.ndarray:
        """See `Regime`."""
        if self.kind == "random_labels" or not self.phase(epoch):
            return super().class_order(epoch)
        return self._rng(epoch).permutation(self.classes).astype(np.int32)

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 2, self.phase(epoch)])

"""Ways of training in which networks lose the ability to learn: what each epoch is trained on."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from kerasrestart.experiments.data.dataset import Split, stratified
from kerasrestart.experiments.data.errors import DataError, check_integer, check_seed
from kerasrestart.experiments.settings import TASKS


def with_label_noise(split: Split, share: float, classes: int, seed: int) -> Split:
    """Gives a share of the examples a wrong label.

    Args:
        split: The examples.
        share: Which share of them, 0..1, to the nearest whole number of examples.
        classes: How many classes there are. A wrong label is any other class, all as likely.
        seed: At least 0. The choice is a pure function of the number of examples, and this.

    Returns:
        The same images with the new labels.

    Raises:
        DataError: If `share` is out of range.
    """
    if not 0 <= share <= 1:
        raise DataError(f"label_noise must lie in 0..1, but is {share}")
    rng = np.random.default_rng([check_seed(seed), 1])
    wrong = rng.permutation(len(split))[: round(share * len(split))]
    labels = split.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return Split(split.images, labels)


class Regime(Protocol):
    """What an epoch is trained on, as a function of its number."""

    @property
    def generalizes(self) -> bool:
        """Whether other images can tell how well it was learned; else nothing is validated."""
        ...

    def epoch_labels(self, epoch: int) -> np.ndarray:
        """The labels of all training examples in this epoch, int32 `[n]`."""
        ...

    def epoch_examples(self, epoch: int) -> np.ndarray | None:
        """Indices of the examples that this epoch is made of; None for all."""
        ...

    def class_order(self, epoch: int) -> np.ndarray:
        """What validation and test call each class in this epoch, int32 `[classes]`."""
        ...

    def phase(self, epoch: int) -> int:
        """Epochs of one phase are trained on the same, phases are counted from 0."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """All examples, as they are, in each epoch.

    Args:
        split: The training examples.
        classes: How many classes there are.
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
class WarmStart(Plain):
    """Part of the examples for the first epochs, then all of them.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training" (NeurIPS 2020).

    Args:
        split: The training examples.
        classes: How many classes there are.
        fraction: The part, above 0 and below 1, the same share of each class. An epoch has as many
            steps as one of all examples: it goes through the part several times.
        epochs: How many epochs it is for, 1 or more.
        seed: At least 0. Decides which examples.
    """

    fraction: float
    epochs: int
    seed: int
    _part: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise DataError(f"warm_start_fraction must lie between 0 and 1, but is {self.fraction}")
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
class TaskSequence(Plain):
    """New labels every few epochs: a sequence of tasks for one network.

    Networks trained so lose plasticity: they fit each task less well than the one before. Source:
    Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024); random labels
    as in Lyle et al., "Understanding plasticity in neural networks" (ICML 2023).

    Args:
        split: The training examples.
        classes: How many classes there are.
        kind: `"random_labels"`: each task gives each training example a label by lot, so what can
            be learned is by heart, and accuracy on other images means nothing; or
            `"shuffled_classes"`: each task but the first calls the classes by each other's names,
            in training, validation and test alike.
        epochs: How many epochs a task has, 1 or more.
        seed: At least 0. The labels of a task are a function of it and of the task's number.
    """

    kind: str
    epochs: int
    seed: int

    def __post_init__(self):
        kinds = [kind for kind in TASKS if kind != "none"]
        if self.kind not in kinds:
            raise DataError(f"tasks must be one of {', '.join(kinds)}, but is {self.kind!r}")
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

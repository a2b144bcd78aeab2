"""Tasks with the images of some classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasrestart.experiments.data.errors import check_integer, check_seed
from kerasrestart.experiments.data.regimes import Stationary


@dataclasses.dataclass(frozen=True, eq=False)
class ClassSubsets(Stationary):
    """A sequence of tasks with the images of five classes, then of one, in turn.

    Learning one class makes units useless, from which the next hard task suffers. Source: Kumar,
    Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
    Regularization" (2024), section 4.2, whose "5+1 CIFAR" takes the classes of CIFAR-100, each in
    one task. With ten classes they come again in later tasks.

    Example:
    ```python
    regime = ClassSubsets(split, classes=10, epochs=6, seed=0)  # 30 tasks: 180 epochs
    ```

    Labels stay those of the data. Accuracy is measured in training alone: a task says nothing about
    other classes.

    Args:
        split: The training examples.
        classes: Number of classes.
        epochs: Epochs per task, at least 1. All have as many steps as one on all images, so that
            each image is seen several times.
        seed: At least 0. The classes of a task are a function of `seed` and the task's number.
        sizes: Numbers of classes, in turn. Defaults to `(5, 1)`.

    Raises:
        DataError: If an argument is out of range.
    """

    epochs: int
    seed: int
    sizes: tuple[int, ...] = (5, 1)

    def __post_init__(self):
        check_integer("epochs", self.epochs, 1)
        check_seed(self.seed)
        for size in self.sizes:
            check_integer("sizes", size, 1, self.classes)

    @property
    def generalizes(self) -> bool:
        """See `Regime`."""
        return False

    def phase(self, epoch: int) -> int:
        """See `Regime`."""
        return epoch // self.epochs

    def task_classes(self, epoch: int) -> np.ndarray:
        """Returns the classes of the task of an epoch, in ascending order."""
        task = self.phase(epoch)
        size = self.sizes[task % len(self.sizes)]
        rng = np.random.default_rng([self.seed, 3, task])
        return np.sort(rng.choice(self.classes, size, replace=False))

    def epoch_examples(self, epoch: int) -> np.ndarray | None:
        """See `Regime`."""
        return np.flatnonzero(np.isin(self.split.labels, self.task_classes(epoch)))

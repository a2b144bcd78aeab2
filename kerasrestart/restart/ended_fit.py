"""A `fit` that has ended, and what another keeps of it that continues it."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from kerasrestart.restart.plan import ENDED_BY_ANOTHER, TOO_FEW_EPOCHS
from kerasrestart.restart.records import RestartState

TRAINING_ENDED = "training ended"


@dataclasses.dataclass(frozen=True)
class EndedFit:
    """A `fit` that has ended, as those in a loop of `fit` do.

    Attributes:
        model: Its model.
        optimizer: The optimizer then.
        state: The state of its restarts.
        scores: Its last scores.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    state: RestartState
    scores: dict[str, np.ndarray]

    @property
    def next_epoch(self) -> int:
        """The epoch after its last one."""
        last = self.state.rounds[-1]
        return last.first_epoch + last.epochs

    def take_state(
        self, optimizer: keras.optimizers.Optimizer, learning_rate: float | None
    ) -> RestartState:
        """Hands over the state to the next `fit`, without what was true of this one alone.

        The state is changed, and belongs to the next `fit` from now on.

        Args:
            optimizer: The optimizer now.
            learning_rate: Its rate now, to which restarts reset it if it is another optimizer.
        """
        if optimizer is not self.optimizer:  # compiled in between
            self.state.learning_rate = learning_rate
        if self.state.rounds[-1].ended == TRAINING_ENDED:
            self.state.rounds[-1].ended = None
        if (self.state.finished or "").endswith((TOO_FEW_EPOCHS, ENDED_BY_ANOTHER)):
            self.state.finished = None
        return self.state

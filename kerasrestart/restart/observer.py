"""What may be told of restarts as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kerasrestart.restart.callback import PartialRestart
    from kerasrestart.restart.records import RestartEvent, Round


class RestartObserver:
    """Told of rounds and restarts by a `PartialRestart`; override what is of interest.

    Each method gets the callback itself: its `model`, `scores`, `state`. The model may be read, and
    evaluated, but its weights are to be left as they were found.
    """

    def on_train_begin(self, restart: PartialRestart) -> None:
        """Training begins; the filter_layers of the model are known."""

    def on_epoch_end(self, epoch: int, restart: PartialRestart) -> None:
        """An epoch is over and in the records; what follows from it is still to come."""

    def on_round_end(self, ended: Round, restart: PartialRestart) -> None:
        """A round is over; the model stands as its last epoch left it."""

    def on_restart_begin(self, event: RestartEvent, restart: PartialRestart) -> None:
        """Filters are about to be restarted."""

    def on_restart_end(self, event: RestartEvent, restart: PartialRestart) -> None:
        """Filters have been restarted."""

    def on_train_end(self, restart: PartialRestart) -> None:
        """Training is over."""

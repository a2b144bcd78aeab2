"""A selection of as many filters in each layer as another run restarted."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.restart.initializer_names import CONTROLS

if TYPE_CHECKING:
    from kerasrestart.restart.callback import PartialRestart


class MatchedCounts:
    """Selects the filters of lowest score: in each layer as many as another run at that restart.

    With random scores these are random filters, and the comparison with the other run shows whether
    it matters which filters are restarted, with their number and layers held equal.

    Example:
    ```python
    select = MatchedCounts.of_run("tf_logs/study/mininet-below_mean-s0")
    select.restart = restart = PartialRestart(select=select, criterion="random")
    ```

    Args:
        counts: For each restart, the number of filters by layer; none for later restarts.

    Attributes:
        restart: The callback that selects by it, whose number of restarts so far is read.
    """

    def __init__(self, counts: Sequence[Mapping[str, int]]):
        self.counts = tuple(dict(of_restart) for of_restart in counts)
        self.restart: PartialRestart | None = None

    @classmethod
    def of_run(cls, folder: str | os.PathLike) -> MatchedCounts:
        """Reads the counts from a run's folder.

        Raises:
            ValueError: There is no run that has ended, or it restarted no filters.
        """
        record = read_record(user_path(folder, "matched_run"))
        if record is None or record["settings"]["init"] in CONTROLS:
            what = "no run that has ended" if record is None else record["settings"]["init"]
            raise ValueError(
                "matched_run must be the folder of a run that has ended and restarted filters. "
                f"Received: {str(folder)!r}, {what}"
            )
        return cls(
            [
                {name: len(layer["filters"]) for name, layer in event["layers"].items()}
                for event in record["events"]
            ]
        )

    def __call__(
        self, scores: Mapping[str, np.ndarray], exclude: Mapping[str, Collection[int]] | None = None
    ) -> dict[str, np.ndarray]:
        """Selects filters; arguments and result are those of `Fraction.__call__`.

        Raises:
            ValueError: The other run restarted a layer that has no scores here.
        """
        number = len(self.restart.events) if self.restart is not None else 0
        counts = self.counts[number] if number < len(self.counts) else {}
        if unknown := counts.keys() - scores.keys():
            raise ValueError(
                "matched_run must have restarted layers that are scored here, too, as with the "
                f"same --layers: some of {list(scores)}. Received: {sorted(unknown)}"
            )
        chosen = {}
        for name, count in counts.items():
            order = np.argsort(scores[name], kind="stable")
            free = [k for k in order if k not in (exclude or {}).get(name, ())]
            chosen[name] = np.sort(np.array(free[:count], np.int64))
        return chosen

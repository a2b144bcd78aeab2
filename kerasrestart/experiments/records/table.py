"""The table of a run: a row for the baseline and one for each restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.restart.records import RestartEvent, Round


def table_rows(
    data: str,
    rounds: Sequence[Round],
    events: Sequence[RestartEvent],
    evaluations: Mapping[int, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Makes the rows, as `run.json` holds them.

    Args:
        data: Name of the data set that was used.
        rounds: The rounds of a run.
        events: Its restarts; round n follows restart n.
        evaluations: For each completed round, test accuracy at its best and its last epoch: keys
            `best` and `last`; None without a test.

    Returns:
        One dict for each completed round: `round` ("baseline", "restart 1", ...), `data`, `epochs`,
        `best_epoch` (counted from 0 over the whole run, chosen by the monitored metric),
        `validation_accuracy` and `test_accuracy` at that epoch, `test_accuracy_last` at the round's
        last epoch, `train_accuracy_last` (training accuracy of the last epoch) and `restarted`
        (number of filters by layer).
    """
    rows = []
    for of_round in rounds:
        if of_round.round not in evaluations:
            continue
        event = events[of_round.round - 1] if of_round.round else None
        reset = event is not None and event.initializer != "none"
        layers = event.layers if reset else {}
        rows.append(
            {
                "round": f"restart {of_round.round}" if of_round.round else "baseline",
                "data": data,
                "epochs": of_round.epochs,
                "best_epoch": of_round.best_epoch,
                "validation_accuracy": of_round.best_metrics.get("val_accuracy"),
                "test_accuracy": evaluations[of_round.round]["best"],
                "test_accuracy_last": evaluations[of_round.round]["last"],
                "train_accuracy_last": of_round.last_metrics.get("accuracy"),
                "restarted": {name: len(layer.filters) for name, layer in layers.items()},
            }
        )
    return rows

"""The table that a run ends with: a row for the baseline and one for each restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.restart.markdown import align
from kerasrestart.restart.records import RestartEvent, Round


def table_rows(
    data: str,
    rounds: Sequence[Round],
    events: Sequence[RestartEvent],
    evaluations: Mapping[int, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Makes the rows, as `run.json` holds them.

    Args:
        data: Name of the data set that was really used.
        rounds: The rounds of a run.
        events: Its restarts; round n follows restart n.
        evaluations: For each round that is over, test accuracy at its best and its last epoch:
            keys `best` and `last`; None where nothing was tested.

    Returns:
        One dict for each round that is over: `round` ("baseline", "restart 1", ...), `data`,
        `epochs`, `best_epoch` (counted from 0 over the whole run, chosen by the monitored metric),
        `validation_accuracy` and `test_accuracy` at that epoch, `test_accuracy_last` at the round's
        last epoch, `train_accuracy_last`: that of the last epoch on what it was trained on,
        `restarted` (filters by layer).
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


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats rows as a Markdown table that reads well in a terminal too; accuracies in percent."""
    header = (
        "round",
        "data",
        "epochs",
        "best epoch",
        "train acc., last epoch",
        "validation acc.",
        "test acc.",
        "test acc., last epoch",
        "filters restarted",
    )
    lines = [
        (
            row["round"],
            row["data"],
            str(row["epochs"]),
            str(row["best_epoch"] + 1),
            _percent(row["train_accuracy_last"]),
            _percent(row["validation_accuracy"]),
            _percent(row["test_accuracy"]),
            _percent(row["test_accuracy_last"]),
            ", ".join(f"{name} {count}" for name, count in row["restarted"].items()) or "none",
        )
        for row in rows
    ]
    # The columns from the third to the last but one hold numbers: to the right.
    return align(header, lines, right=[2 <= n < len(header) - 1 for n in range(len(header))])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"

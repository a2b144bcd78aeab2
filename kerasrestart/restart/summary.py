"""The restarts of a training as a plain-text table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from kerasrestart.restart.records import RestartEvent
from kerasrestart.scoring.over_mean import lowest_over_mean

COLUMNS = (
    *("restart", "epoch", "layer", "filters", "lowest/ mean", "chosen again"),
    *("metric drop", "epochs to recover"),
)


def summary_table(events: Sequence[RestartEvent]) -> str:
    """Makes a table with a row for each layer of each restart.

    Columns: the restart; the epoch it followed, counted from 1 as `fit` prints it; the layer; how
    many of its filters; their lowest score over the layer's mean score; how many of the filters of
    the restart before were selected again; by how much the monitored metric was worse after the
    next epoch; epochs until it was as good as before. A dash stands for what is not known. What is
    the same for all layers of a restart is in its first row.

    The restarts between the batches of an epoch are summed: "3-9" in the first column are seven of
    them.

    Args:
        events: The restarts.

    Returns:
        Lines of text, without a newline at the end.
    """
    rows = [row for group in _groups(events) for row in _rows(*group)]
    if not rows:
        return "No restarts."
    titles = [name.split() for name in COLUMNS]
    height = max(map(len, titles))  # a title takes several lines, so that columns are narrow
    head = zip(*([""] * (height - len(title)) + title for title in titles), strict=True)
    table = [*head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name == "layer" else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in table
    )


def _groups(events: Sequence[RestartEvent]) -> Iterator[list[RestartEvent]]:
    """Restarts with a row each, or those between the batches of one epoch together."""

    def key(event: RestartEvent) -> tuple[bool, int]:
        between_batches = event.step is not None
        return between_batches, event.epoch if between_batches else event.restart

    for _, group in itertools.groupby(events, key):
        yield list(group)


def _rows(event: RestartEvent, *others: RestartEvent) -> list[tuple[str, ...]]:
    if event.step is not None:
        return _summed_rows([event, *others])
    first = str(event.restart), str(event.epoch + 1)
    last = _number(event.metric_drop), _number(event.epochs_to_recover)
    if not event.layers:
        return [(*first, "none", "0", "-", "-", *last)]
    layers = [
        (
            name,
            f"{len(layer.filters)}/{layer.count}",
            _number(lowest_over_mean(layer.scores)),
            _number(layer.reselected),
        )
        for name, layer in event.layers.items()
    ]
    return [
        (*first, *layers[0], *last),
        *(("", "", *layer, "", "") for layer in layers[1:]),
    ]


def _summed_rows(events: Sequence[RestartEvent]) -> list[tuple[str, ...]]:
    first, last = events[0].restart, events[-1].restart
    start = str(first) if first == last else f"{first}-{last}", str(events[0].epoch + 1)
    selected, counts = Counter[str](), {}
    for event in events:
        for name, layer in event.layers.items():
            selected[name] += len(layer.filters)
            counts[name] = layer.count
    if not selected:
        return [(*start, "none", "0", *"----")]
    return [(*start, name, f"{selected[name]}/{counts[name]}", *"----") for name in counts]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

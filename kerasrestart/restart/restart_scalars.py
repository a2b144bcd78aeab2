"""The scalars that `RestartTensorBoard` writes, each by its tag; readable without TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerasrestart.scoring.over_mean import over_mean

if TYPE_CHECKING:
    from kerasrestart.restart.records import LayerRestart, RestartEvent


def score_scalars(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Lowest and median score of each layer over the layer's mean, by tag."""
    scalars = {}
    for name, of_layer in scores.items():
        relative = over_mean(of_layer)
        scalars[f"scores_relative/{name}/min"] = float(relative.min())
        scalars[f"scores_relative/{name}/median"] = float(np.median(relative))
    return scalars


def restart_scalars(event: RestartEvent, monitor: str) -> dict[str, float]:
    """The scalars of a restart, by tag.

    Args:
        event: The restart.
        monitor: The monitored metric.
    """
    scalars = level_scalars([event], monitor)
    again = {n: of.reselected for n, of in event.layers.items() if of.reselected is not None}
    if again:
        scalars["restart/reselected"] = sum(again.values())
    for name, layer in event.layers.items():
        if name in again:
            scalars[f"restart/reselected/{name}"] = again[name]
        scalars[f"restart_scores/{name}/min"] = min(layer.scores)
        scalars[f"restart_scores/{name}/median"] = float(np.median(layer.scores))
        scalars[f"restart_scores/{name}/max"] = max(layer.scores)
    for name, layer in restarted_layers(event).items():
        scalars[f"restart/filters/{name}"] = len(layer.filters)
        scalars[f"restart/share/{name}"] = len(layer.filters) / layer.count
    return scalars


def restarted_layers(event: RestartEvent) -> Mapping[str, LayerRestart]:
    """The layers with restarted filters; none in the control, which only selects them."""
    return {} if event.initializer == "none" else event.layers


def level_scalars(events: Sequence[RestartEvent], monitor: str) -> dict[str, float]:
    """The metric before the last restart, by tag: in a chart, a line from each restart on."""
    if not events or monitor not in events[-1].metrics_before:
        return {}
    return {"restart/metric_before": events[-1].metrics_before[monitor]}


def recovery_scalars(events: Sequence[RestartEvent], epoch: int) -> dict[str, float]:
    """The scalars of the metric's recovery that become known at the end of `epoch`, by tag.

    All events are read, as the epoch after one restart may end in the next.
    """
    scalars = {}
    for event in events:
        if event.metric_drop is not None and epoch == event.epoch + 1:
            scalars["restart/metric_drop"] = event.metric_drop
        if event.epochs_to_recover is not None and epoch == event.epoch + event.epochs_to_recover:
            scalars["restart/epochs_to_recover"] = event.epochs_to_recover
    return scalars


def step_restart_scalars(
    events: Sequence[RestartEvent], epoch: int, last: RestartEvent | None = None
) -> dict[str, float]:
    """How many filters were restarted between the batches of an epoch, by tag.

    Args:
        events: All restarts.
        epoch: The epoch.
        last: The last restart before it, which may be of an epoch of the same number: in a loop of
            `fit` each begins at epoch 0. Defaults to None: it is not.
    """
    scalars: Counter[str] = Counter()
    for event in reversed(events):
        if event.step is None or event.epoch != epoch or event is last:
            break
        for name, layer in restarted_layers(event).items():
            scalars[f"restart/filters/{name}"] += len(layer.filters)
    return dict(scalars)


def restarted_scalars(
    events: Sequence[RestartEvent], scores: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Median score of the filters restarted last over that of the others, by tag.

    Without layers in which the median of the others is zero.
    """
    scalars = {}
    for name, layer in restarted_layers(events[-1]).items() if events else ():
        if name in scores and len(layer.filters) < len(scores[name]):
            others = np.median(np.delete(scores[name], layer.filters))
            if others:
                restarted = np.median(scores[name][layer.filters])
                scalars[f"restarted_scores/{name}"] = float(restarted / others)
    return scalars

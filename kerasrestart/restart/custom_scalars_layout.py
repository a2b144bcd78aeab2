"""The tab "Custom scalars" of TensorBoard, which tells what restarts did on one page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tensorboard.plugins.custom_scalar import layout_pb2


def custom_scalars_layout(
    monitor: str,
    layers: Sequence[str],
    *,
    restarts_filters: bool = True,
    selects_again: bool = True,
) -> layout_pb2.Layout:
    """The charts of the tab "Custom scalars".

    Args:
        monitor: The monitored metric.
        layers: Names of the scored layers. Each has a chart of its own, as curves of one run have
            the same colour.
        restarts_filters: Whether filters are restarted, as not in the control. Defaults to True.
        selects_again: Whether a second restart may select filters. Defaults to True.
    """
    metric = re.escape(monitor.removeprefix("val_"))
    restarts = {
        f"{monitor}; a level line begins at each restart": [
            f"epoch_{metric}$",
            "restart/metric_before",
        ],
        "Drop of the metric after a restart": ["restart/metric_drop"],
        "Epochs to recover from a restart": ["restart/epochs_to_recover"],
    }
    if selects_again:
        restarts["Filters selected again at the next restart"] = ["restart/reselected$"]
    scores = {
        f"{name}: lowest and median score": [f"scores_relative/{re.escape(name)}/(min|median)"]
        for name in layers
    }
    restarted = {
        f"{name}: restarted filters over the others": [f"restarted_scores/{re.escape(name)}$"]
        for name in layers
    }
    categories = [_category("Restarts", restarts)]
    if layers:  # a remedy needs none
        title = "Scores over the layer's mean (lowest near 0: a useless filter)"
        categories.append(_category(title, scores))
    if restarts_filters:
        title = "Median score of restarted filters over that of the others (1: as useful)"
        categories.append(_category(title, restarted))
    return layout_pb2.Layout(category=categories)


def _category(title: str, charts: Mapping[str, Sequence[str]]) -> layout_pb2.Category:
    content = layout_pb2.MultilineChartContent
    return layout_pb2.Category(
        title=title,
        chart=[
            layout_pb2.Chart(title=name, multiline=content(tag=tags))
            for name, tags in charts.items()
        ],
    )

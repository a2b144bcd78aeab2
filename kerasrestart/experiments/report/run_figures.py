"""The figures of one run: curves, scores, and the recovery of restarted filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasrestart.experiments.report.drawing import BASELINE_COLOR, COLORS, STYLE

_MAX_PANELS = 60
_RESTART = {"color": "#999999", "linewidth": 0.8, "linestyle": (0, (4, 3))}


@dataclasses.dataclass(frozen=True)
class RunCurves:
    """The data of the figures.

    Attributes:
        history: By name, the logs of each epoch.
        events: The restarts, as `run.json` holds them.
        epochs: The scored epochs, int `[n]`, and
        scores: by layer the scores of them, float `[n, filters]`.
    """

    history: Mapping[str, Sequence[float]]
    events: Sequence[Mapping[str, Any]]
    epochs: np.ndarray
    scores: Mapping[str, np.ndarray]


def draw_run(run: RunCurves) -> dict[str, Figure]:
    """Draws the figures of a run; figures without data are left out.

    Returns:
        By name: `curves`, `useless`, `filters` and `recovery`.
    """
    figures = {}
    with mpl.rc_context(STYLE):
        if run.history.get("epoch"):
            figures["curves"] = _curves(run)
        if len(run.epochs) and run.scores:
            figures["useless"] = _useless(run)
            figures["filters"] = _filters(run)
            if any(event["initializer"] != "none" for event in run.events):
                figures["recovery"] = _recovery(run)
    return figures


def layers_not_drawn(run: RunCurves) -> list[str]:
    """The layers for which the figure `filters` has no panel."""
    return list(run.scores)[_MAX_PANELS:]


def _curves(run: RunCurves) -> Figure:
    figure = Figure(figsize=(8.2, 6.4), layout="constrained")
    panels = figure.subplots(3, sharex=True, height_ratios=(4, 3, 1.4))
    epochs = np.array(run.history["epoch"]) + 1
    for axes, name, label in zip(
        panels, ("accuracy", "loss", "learning_rate"), ("accuracy (%)", "loss", "learning\nrate"),
        strict=True,
    ):  # fmt: skip
        factor = 100 if name == "accuracy" else 1
        for key, color, split in (
            (name, COLORS[1], "training"),
            (f"val_{name}", COLORS[0], "validation"),
        ):
            if key in run.history:
                values = factor * np.array(run.history[key])
                # The rate is constant within an epoch; a sloped line would show rates never used.
                style = {"drawstyle": "steps-mid"} if name == "learning_rate" else {"marker": "."}
                axes.plot(epochs, values, color=color, label=split, markersize=3, **style)
        axes.set_ylabel(label)
        _mark_restarts(axes, run)
    if "accuracy" in run.history or "val_accuracy" in run.history:
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above the curves
    panels[2].set(yscale="log", xlabel="epoch")
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    for event in run.events:
        panels[0].annotate(
            f"restart {event['restart']}", (event["epoch"] + 1.5, 1),
            xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
            va="top", fontsize=7.5, color="#555555",
        )  # fmt: skip
    return figure


def _useless(run: RunCurves) -> Figure:
    """The lowest score of each layer over the layer's mean, by epoch."""
    names = list(run.scores)
    lowest = np.array([_relative(run.scores[name]).min(axis=1) for name in names])
    figure = Figure(figsize=(8.2, 1.3 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        _by_epoch(run.epochs, lowest), aspect="auto", cmap="viridis", vmin=0, vmax=1,
        interpolation="nearest", extent=(*_extent(run.epochs), len(names) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="epoch", title="Lowest score of a layer over the layer's mean")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False)
    _mark_restarts(axes, run, color="white", linewidth=1.4)
    figure.colorbar(image, ax=axes, label="0: a filter does nothing")
    return figure


def _filters(run: RunCurves) -> Figure:
    """All scores over the layer's mean, one row for each filter; restarted filters are marked."""
    names = list(run.scores)[:_MAX_PANELS]
    across = min(2 if len(names) <= 8 else 3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(8.2, 0.9 + 2.1 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        relative = _relative(run.scores[name])
        image = axes.imshow(
            _by_epoch(run.epochs, relative.T), aspect="auto", cmap="magma", vmin=0, vmax=2,
            interpolation="nearest", extent=(*_extent(run.epochs), relative.shape[1] - 0.5, -0.5),
        )  # fmt: skip
        for event in run.events:
            chosen = event["layers"].get(name, {"filters": []})["filters"]
            if not chosen:  # matplotlib finds no layout for an empty line without clipping
                continue
            color = "#bbbbbb" if event["initializer"] == "none" else "#56B4E9"
            at = [event["epoch"] + 1.5] * len(chosen)
            axes.plot(at, chosen, "<", color=color, markersize=4, clip_on=False)
        axes.set(title=name, xlabel="epoch", ylabel="filter")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    figure.colorbar(
        image, ax=grid, label="score over the layer's mean", extend="max", aspect=40,
        shrink=min(0.6, 4 / down),
    )  # fmt: skip
    return figure


def _recovery(run: RunCurves) -> Figure:
    """Scores of restarted filters over the median of the filters that were not restarted."""
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, event in enumerate(run.events):
        following = [e["epoch"] for e in run.events if e["epoch"] > event["epoch"]]
        last = following[0] if following else np.inf
        inside = (run.epochs > event["epoch"]) & (run.epochs <= last)
        if not inside.any():
            continue
        shares = []
        for name, layer in event["layers"].items():
            if name in run.scores and len(layer["filters"]) < run.scores[name].shape[1]:
                rest = np.delete(run.scores[name][inside], layer["filters"], axis=1)
                median = np.median(rest, axis=1, keepdims=True)
                with np.errstate(divide="ignore", invalid="ignore"):
                    shares.append(run.scores[name][inside][:, layer["filters"]] / median)
        if not shares:
            continue
        of_filters = np.concatenate(shares, axis=1)
        since = run.epochs[inside] - event["epoch"]
        color = COLORS[number % len(COLORS)]
        axes.plot(since, of_filters, color=color, alpha=0.25, linewidth=0.7)
        axes.plot(
            since, np.nanmedian(of_filters, axis=1), color=color, marker="o", markersize=3,
            label=f"restart {event['restart']} ({of_filters.shape[1]} filters)",
        )  # fmt: skip
    axes.axhline(1, color=BASELINE_COLOR, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        xlabel="epochs since the restart", ylabel="score over the\nmedian of the others",
        title="Do restarted filters become useful? Thick line: their median", ylim=(0, None),
    )  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure


def _relative(scores: np.ndarray) -> np.ndarray:
    """Scores over the mean of their layer: 0 where all are 0, not a number where there are none."""
    mean = scores.mean(axis=1, keepdims=True)
    return scores / np.where(mean == 0, 1, mean)


def _by_epoch(epochs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Makes one column for each epoch from the first scored one to the last.

    Args:
        epochs: The scored epochs, int `[n]`.
        values: Their values, float `[rows, n]`.

    Returns:
        float `[rows, epochs]`; not a number where an epoch was not scored.
    """
    columns = np.full((len(values), epochs.max() - epochs.min() + 1), np.nan)
    columns[:, epochs - epochs.min()] = values
    return columns


def _extent(epochs: np.ndarray) -> tuple[float, float]:
    """Left and right edge of the columns of `_by_epoch`; epochs are drawn as counted from 1."""
    return float(epochs.min()) + 0.5, float(epochs.max()) + 1.5


def _mark_restarts(axes: Axes, run: RunCurves, **style: Any) -> None:
    for event in run.events:
        axes.axvline(event["epoch"] + 1.5, **{**_RESTART, **style})

"""The figures of a study: curves by epoch, by arm and by restart, and the differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasrestart.experiments.report.drawing import BASELINE_COLOR, COLORS, CONTROL_COLOR, STYLE
from kerasrestart.experiments.study.comparison import NO_DIFFERENCE, Arm, Group
from kerasrestart.experiments.study.plan import CONTROL
from kerasrestart.experiments.study.results import CellResult

_DASHES = ("-", "--", ":")  # for more arms than colours


def draw(groups: Sequence[Group]) -> dict[str, Figure]:
    """Draws all figures of a study.

    Args:
        groups: The study.

    Returns:
        By name of its file: the baselines by epoch (`baselines`); for each model and variation the
        arms by epoch (`arms-...`) and their rounds on one time axis (`restarts-...`); and the
        differences from the control (`differences`). Figures without data are left out.
    """
    figures = {}
    with mpl.rc_context(STYLE):
        curved = [group for group in groups if all(len(_curve(r)) for r in group.results)]
        if curved:
            figures["baselines"] = baselines(curved)
        for group in curved:
            name = "-".join(filter(None, (group.model, group.variation)))
            figures[f"arms-{name}"] = arms_by_epoch(group)
            figures[f"restarts-{name}"] = arms_by_restart(group)
        if any(arm.difference for group in groups for arm in group.arms):
            figures["differences"] = forest(groups)
    return figures


def baselines(groups: Sequence[Group]) -> Figure:
    """Accuracy by epoch of each baseline, as in the paper's figure 3."""
    figure = Figure(figsize=(8.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups):
        results = _one_of_each_seed(group)
        curves = _stack([_curve(result)[: _starts(result)[0]] for result in results])
        color, dashes = _look(number)
        band = _draw_curve(axes, curves, 1, color, dashes, f"{group.name} (n = {len(results)})")
    axes.set(xlabel="epoch", ylabel=_label(groups[0]), title="Baselines")
    _legend(axes, f"mean over seeds;\nband: {band}" if band else "")
    return figure


def arms_by_epoch(group: Group) -> Figure:
    """Accuracy by epoch of each arm, above its difference from the control.

    As in the paper's figures 4 to 6; the lower part is the mean over seeds of the paired
    differences.
    """
    figure = Figure(figsize=(8.2, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    starts = _starts(group.results[0])
    control = next((arm for arm in group.arms if arm.name == CONTROL), None)
    shown, number, band = [], 0, ""
    for arm in group.arms:
        is_control = arm is control
        color, dashes = (CONTROL_COLOR, "-") if is_control else _look(number)
        number += not is_control
        # The baseline is the same for all, and is drawn once.
        first = starts[0]
        label = f"{arm.name} (n = {len(arm.results)})"
        curves = _stack([_curve(result)[first:] for result in arm.results])
        if curves.shape[1]:
            band = _draw_curve(upper, curves, first + 1, color, dashes, label, starts) or band
            shown.append(curves)
        if not is_control and control is not None:
            gaps = _gaps(arm, control, first)
            if gaps.size:
                _draw_curve(lower, gaps, first + 1, color, dashes, None, starts, limits=None)
    before = _stack([_curve(result)[: starts[0]] for result in _one_of_each_seed(group)])
    _draw_curve(upper, before, 1, BASELINE_COLOR, "-", "baseline")
    _zoom(upper, before, shown)
    lower.axhline(0, color=CONTROL_COLOR, linewidth=1)
    for axes in (upper, lower):
        for start in starts:
            axes.axvline(start + 0.5, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
    for number, start in enumerate(starts, 1):
        upper.annotate(
            f"restart {number}", (start + 0.5, 1), xycoords=("data", "axes fraction"),
            xytext=(3, -2), textcoords="offset points", va="top", fontsize=7.5, color="#555555",
        )  # fmt: skip
    upper.set(ylabel=_label(group), title=group.name, xlim=(0, None))
    lower.set(xlabel="epoch", ylabel="difference from\nthe control (points)")
    _legend(upper, f"mean over seeds;\nband: {band}" if band else "")
    return figure


def arms_by_restart(group: Group) -> Figure:
    """The rounds of each arm on one time axis, as in the paper's figures 7 to 9."""
    across = min(4, len(group.arms))
    down = math.ceil(len(group.arms) / across)
    figure = Figure(figsize=(1.2 + 2.2 * across, 0.9 + 2.1 * down), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    most = max(len(_starts(result)) for result in group.results)
    # From light to dark: the rounds have an order.
    shades = [BASELINE_COLOR, *mpl.colormaps["viridis_r"](np.linspace(0.15, 1, max(1, most)))]
    before, later, band = np.empty((0, 0)), [], ""
    for axes, arm in zip(grid.flat, group.arms, strict=False):
        for number in range(most + 1):
            rounds = [_round(result, number) for result in arm.results]
            curves = _stack([curve for curve in rounds if len(curve)])
            if not curves.size:
                continue
            label = f"after restart {number}" if number else "baseline"
            dashes = "-" if number else "--"
            band = _draw_curve(axes, curves, 1, shades[number], dashes, label) or band
            if number:
                later.append(curves)
            else:
                before = curves
        axes.set_title(f"{arm.name} (n = {len(arm.results)})", fontsize=9)
    _zoom(grid[0, 0], before, later)
    for axes in list(grid.flat)[len(group.arms) :]:
        axes.set_visible(False)
    for column in range(across):
        lowest = max(row for row in range(down) if row * across + column < len(group.arms))
        grid[lowest, column].set_xlabel("epoch of the round")
        grid[lowest, column].tick_params(labelbottom=True)
    figure.supylabel(_label(group), fontsize=9)
    explained = f" (mean over seeds; band: {band})" if band else ""
    figure.suptitle(f"{group.name}{explained}", fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False
    )
    return figure


def forest(groups: Sequence[Group]) -> Figure:
    """The paired differences from the control with their confidence intervals."""
    lines = [(g, arm) for g in groups for arm in g.arms if arm.difference is not None]
    headed = len({g.name for g, _ in lines}) > 1
    rows: list[tuple[str, Arm | None]] = []
    for place, (group, arm) in enumerate(lines):
        if headed and (not place or lines[place - 1][0] is not group):
            rows.append((group.name, None))
        rows.append((arm.name, arm))
    figure = Figure(figsize=(7.0, 1.1 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=CONTROL_COLOR, linewidth=1)
    looks = {"better": ("#0072B2", "o"), "worse": ("#D55E00", "s")}
    seen = {}
    for place, (_, arm) in enumerate(rows):
        if arm is None:
            continue
        found = arm.difference
        verdict = arm.verdict if arm.verdict in looks else NO_DIFFERENCE
        color, marker = looks.get(verdict, ("#555555", "D"))
        if found.low is not None:
            axes.plot((found.low, found.high), (place, place), color=color, linewidth=1.6)
        (seen[verdict],) = axes.plot(
            found.mean, place, marker, color=color, markersize=5, linestyle="none",
            markerfacecolor=color if verdict in looks else "white",
        )  # fmt: skip
        axes.annotate(
            f"n = {found.n}", (1, place), xycoords=("axes fraction", "data"), fontsize=7.5,
            xytext=(4, 0), textcoords="offset points", va="center", color="#555555",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    for label, (_, arm) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if arm else "bold")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("difference from the control (points), with its 95 % confidence interval")
    order = [verdict for verdict in (*looks, NO_DIFFERENCE) if verdict in seen]
    figure.legend(
        [seen[verdict] for verdict in order],
        order,
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    return figure


def _curve(result: CellResult) -> np.ndarray:
    """The measure of `curve_measure` in each epoch, in percent."""
    return 100 * np.array(result.history.get(_column(result), ()))


def _column(result: CellResult) -> str:
    return "accuracy" if result.measure == "training accuracy" else "val_accuracy"


def curve_measure(group: Group) -> str:
    """The measure that the curves of a group show, such as `validation accuracy`."""
    training = _column(group.results[0]) == "accuracy"
    return f"{'training' if training else 'validation'} accuracy"


def _label(group: Group) -> str:
    return f"{curve_measure(group)} (%)"


def _starts(result: CellResult) -> list[int]:
    """The first epoch of each round after the baseline; without one, the end of the baseline."""
    rounds = result.record["rounds"]
    return [r["first_epoch"] for r in rounds[1:]] or [rounds[0]["epochs"]]


def _round(result: CellResult, number: int) -> np.ndarray:
    rounds = result.record["rounds"]
    if number >= len(rounds):
        return np.array([])
    first = rounds[number]["first_epoch"]
    return _curve(result)[first : first + rounds[number]["epochs"]]


def _one_of_each_seed(group: Group) -> list[CellResult]:
    """For each seed one run that contains the baseline, the control's if it has finished."""
    found: dict[int, CellResult] = {}
    for result in group.results:
        found.setdefault(result.cell.seed, result)
    return [found[seed] for seed in sorted(found)]


def _gaps(arm: Arm, control: Arm, first: int) -> np.ndarray:
    """Differences of the arm's curves from those of the control with the same seed, from `first`.

    Returns:
        `[pairs, epochs]`, as long as the shortest curve.
    """
    others = {result.cell.seed: result for result in control.results}
    pairs = [(r, others[r.cell.seed]) for r in arm.results if r.cell.seed in others]
    both = _stack([_curve(result)[first:] for pair in pairs for result in pair])
    return both[::2] - both[1::2]


def _stack(curves: Sequence[np.ndarray]) -> np.ndarray:
    """`[runs, epochs]`, as long as the shortest."""
    length = min((len(curve) for curve in curves), default=0)
    return np.array([curve[:length] for curve in curves]).reshape(len(curves), length)


def _draw_curve(
    axes: Axes,
    curves: np.ndarray,
    first: int,
    color: str | np.ndarray,
    dashes: str,
    label: str | None,
    breaks: Sequence[int] = (),
    limits: tuple[float, float] | None = (0.0, 100.0),
) -> str:
    """Draws the mean of some runs with a band, and returns the band's description.

    Args:
        axes: The axes to draw into.
        curves: `[runs, epochs]`.
        first: The first epoch, counted from 1.
        color: Colour of the line.
        dashes: Style of the line.
        label: Name of the line in the legend, or None.
        breaks: Epochs, counted from 1, after which the line is interrupted. Defaults to none.
        limits: Range that the band is cut to; None: no limits. Defaults to that of percentages.
    """
    epochs = np.arange(first, first + curves.shape[1], dtype=float)
    gaps = [place - first + 1 for place in breaks if first <= place < epochs[-1]]
    # A single point has no line.
    marker = "o" if len(epochs) <= len(gaps) + 1 else None
    epochs, curves = np.insert(epochs, gaps, np.nan), np.insert(curves, gaps, np.nan, axis=1)
    mean = curves.mean(axis=0)
    axes.plot(epochs, mean, color=color, linestyle=dashes, label=label, marker=marker, markersize=4)
    if len(curves) < 2:
        return ""
    if len(curves) == 2:
        low, high, what = curves.min(axis=0), curves.max(axis=0), "lowest to highest"
    else:
        deviation = curves.std(axis=0, ddof=1)
        low, high, what = mean - deviation, mean + deviation, "± 1 standard deviation"
    if limits is not None:
        low, high = np.clip(low, *limits), np.clip(high, *limits)
    axes.fill_between(epochs, low, high, color=color, alpha=0.13, linewidth=0)
    return what


def _look(number: int) -> tuple[str, str]:
    return COLORS[number % len(COLORS)], _DASHES[number // len(COLORS) % len(_DASHES)]


def _zoom(axes: Axes, baseline: np.ndarray, later: Sequence[np.ndarray]) -> None:
    """Leaves out the baseline's first rise, which would hide differences of a point."""
    late = baseline[:, baseline.shape[1] // 3 :]
    values = np.concatenate([curves.ravel() for curves in (late, *later)])
    values = values[np.isfinite(values)]
    if values.size and np.ptp(values):
        margin = 0.06 * np.ptp(values)
        axes.set_ylim(values.min() - margin, values.max() + 2 * margin)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _legend(axes: Axes, title: str) -> None:
    """Adds a legend beside the axes, where it hides no curve."""
    axes.legend(
        title=title or None, title_fontsize=7.5, fontsize=8, alignment="left", loc="upper left",
        bbox_to_anchor=(1.01, 1),
    )  # fmt: skip
    axes.xaxis.get_major_locator().set_params(integer=True)

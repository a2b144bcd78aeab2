"""Tables of a study that show where a gain comes from: the choice of epochs, the filters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from kerasrestart.experiments.study.comparison import Arm, Group
from kerasrestart.experiments.study.results import CellResult
from kerasrestart.experiments.study.statistics import summarize
from kerasrestart.experiments.study.tables import Table, place, without_idle_columns


def by_test_epoch(groups: Sequence[Group]) -> Table:
    """What choosing epochs by the test set would claim: gains over the baseline, in points.

    A row for each arm of each model. Both gains compare the best epoch after the baseline with the
    baseline's best epoch; the epochs are chosen by the monitored metric, and by test accuracy. Runs
    without `--test_each_epoch` are left out, and those compared by another outcome.

    Args:
        groups: The study.
    """
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for group in groups:
        for arm in group.arms:
            tested = [
                result
                for result in arm.results
                if "test_accuracy" in result.history and result.validation is not None
            ]
            if not tested:
                continue
            honest = summarize([100 * (r.chosen - r.by_round[0]) for r in tested])
            gains = [_test_gain(result) for result in tested]
            found = summarize(gains)
            span = f"{min(gains):+.2f} to {max(gains):+.2f}" if len(gains) > 1 else ""
            texts = (str(found.n), f"{honest.mean:+.2f}", f"{found.mean:+.2f}", span)
            rows.append((group.name, arm.name, *texts))
            data.append(
                {
                    **place(group),
                    "arm": arm.name,
                    "n": found.n,
                    "gain by validation": honest.mean,
                    "gain by test": found.mean,
                    "lowest gain by test": min(gains),
                    "highest gain by test": max(gains),
                }
            )
    header: tuple[str, ...] = (
        *("model", "arm", "n"),
        *("by validation", "by test", "by test, one seed"),
    )
    if rows:
        header, rows = without_idle_columns(header, rows)
    title = "Gain over the baseline, with epochs chosen by validation and by test accuracy (points)"
    return Table("by_test_epoch", title, header, rows, header.index("n"), data)


def _test_gain(result: CellResult) -> float:
    """Highest test accuracy after the baseline less that of the baseline, in points."""
    values, start = result.history["test_accuracy"], result.record["rounds"][0]["epochs"]
    return 100 * (max(values[start:], default=max(values)) - max(values[:start]))


def restarted(groups: Sequence[Group]) -> Table:
    """Whether the restarted filters were useless, and whether they were of use later.

    A row for each arm of each model, over all seeds: the score of the selected filters over the
    mean of their layer, averaged over layers, at the first and at the last restart; and the share
    of the selected filters that had been selected at the restart before.

    Args:
        groups: The study.
    """
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for group in groups:
        for arm in group.arms:
            found = _selected(arm)
            if found is None:
                continue
            count, first, last, again = found
            texts = (f"{count:.1f}", *("" if v is None else f"{v:.2f}" for v in (first, last)))
            share = "" if again is None else f"{again:.0%}"
            rows.append((group.name, arm.name, str(arm.summary.n), *texts, share))
            data.append(
                {
                    **place(group),
                    "arm": arm.name,
                    "n": arm.summary.n,
                    "filters selected": count,
                    "score over mean, first restart": first,
                    "score over mean, last restart": last,
                    "share selected again": again,
                }
            )
    header: tuple[str, ...] = (
        *("model", "arm", "n", "filters selected"),
        *("score, first restart", "score, last restart", "selected again"),
    )
    if rows:
        header, rows = without_idle_columns(header, rows)
    title = "Selected filters: their score over the mean of their layer, and how many come again"
    return Table("restarted", title, header, rows, header.index("n"), data)


def _selected(arm: Arm) -> tuple[float, float | None, float | None, float | None] | None:
    """Filters selected each time, scores the first and the last time, share selected again."""
    events = [result.record["events"] for result in arm.results if result.record["events"]]
    if not events:
        return None
    counts = [sum(len(of["filters"]) for of in e["layers"].values()) for run in events for e in run]
    # The scores of random filters are random numbers.
    scored = [e for e in events if arm.results[0].record["settings"]["criterion"] != "random"]
    first = [ratio for run in scored for ratio in _ratios(run[0])]
    last = [ratio for run in scored for ratio in _ratios(run[-1])]
    pairs = [pair for run in events for pair in itertools.pairwise(run)]
    chosen = again = 0
    for before, after in pairs:
        for name, of in after["layers"].items():
            chosen += len(of["filters"])
            earlier = before["layers"].get(name, {"filters": ()})["filters"]
            again += len(set(of["filters"]) & set(earlier))
    share = again / chosen if chosen else None
    return math.fsum(counts) / len(counts), _mean(first), _mean(last), share


def _ratios(event: dict[str, Any]) -> Iterator[float]:
    for of in event["layers"].values():
        scores, filters = of["scores"], of["filters"]
        if filters and (total := math.fsum(scores)) > 0:
            yield math.fsum(scores[k] for k in filters) / len(filters) / (total / len(scores))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None

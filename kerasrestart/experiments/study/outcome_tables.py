"""Tables of a study beside the comparison with its control: other outcomes, and pairs of arms."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kerasrestart.experiments.study.comparison import Group
from kerasrestart.experiments.study.plan import CONTROL
from kerasrestart.experiments.study.results import CellResult
from kerasrestart.experiments.study.statistics import (
    Difference,
    holm,
    p_cell,
    paired_difference,
    summarize,
)
from kerasrestart.experiments.study.tables import Table, place

Pair = tuple[str, str]


def by_outcome(groups: Sequence[Group]) -> Table:
    """A row for each arm, a column for each outcome with its difference from the control.

    Without a row where the study compares test accuracy, which the other tables show.

    Args:
        groups: The study.
    """
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for group in groups:
        if all(result.cell.outcome == "test" for result in group.results):
            continue
        controls = [r for arm in group.arms if arm.name == CONTROL for r in arm.results]
        for arm in group.arms:
            texts = []
            for outcome in ("online", "test", "final"):
                values = _percent(arm.results, outcome)
                summary = summarize(list(values.values()))
                found = None
                if arm.name != CONTROL:
                    found = paired_difference(values, _percent(controls, outcome))
                mean = f"{summary.mean:.2f}"
                texts.append(mean if found is None else f"{mean} ({found.mean:+.2f})")
                row: dict[str, Any] = {
                    **place(group),
                    "arm": arm.name,
                    "outcome": outcome,
                    "n": summary.n,
                }
                row |= {"mean": summary.mean, "standard deviation": summary.deviation}
                data.append({**row, **_numbers(found)})
            rows.append((group.name, arm.name, str(arm.summary.n), *texts))
    described = [r for group in groups for r in group.results]
    test = "; ".join(dict.fromkeys(_with(result, "test").outcome for result in described))
    title = f"Other outcomes (difference from the control): online; {test}; last epoch"
    header = ("model", "arm", "n", "online", "test", "last epoch")
    return Table("by_outcome", title, header, rows, 2, data)


def pairs(groups: Sequence[Group], compared: Sequence[Pair]) -> Table:
    """A row for each pair of arms: the difference of the first from the second.

    The pairs of a model, in all variations of a sweep, are one family of Holm's correction for each
    outcome, apart from the comparisons with the control.

    Args:
        groups: The study.
        compared: The pairs. One without a common seed has no row.
    """
    families: dict[tuple[str, str], list[tuple[Group, Pair, Difference]]] = {}
    for group in groups:
        arms = {arm.name: arm.results for arm in group.arms}
        own = [result.cell.outcome for result in group.results][:1]
        for outcome in dict.fromkeys([*own, "test"]):
            for pair in compared:
                found = paired_difference(*(_percent(arms.get(name, ()), outcome) for name in pair))
                if found:
                    family = families.setdefault((group.model, outcome), [])
                    family.append((group, pair, found))
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for (_, outcome), family in families.items():
        adjusted = holm([difference.p for _, _, difference in family])
        for (group, pair, difference), p in zip(family, adjusted, strict=True):
            texts = (f"{difference.mean:+.2f}", difference.interval, p_cell(p))
            rows.append((group.name, *pair, outcome, str(difference.n), *texts))
            names = {"arm": pair[0], "other": pair[1], "outcome": outcome}
            data.append({**place(group), **names, **_numbers(difference), "p after Holm": p})
    header = ("model", "arm", "against", "outcome", "n", "difference", "95% interval", "p (Holm)")
    return Table("pairs", "Arms against each other", header, rows, 4, data)


def _with(result: CellResult, outcome: str) -> CellResult:
    return dataclasses.replace(result, cell=dataclasses.replace(result.cell, outcome=outcome))


def _percent(results: Sequence[CellResult], outcome: str) -> dict[int, float]:
    return {result.cell.seed: 100 * _with(result, outcome).chosen for result in results}


def _numbers(difference: Difference | None) -> dict[str, float | None]:
    if difference is None:
        return {}
    return {
        "pairs": difference.n,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
    }

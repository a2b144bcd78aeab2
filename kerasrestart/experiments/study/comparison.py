"""Results put in order: for each model and variation its arms, each beside the control."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kerasrestart.experiments.study.plan import CONTROL
from kerasrestart.experiments.study.results import CellResult
from kerasrestart.experiments.study.statistics import (
    CONFIDENCE,
    MOST_SEEDS,
    POWER,
    Difference,
    Summary,
    holm,
    paired_difference,
    seeds_needed,
    summarize,
)

POINTS = 1.0  # the difference that a study should be able to find, in points of accuracy


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm of one model and variation. Numbers are in percent, differences in points.

    Attributes:
        name: What it is called.
        results: Its runs, in the order of the seeds.
        summary: Of its outcomes.
        last: Of what it has at the last epoch.
        difference: What it has more than the control; None for the control, and where they have no
            seed in common.
        adjusted_p: The difference's p after Holm's correction over the arms of this model in all
            variations, or None.
        comparisons: How many arms of this model, in all variations, are tested against their
            control; the correction is for them.
        seeds_needed: How many seeds it would take to find a difference of one point, by the spread
            of the differences, at the level of Holm's first step, which is the strictest; None
            where that is not known, or more than anybody has.
        verdict: One of `"control"`, `"better"`, `"worse"`, `"equal"`, `"not told apart"`,
            `"unknown"`.
    """

    name: str
    results: tuple[CellResult, ...]
    summary: Summary
    last: Summary
    difference: Difference | None
    adjusted_p: float | None
    comparisons: int
    seeds_needed: int | None
    verdict: str

    def sentence(self) -> str:
        """The verdict as a sentence or two, in Markdown."""
        difference = self.difference
        if difference is None:
            return f"**{self.name}**: no seed in common with the control, so nothing can be said."
        n, points = difference.n, f"{difference.mean:+.2f} points"
        seeds = f"{n} seed" if n == 1 else f"{n} seeds"
        if self.verdict == "equal":
            return f"**{self.name}** and the control are equal in each of {seeds}."
        not_apart = f"**{self.name}** and the control are not told apart with {seeds}:"
        if n == 1:
            return f"{not_apart} {points}, and one seed tells nothing of the spread."
        if difference.p is None:
            return f"{not_apart} {points} in each of them, so the spread is not known."
        sure = (
            f"{points} ({CONFIDENCE:.0%} confidence interval {difference.low:+.2f} to "
            f"{difference.high:+.2f}, p {p_text(self.adjusted_p)} after Holm's correction)"
        )
        if self.verdict != "not told apart":
            return f"**{self.name}** is {self.verdict} than the control: {sure}, {seeds}."
        needed = self.seeds_needed
        if needed is None:
            enough = f"more than {MOST_SEEDS} seeds would be needed"
        elif needed > n:
            enough = f"{needed} seeds would be needed"
        else:
            enough = f"{needed} seeds are enough"
        level = f"{1 - CONFIDENCE:.0%}"
        if self.comparisons > 1:
            level += f" / {self.comparisons}, Holm's first and strictest step"
        return (
            f"{not_apart} {sure}. By the spread seen here, {enough} to find a true difference of "
            f"one point with a power of {POWER:.0%} at a level of {level}."
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """The arms of one model and variation: they are compared with each other.

    Attributes:
        model: The network's name in the study.
        variation: The swept flags; empty without a sweep.
        arms: The control first, where it has results, then the others in the study's order.
    """

    model: str
    variation: str
    arms: tuple[Arm, ...]

    @property
    def name(self) -> str:
        """Model and variation."""
        return ", ".join(filter(None, (self.model, self.variation)))

    @property
    def results(self) -> list[CellResult]:
        """All runs."""
        return [result for arm in self.arms for result in arm.results]

    @property
    def outcome(self) -> str:
        """What the arms are compared by, in words."""
        return "; ".join(dict.fromkeys(result.outcome for result in self.results))

    @property
    def chooses(self) -> bool:
        """Whether the outcome is that of epochs which the monitored metric has chosen."""
        return any(result.is_model_selected for result in self.results)

    @property
    def budgets(self) -> dict[tuple[int, int], list[str]]:
        """By how many epochs and how many restarts were made: which arms have runs that made them.

        A study plans one budget for all; but a run that diverges makes no more restarts.
        """
        found: dict[tuple[int, int], list[str]] = {}
        for arm in self.arms:
            for result in arm.results:
                names = found.setdefault((result.epochs, len(result.by_round) - 1), [])
                if arm.name not in names:
                    names.append(arm.name)
        return found


def compare(results: Sequence[CellResult]) -> list[Group]:
    """Compares each arm with the control of the same model and variation.

    A model's arms in all variations of a sweep are one family of comparisons.

    Args:
        results: The runs, in the study's order.

    Returns:
        For each model and variation the arms, all in the order in which they come in `results`.
    """
    grid: dict[tuple[str, str], dict[str, list[CellResult]]] = {}
    for result in results:
        cell = result.cell
        of_group = grid.setdefault((cell.model, cell.variation), {})
        of_group.setdefault(cell.arm, []).append(result)
    models = list(dict.fromkeys(model for model, _ in grid))
    groups = []
    for model in models:
        differences: dict[tuple[str, str], Difference | None] = {}
        for (of, variation), by_arm in grid.items():
            if of == model:
                differences |= {(variation, arm): d for arm, d in _differences(by_arm).items()}
        p_values = [None if found is None else found.p for found in differences.values()]
        adjusted = dict(zip(differences, holm(p_values), strict=True))
        comparisons = sum(p is not None for p in p_values)
        for variation in dict.fromkeys(variation for variation, _ in differences):
            runs = grid[model, variation]
            arms = tuple(
                _arm(name, runs[name], found, adjusted[variation, name], comparisons)
                for (of, name), found in differences.items()
                if of == variation
            )
            groups.append(Group(model, variation, arms))
    return groups


def _differences(by_arm: Mapping[str, list[CellResult]]) -> dict[str, Difference | None]:
    """What each arm has more than the control, which comes first; None for the control itself."""
    names = sorted(by_arm, key=lambda name: name != CONTROL)  # a stable sort
    percent = {
        name: {result.cell.seed: 100 * result.chosen for result in by_arm[name]} for name in names
    }
    control = percent.get(CONTROL, {})
    return {
        name: None if name == CONTROL else paired_difference(percent[name], control)
        for name in names
    }


def _arm(
    name: str,
    results: Sequence[CellResult],
    difference: Difference | None,
    p: float | None,
    comparisons: int,
) -> Arm:
    return Arm(
        name,
        tuple(sorted(results, key=lambda result: result.cell.seed)),
        summarize([100 * result.chosen for result in results]),
        summarize([100 * result.last for result in results]),
        difference,
        p,
        comparisons,
        _needed(difference, comparisons),
        "control" if name == CONTROL else _verdict(difference, p),
    )


def _needed(difference: Difference | None, comparisons: int) -> int | None:
    if difference is None or not difference.deviation:
        return None
    return seeds_needed(difference.deviation, POINTS, comparisons)


def _verdict(difference: Difference | None, p: float | None) -> str:
    if difference is None:
        return "unknown"
    if difference.deviation == 0 and difference.p == 1:
        return "equal"
    if p is None or p >= 1 - CONFIDENCE:
        return "not told apart"
    return "better" if difference.mean > 0 else "worse"


def p_text(p: float) -> str:
    """A p-value with two digits that count, such as `= 0.031` or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"

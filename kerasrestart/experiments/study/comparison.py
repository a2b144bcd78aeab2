"""Compares the arms of a study: for each model and variation, each arm with the control."""

from __future__ import annotations

import dataclasses
import math
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
    p_text,
    paired_difference,
    seeds_needed,
    summarize,
)

POINTS = 1.0  # the difference that a study should be able to find, in points of accuracy
NO_DIFFERENCE = "no significant difference"
_LEAST_SEEDS = 4  # fewer give no usable estimate of the spread


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm of one model and variation. Values are in percent, differences in points.

    Attributes:
        name: Its name.
        results: Its runs, in the order of the seeds.
        summary: Summary of its outcomes.
        last: Summary of its accuracies at the last epoch.
        difference: Its difference from the control; None for the control, and without a common
            seed.
        adjusted_p: The difference's p-value after Holm's correction over the arms of this model in
            all variations, or None.
        comparisons: Number of arms of this model, in all variations, that are tested against their
            control; the correction is for these.
        seeds_needed: Number of seeds that find a difference of one point, given the spread of the
            differences, at the level of Holm's first step, which is the strictest; None with fewer
            than four seeds, and above `MOST_SEEDS`.
        verdict: One of `"control"`, `"better"`, `"worse"`, `"equal"`, `NO_DIFFERENCE` and
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
            return f"**{self.name}**: no seed in common with the control, so no comparison."
        n, points = difference.n, f"{difference.mean:+.2f} points"
        seeds = f"{n} seed" if n == 1 else f"{n} seeds"
        if self.verdict == "equal":
            return f"**{self.name}** is equal to the control for each of {seeds}."
        no_difference = f"**{self.name}**: {NO_DIFFERENCE} from the control with {seeds}:"
        if n == 1:
            return f"{no_difference} {points}; one seed does not show the spread."
        if difference.p is None:
            return f"{no_difference} {points} for each of them, so the spread is unknown."
        details = (
            f"{points} ({CONFIDENCE:.0%} confidence interval {difference.low:+.2f} to "
            f"{difference.high:+.2f}, p {p_text(self.adjusted_p)} after Holm's correction)"
        )
        if self.verdict != NO_DIFFERENCE:
            return f"**{self.name}** is {self.verdict} than the control: {details}, {seeds}."
        if n < _LEAST_SEEDS:
            return f"{no_difference} {details}."
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
            f"{no_difference} {details}. With the spread seen here, {enough} to find a true "
            f"difference of one point with a power of {POWER:.0%} at a level of {level}."
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """The arms of one model and variation, which are compared with each other.

    Attributes:
        model: The network's name in the study.
        variation: The swept flags; empty without a sweep.
        arms: The control first, if it has results, then the others in the study's order.
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
        """Description of the outcome that arms are compared by."""
        return "; ".join(dict.fromkeys(result.outcome for result in self.results))

    @property
    def is_model_selected(self) -> bool:
        """Whether the epochs of the outcome are selected by the monitored metric."""
        return any(result.is_model_selected for result in self.results)

    @property
    def budgets(self) -> dict[tuple[int, int], list[str]]:
        """By numbers of epochs and of restarts, the arms with runs of that budget.

        A study plans the same budget for all, but a run that diverges makes no more restarts.
        """
        found: dict[tuple[int, int], list[str]] = {}
        for arm in self.arms:
            for result in arm.results:
                names = found.setdefault((result.epochs, len(result.by_round) - 1), [])
                if arm.name not in names:
                    names.append(arm.name)
        return found

    def sentences(self) -> list[str]:
        """The verdicts, in Markdown: of the arms together where none is better, then of each."""
        others = [arm for arm in self.arms if arm.name != CONTROL]
        if len(others) == len(self.arms):
            return ["No run of the control has finished, so there is no comparison."]
        if not others:
            return ["No arm except the control has finished."]
        found = [arm.sentence() for arm in others]
        highs = [_high(arm.difference) for arm in others]
        if None in highs or any(arm.verdict == "better" for arm in others):
            return found
        excluded = f"a gain above {max(highs):.2f} points" if max(highs) > 0 else "any gain"
        return [
            f"No arm is significantly better than the control; every {CONFIDENCE:.0%} interval "
            f"excludes {excluded}.",
            *found,
        ]


def _high(difference: Difference | None) -> float | None:
    """Upper end of the confidence interval, or None."""
    if difference is None:
        return None
    return 0.0 if difference.p == 1 and difference.deviation == 0 else difference.high


def check_outcomes(results: Sequence[CellResult]) -> None:
    """Checks that all accuracies of all runs are between 0 and 1.

    Raises:
        ValueError: One is not, or is not a finite number; the line names the run.
    """
    for result in results:
        values = [*result.by_round, result.chosen, result.last]
        values += [value for value in (result.validation,) if value is not None]
        for value in values:
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(
                    f"The accuracies of run {result.cell.name} must be between 0 and 1: remove the "
                    f"run's folder and run it again. Received: {value!r}"
                )


def compare(results: Sequence[CellResult]) -> list[Group]:
    """Compares each arm with the control of the same model and variation.

    A model's arms in all variations of a sweep are one family of comparisons.

    Args:
        results: The runs, in the study's order.

    Returns:
        For each model and variation the arms, in the order of `results`.

    Raises:
        ValueError: An accuracy is not a number between 0 and 1.
    """
    check_outcomes(results)
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
    """Each arm's difference from the control, which comes first; None for the control itself."""
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
    if difference is None or difference.n < _LEAST_SEEDS or not difference.deviation:
        return None
    return seeds_needed(difference.deviation, POINTS, comparisons)


def _verdict(difference: Difference | None, p: float | None) -> str:
    if difference is None:
        return "unknown"
    if difference.deviation == 0 and difference.p == 1:
        return "equal"
    if p is None or p >= 1 - CONFIDENCE:
        return NO_DIFFERENCE
    return "better" if difference.mean > 0 else "worse"

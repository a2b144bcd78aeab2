"""The tables of a study: Markdown to read, CSV to compute with."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from kerasrestart.experiments.report.markdown import align
from kerasrestart.experiments.study.comparison import Arm, Group
from kerasrestart.experiments.study.plan import CONTROL
from kerasrestart.experiments.study.published import BASELINE, Published
from kerasrestart.experiments.study.statistics import Summary, p_cell, summarize


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in both forms.

    Attributes:
        name: Name of its files.
        title: Its heading.
        header: The columns of the Markdown table.
        rows: Its rows, a text for each column.
        texts: Number of columns from the left that hold words; the others hold numbers.
        data: The rows of the CSV file, unrounded: column -> value.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    texts: int
    data: list[dict[str, Any]]

    def to_markdown(self) -> str:
        """The Markdown table."""
        right = [column >= self.texts for column in range(len(self.header))]
        return align(self.header, self.rows, right)

    def to_csv(self) -> str:
        """The CSV file; an empty field is an unknown number."""
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in self.data for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.data)
        return text.getvalue()


def by_initialisation(groups: Sequence[Group], published: Published | None = None) -> Table:
    """A row for the baseline and each arm, a column for each model, as in the paper's table 2.

    Args:
        groups: The study.
        published: Results of a paper, each in a column beside the study's, with the difference
            between them. Defaults to None.
    """
    models = list(dict.fromkeys(group.model for group in groups))
    texts: dict[tuple[str, str], dict[str, str]] = {}
    data: list[dict[str, Any]] = []
    for group in groups:
        baselines: dict[int, float] = {}
        for result in group.results:
            baselines.setdefault(result.cell.seed, 100 * result.by_round[0])
        found = {BASELINE: summarize(list(baselines.values()))}
        found |= {arm.name: arm.summary for arm in group.arms}
        for name, summary in found.items():
            text = f"{summary.text} ({summary.n})"
            row = texts.setdefault((group.variation, name), {})
            row[group.model] = text
            theirs = published.by_arm.get(group.model, {}).get(name) if published else None
            row[_beside(group.model)] = _published(theirs, summary)
            data.append(
                {
                    **place(group),
                    "arm": name,
                    "n": summary.n,
                    "mean": summary.mean,
                    "standard deviation": summary.deviation,
                    **({"published": theirs} if published else {}),
                }
            )
    lead = ("variation", "arm") if any(group.variation for group in groups) else ("arm",)
    columns: list[str] = []
    for model in models:
        columns.append(model)
        if published and model in published.by_arm:
            columns.append(_beside(model))
    names = [c if c in models else f"{published.name} (difference)" for c in columns if published]
    return Table(
        "by_initialisation",
        "By initialisation (number of seeds in brackets)",
        (*lead, *(names or columns)),
        [
            (*key[-len(lead) :], *(row.get(column, "") for column in columns))
            for key, row in texts.items()
        ],
        len(lead),
        data,
    )


def _beside(model: str) -> str:
    """Key of the published results of a model; no model has such a name."""
    return f"{model}, published"


def _published(value: float | None, mean: Summary | None) -> str:
    """A published value, and how much the study's mean is above it."""
    if value is None:
        return ""
    return f"{value:.2f}" if mean is None else f"{value:.2f} ({mean.mean - value:+.2f})"


def by_restart(groups: Sequence[Group], published: Published | None = None) -> Table:
    """A row for each arm of each model, a column for each round, as in the paper's table 3.

    Args:
        groups: The study.
        published: Results of a paper; each arm that has some is followed by a row with them.
            Defaults to None.
    """
    longest = max(len(result.by_round) for group in groups for result in group.results)
    rounds = ["baseline", *(f"restart {n}" for n in range(1, longest))]
    varied = any(group.variation for group in groups)
    rows, data = [], []
    for group in groups:
        for arm in group.arms:
            texts, beside = [], []
            theirs = published.by_restart.get(group.model, {}).get(arm.name) if published else None
            for number, label in enumerate(rounds):
                values = [100 * r.by_round[number] for r in arm.results if len(r.by_round) > number]
                summary = summarize(values) if values else None
                texts.append(summary.text if summary else "")
                value = theirs[number] if theirs and number < len(theirs) else None
                beside.append(_published(value, summary))
                if summary:
                    data.append(
                        {
                            **place(group),
                            "arm": arm.name,
                            "round": label,
                            "n": summary.n,
                            "mean": summary.mean,
                            "standard deviation": summary.deviation,
                            **({"published": value} if published else {}),
                        }
                    )
            rows.append((*_lead(group, varied), arm.name, str(arm.summary.n), *texts))
            if published and theirs:
                name = f"{arm.name}, {published.name} (difference)"
                rows.append((*_lead(group, varied), name, "1", *beside))
    header = ("model", *(["variation"] if varied else []), "arm", "n", *rounds)
    header, rows = without_idle_columns(header, rows)
    return Table("by_restart", "By restart", header, rows, header.index("n"), data)


def differences(groups: Sequence[Group]) -> Table:
    """A row for each arm of each model: its difference from the control, with its uncertainty.

    Args:
        groups: The study.
    """
    varied = any(group.variation for group in groups)
    rows, data = [], []
    for group in groups:
        for arm in group.arms:
            rows.append((*_lead(group, varied), *_difference_texts(arm)))
            found = arm.difference
            values = None if found is None else dataclasses.asdict(found)
            data.append(
                {
                    **place(group),
                    "arm": arm.name,
                    "verdict": arm.verdict,
                    "n": arm.summary.n,
                    "mean": arm.summary.mean,
                    "standard deviation": arm.summary.deviation,
                    "mean, last epoch": arm.last.mean,
                    "standard deviation, last epoch": arm.last.deviation,
                    "pairs": values and values["n"],
                    "difference": values and values["mean"],
                    "deviation of differences": values and values["deviation"],
                    "low": values and values["low"],
                    "high": values and values["high"],
                    "p": values and values["p"],
                    "p after Holm": arm.adjusted_p,
                    "seeds for one point": arm.seeds_needed,
                }
            )
    header = (
        *(
            "model",
            *(["variation"] if varied else []),
            "arm",
            "verdict",
            "mean",
            "last epoch",
            "pairs",
        ),
        *("difference", "95% interval", "p after Holm", "seeds for one point"),
    )
    header, rows = without_idle_columns(header, rows)
    title = "Differences from the control"
    return Table("differences", title, header, rows, header.index("mean"), data)


def _difference_texts(arm: Arm) -> tuple[str, ...]:
    found = arm.difference
    if found is None:
        verdict = "" if arm.name == CONTROL else "no seed in common"
        return (arm.name, verdict, arm.summary.text, arm.last.text, *[""] * 5)
    return (
        arm.name,
        arm.verdict,
        arm.summary.text,
        arm.last.text,
        str(found.n),
        f"{found.mean:+.2f}",
        found.interval,
        p_cell(arm.adjusted_p),
        "" if arm.seeds_needed is None else str(arm.seeds_needed),
    )


def without_idle_columns(
    header: tuple[str, ...], rows: list[tuple[str, ...]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Leaves out empty columns, and the model where there is only one: tables fit a phone."""
    kept = [
        n
        for n, (name, values) in enumerate(zip(header, zip(*rows, strict=True), strict=True))
        if any(values) and (name != "model" or len(set(values)) > 1)
    ]
    return tuple(header[n] for n in kept), [tuple(row[n] for n in kept) for row in rows]


def _lead(group: Group, varied: bool) -> tuple[str, ...]:
    return (group.model, group.variation) if varied else (group.model,)


def place(group: Group) -> dict[str, str]:
    """The columns of a CSV file that name a group."""
    return {"model": group.model, "variation": group.variation}

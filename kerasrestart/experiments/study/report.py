"""The report of a study: Markdown, HTML, tables and figures."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kerasrestart.experiments.report import html_page
from kerasrestart.experiments.report.drawing import to_bytes
from kerasrestart.experiments.report.markdown import code, escape, plain_table
from kerasrestart.experiments.study import figures, origin_tables, outcome_tables, tables
from kerasrestart.experiments.study.comparison import Group, compare
from kerasrestart.experiments.study.plan import CONTROL
from kerasrestart.experiments.study.published import Published
from kerasrestart.experiments.study.results import CellResult, common_settings
from kerasrestart.experiments.study.statistics import CONFIDENCE
from kerasrestart.experiments.study.tables import Table
from kerasrestart.experiments.study.tuning import Tuning
from kerasrestart.network.text import one_line
from kerasrestart.restart.files import write_text

_CAPTIONS = {
    "baselines": "accuracy by epoch of the baselines.",
    "arms": "accuracy by epoch of each arm; below it the difference from the control of the same "
    "seed, averaged over seeds.",
    "restarts": "the rounds of each arm on one time axis.",
    "differences": "each arm's difference from the control, with confidence intervals.",
}
_PARTS = ("figures", "tables")
_LISTING = "report_files.txt"
_NOT_SHOWN = ("seed", "baseline")  # seeds are the repetitions, baselines are folders


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """Where a report is written, and what it says of its study.

    Attributes:
        folder: Where to.
        title: Its title.
        command: The command line of the study.
        published: Results to show beside those of the study, or None. Defaults to None.
        tuning: The trials of the study's tuning. Defaults to None: nothing was tuned.
        pairs: Arms to compare with each other, beside the control. Defaults to none.
    """

    folder: pathlib.Path
    title: str
    command: str
    published: Published | None = None
    tuning: Tuning | None = None
    pairs: Sequence[outcome_tables.Pair] = ()


def write_report(
    results: Sequence[CellResult], report: ReportSettings, missing: Mapping[str, str]
) -> pathlib.Path:
    """Writes `report.md`, `report.html` (one file, with its figures), `tables/` and `figures/`.

    The same results give the same bytes: the report contains no times.

    `report_files.txt` lists the files written to the two folders; other files there are kept.

    Args:
        results: The finished runs, one or more, in the study's order.
        report: Where the report is written, and what it says of the study.
        missing: Missing run -> the reason, in a few words.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: An accuracy is not a number between 0 and 1; nothing is written.
    """
    groups, published = compare(results), report.published
    made = [
        tables.differences(groups),
        tables.by_initialisation(groups, published),
        tables.by_restart(groups, published),
    ]
    origins = (origin_tables.by_test_epoch(groups), origin_tables.restarted(groups))
    others = (outcome_tables.pairs(groups, report.pairs), outcome_tables.by_outcome(groups))
    made += [table for table in (*others, *origins) if table.rows]
    drawn = figures.draw(groups)
    names = {name: published.file_name(name) if published else name for name in drawn}
    images = {f"figures/{names[name]}.svg": to_bytes(f, "svg") for name, f in drawn.items()}
    files = dict(images)
    files |= {f"figures/{names[name]}.png": to_bytes(f, "png") for name, f in drawn.items()}
    tuned = [report.tuning.table()] if report.tuning else []
    for table in [*made, *tuned]:
        files[f"tables/{table.name}.md"] = f"{table.to_markdown()}\n".encode()
        files[f"tables/{table.name}.csv"] = table.to_csv().encode()
    _write_files(report.folder, files)
    sections = [
        f"# {escape(report.title)}",
        *(f"**{note}**" for note in _notes(results)),
        _question(groups),
        *_verdicts(groups),
        *_tables(made),
        *(_tuning(report.tuning, *tuned) if report.tuning else []),
        *(_differs(groups, published) if published else []),
        *_figures(groups, names, published),
        *_settings(groups, common_settings(results)),
        *_origin(results),
        "## Command",
        f"```\n{report.command}\n```",
        *_missing(missing),
    ]
    text = "\n\n".join(sections) + "\n"
    page = html_page.to_html(text, one_line(report.title), images)
    write_text(report.folder / "report.html", page)
    write_text(report.folder / "report.md", text)
    return report.folder / "report.md"


def _write_files(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Writes figures and tables, and removes those that only an earlier report had."""
    for part in _PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    listing = folder / _LISTING
    before = listing.read_text().splitlines() if listing.exists() else []
    for name in before:  # such as those of an arm that the study no longer has
        part, _, file = name.partition("/")
        if name not in files and part in _PARTS and (folder / part / file).is_file():
            (folder / part / file).unlink()
    write_text(listing, "".join(f"{name}\n" for name in files))
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _notes(results: Sequence[CellResult]) -> list[str]:
    """Notes on the data, such as that another data set was used."""
    notes = (result.record["data"]["note"] for result in results)
    return [escape(note) for note in dict.fromkeys(notes) if note]


def _question(groups: Sequence[Group]) -> str:
    outcomes = "; ".join(dict.fromkeys(group.outcome for group in groups))
    selected = any(group.is_model_selected for group in groups)
    return (
        f"Does restarting filters help more than the control `{CONTROL}`, which restarts only the "
        f"learning rate? Arms are compared by {outcomes}.\n\n"
        "For each seed, all arms with the same training settings continue from one baseline, so "
        "the comparison is paired. All arms are planned with the same number of epochs."
        + (" Epochs are selected by the monitored metric; test accuracy is reported." * selected)
    )


def _verdicts(groups: Sequence[Group]) -> list[str]:
    sections = ["## Verdicts"]
    for group in groups:
        sections.append(f"**{group.name}**")
        sentences = group.sentences()
        if len(group.budgets) > 1:
            made = (
                f"{epochs} epochs with {restarts} restarts ({', '.join(arms)})"
                for (epochs, restarts), arms in sorted(group.budgets.items())
            )
            sentences.insert(0, f"**The budgets are not equal**: {'; '.join(made)}.")
        sections.append("\n".join(f"- {sentence}" for sentence in sentences))
    return [
        *sections,
        "Points are percentage points. Each interval is for one comparison "
        f"({CONFIDENCE:.0%}, Student's t on the paired differences). A verdict depends on p after "
        "Holm's correction over all arms of the model, in all variations of a sweep, at a level "
        f"of {1 - CONFIDENCE:.0%}. Numbers of seeds are for the first and strictest step of that "
        "correction, so fewer may be enough; they are given from four seeds on.",
    ]


def _tables(made: Sequence[tables.Table]) -> list[str]:
    sections = ["## Tables", "In percent; mean ± standard deviation over seeds."]
    for table in made:
        sections += [f"### {table.title}", table.to_markdown()]
    return sections


def _tuning(tuning: Tuning, table: Table) -> list[str]:
    return ["## Tuning", f"{tuning.sentence()} In percent; chosen in bold.", table.to_markdown()]


def _differs(groups: Sequence[Group], published: Published) -> list[str]:
    """What differs from the study whose results are shown, network by network."""
    lines = list(published.differs)
    for group in groups:
        theirs = published.settings.get(group.model)
        if theirs is None:
            continue
        records = [result.record for result in group.results]
        here = {
            "training images": {r["data"]["examples"]["train"] for r in records},
            "epochs per round": {r["settings"]["round_epochs"] for r in records},
            "pixels": {r["settings"]["image_size"] or r["data"]["image_shape"][0] for r in records},
        }
        differ = [
            f"{name} {' and '.join(map(str, sorted(here[name])))} ({value} there)"
            for name, value in theirs.items()
            if here[name] != {value}
        ]
        precisions = {r["settings"]["precision"] for r in records}
        lines.append(f"{escape(group.name)}: {', '.join([*differ, *sorted(precisions)])}.")
    name = escape(published.name)
    return [
        f"### What differs from {name}",
        f"{name}: {escape(published.source)}.",
        "\n".join(f"- {line}" for line in lines),
    ]


def _figures(
    groups: Sequence[Group], names: Mapping[str, str], published: Published | None
) -> list[str]:
    if not names:
        return []
    outcomes = "; ".join(dict.fromkeys(group.outcome for group in groups))
    curves = "; ".join(dict.fromkeys(figures.curve_measure(group) for group in groups))
    sections = ["## Figures", f"Curves show {curves}; verdicts and differences use {outcomes}."]
    for figure, name in names.items():
        kind, _, of = figure.partition("-")
        caption = f"{of or 'All models'}: {_CAPTIONS[kind]}"
        if published and kind in published.figures:
            caption += f" As in {published.figures[kind]} of {escape(published.name)}."
        sections += [f"![{name}](<figures/{name}.svg>)", caption]
    return sections


def _settings(groups: Sequence[Group], common: Mapping[str, Any]) -> list[str]:
    rows = [(code(k), code(v)) for k, v in common.items() if k not in _NOT_SHOWN]
    sections = ["## Settings", "Of all runs:", plain_table(("setting", "value"), rows)]
    own = []
    for group in groups:
        for arm in group.arms:
            of_runs = [result.record["settings"] for result in arm.results]
            differ = [
                f"--{name}={value}"
                for name, value in of_runs[0].items()
                if name not in common and name not in _NOT_SHOWN
                if all(other.get(name) == value for other in of_runs)
            ]
            seeds = " ".join(str(result.cell.seed) for result in arm.results)
            own.append((group.name, arm.name, code(" ".join(differ)), seeds))
    header = ("model", "arm", "other settings", "seeds")
    return [*sections, "By arm:", plain_table(header, own)]


def _origin(results: Sequence[CellResult]) -> list[str]:
    data = {json.dumps(r.record["data"], sort_keys=True): r.record["data"] for r in results}
    rows = []
    for of_data in data.values():
        counts = " + ".join(str(count) for count in of_data["examples"].values())
        rows.append((escape(of_data["name"]), counts, code(of_data["sha256"])))
    sections = ["## Data and versions"]
    header = ("data", "images to train, validate and test", "SHA-256")
    sections.append(plain_table(header, rows))
    if len(data) > 1:
        sections.append("The runs did not all use the same images.")
    names = dict.fromkeys(name for r in results for name in r.record["versions"])
    versions = [
        (
            escape(name),
            escape(", ".join(sorted({str(r.record["versions"].get(name)) for r in results}))),
        )
        for name in names
    ]
    return [*sections, plain_table(("software", "version"), versions)]


def _missing(missing: Mapping[str, str]) -> list[str]:
    if not missing:
        return []
    rows = [(code(name), code(why)) for name, why in missing.items()]
    return ["## Missing runs", plain_table(("run", "reason"), rows)]

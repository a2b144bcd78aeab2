"""The report of one run: one HTML file that needs no other."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records.history import HISTORY, read_history
from kerasrestart.experiments.records.run_record import RECORD, read_record
from kerasrestart.experiments.records.schema import RecordError
from kerasrestart.experiments.records.score_log import SCORES, read_scores
from kerasrestart.experiments.report.drawing import to_bytes
from kerasrestart.experiments.report.html_page import to_html
from kerasrestart.experiments.report.markdown import align, code, escape, plain_table
from kerasrestart.experiments.report.run_figures import RunCurves, draw_run, layers_not_drawn
from kerasrestart.experiments.report.run_summary import run_summary
from kerasrestart.experiments.report.run_table import LEGEND, run_table_markdown
from kerasrestart.network.text import one_line
from kerasrestart.restart.files import write_text

REPORT = "report.html"
_CAPTIONS = {
    "curves": "Accuracy, loss and learning rate by epoch. A dashed line is a restart.",
    "useless": "The lowest score of each layer, divided by the mean over the layer. Scores fall "
    "with the loss, so only their ratio shows useless filters.",
    "filters": "All filters by epoch. A blue mark is a filter restarted then; a grey mark is one "
    "that the control selected and did not change.",
    "recovery": "Scores of restarted filters, divided by the median of the other filters of the "
    "layer. 1: as useful as the others.",
}


def write_run_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into a run's folder, from the files there; the run may be unfinished.

    Args:
        folder: The run's folder.

    Returns:
        The file.

    Raises:
        ValueError: The folder holds no record of a run, or a damaged one.
        OSError: The file cannot be written.
    """
    record = load_record(folder)
    try:
        return _write(folder, record)
    except RecordError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder / RECORD} is not a valid run record: {type(error).__name__} {one_line(error)}"
        ) from error


def _write(folder: pathlib.Path, record: Mapping[str, Any]) -> pathlib.Path:
    marks = record.get("files", {})
    epochs, scores = read_scores(folder / SCORES, marks.get(SCORES))
    history = read_history(folder, marks.get(HISTORY))
    curves = RunCurves(history, record["events"], epochs, scores)
    images = {f"{name}.svg": to_bytes(figure, "svg") for name, figure in draw_run(curves).items()}
    title = f"Run {folder.resolve().name}"
    data, finished = record["data"], record["finished"]
    captions = dict(_CAPTIONS)
    if missing := layers_not_drawn(curves):
        captions["filters"] += f" Not drawn: {', '.join(map(escape, missing))}."
    sections = [
        f"# {escape(title)}",
        *([f"**{escape(data['note'])}**"] if data["note"] else []),
        f"{escape(record['settings']['model'])} on {escape(data['name'])}; "
        + (f"ended: {escape(finished)}." if finished else "**not ended yet**."),
        "\n".join(f"- {sentence}" for sentence in run_summary(record, folder)),
        "## Rounds",
        run_table_markdown(record),
        f"{LEGEND} The best epoch is chosen by {code(record['settings']['monitor'])}.",
        "## Restarts",
        *_events(record["events"], finished),
        *(part for name in images for part in (f"![{name}]({name})", captions[name[:-4]])),
        "## Settings",
        plain_table(
            ("setting", "value"), [(code(k), code(v)) for k, v in record["settings"].items()]
        ),
        "## Versions",
        plain_table(
            ("software", "version"), [(escape(k), escape(v)) for k, v in record["versions"].items()]
        ),
    ]
    path = folder / REPORT
    write_text(path, to_html("\n\n".join(sections) + "\n", title, images))
    return path


def _events(events: list[Mapping[str, Any]], finished: str | None) -> list[str]:
    """A table of the restarts, and one of the filters of each layer."""
    if not events:
        return ["None." if finished else "None yet."]
    rows = []
    for event in events:
        again = [layer["reselected"] for layer in event["layers"].values()]
        drop, recovery = event["metric_drop"], event["epochs_to_recover"]
        rows.append(
            (
                str(event["restart"]),
                str(event["epoch"] + 1),
                escape(event["reason"]),
                escape(event["initializer"]),
                "" if None in again else str(sum(again)),
                "" if drop is None else f"{drop:+.4f}",
                "not" if recovery is None else str(recovery),
            )
        )
    header = (
        *("restart", "after epoch", "why", "reset with", "chosen again", "metric drop"),
        "epochs to recover",
    )
    layers = list(dict.fromkeys(name for event in events for name in event["layers"]))
    counts = [(escape(name), *(_share(event, name) for event in events)) for name in layers]
    by_layer = ("layer", *(f"restart {event['restart']}" for event in events))
    return [
        plain_table(header, rows),
        *(
            ["Filters restarted (by the control: selected and not changed), by layer:"]
            if layers
            else []
        ),
        *([align(by_layer, counts, [False] + [True] * len(events))] if layers else []),
    ]


def _share(event: Mapping[str, Any], name: str) -> str:
    layer = event["layers"].get(name)
    return "" if layer is None else f"{len(layer['filters'])} of {len(layer['scores'])}"


def load_record(folder: pathlib.Path) -> dict[str, Any]:
    """The record of a run, which may be unfinished.

    Raises:
        ValueError: The folder holds no record of a run, or a damaged one.
    """
    record = read_record(folder, ended=False)
    if record is None:
        raise ValueError(
            f"The folder of a run must have a {RECORD}, written when its first round ends. "
            f"Received: {str(folder)!r}"
        )
    return record

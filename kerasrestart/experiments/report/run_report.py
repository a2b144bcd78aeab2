"""The report of one run: one HTML file that needs no other."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from kerasrestart.experiments.records.history import read_history
from kerasrestart.experiments.records.run_record import RECORD
from kerasrestart.experiments.records.score_log import SCORES, read_scores
from kerasrestart.experiments.records.table import to_markdown
from kerasrestart.experiments.report.drawing import to_bytes
from kerasrestart.experiments.report.html_page import to_html
from kerasrestart.experiments.report.run_figures import RunCurves, draw_run
from kerasrestart.restart.files import write_text
from kerasrestart.restart.markdown import code, one_line, plain_table
from kerasrestart.restart.records import RestartEvent

REPORT = "report.html"
_CAPTIONS = {
    "curves": "Accuracy, loss and learning rate by epoch. A dashed line is a restart.",
    "useless": "How little the least useful filter of each layer does. Scores fall together as the "
    "loss does; only how they stand to each other tells useless filters.",
    "filters": "All filters by epoch. A blue mark is a filter that was restarted then; a grey one "
    "was selected by the control, and left.",
    "recovery": "Scores of restarted filters against those of the others. 1: as useful as the "
    "median of the filters that were left.",
}


def write_run_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into a run's folder, of what is in it; the run may be going on still.

    Args:
        folder: The run's folder.

    Returns:
        The file.

    Raises:
        ValueError: The folder holds no record of a run, or a damaged one.
        OSError: The file cannot be written.
    """
    record = _record(folder)
    try:
        return _write(folder, record)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / RECORD} is no record of a run: {type(error).__name__} {one_line(error)}"
        ) from error


def _write(folder: pathlib.Path, record: Mapping[str, Any]) -> pathlib.Path:
    epochs, scores = read_scores(folder / SCORES)
    curves = RunCurves(read_history(folder), record["events"], epochs, scores)
    images = {f"{name}.svg": to_bytes(figure, "svg") for name, figure in draw_run(curves).items()}
    title = f"Run {folder.resolve().name}"
    data = record["data"]
    sections = [
        f"# {title}",
        *([f"**{one_line(data['note'])}**"] if data["note"] else []),
        f"{record['settings']['model']} on {data['name']}; "
        + (f"ended: {record['finished']}." if record["finished"] else "**not ended yet**."),
        "## Rounds",
        to_markdown(record["table"]),
        *_of_test(record["settings"]),
        "## Restarts",
        _events(record),
        *(part for name in images for part in (f"![{name}]({name})", _CAPTIONS[name[:-4]])),
        "## Settings",
        plain_table(
            ("setting", "value"), [(code(k), code(v)) for k, v in record["settings"].items()]
        ),
        "## Versions",
        plain_table(("software", "version"), list(record["versions"].items())),
    ]
    path = folder / REPORT
    write_text(path, to_html("\n\n".join(sections) + "\n", title, images))
    return path


def _of_test(settings: Mapping[str, Any]) -> list[str]:
    if settings["tasks"] == "random_labels":
        return []  # nothing is tested
    return [
        f"Test accuracy is that of the round's best epoch by {code(settings['monitor'])}, and of "
        "its last."
    ]


def _events(record: Mapping[str, Any]) -> str:
    events = [RestartEvent.from_dict(event) for event in record["events"]]
    if not events:
        return "None yet." if record["finished"] is None else "None."
    rows = []
    for event in events:
        again = [layer.reselected for layer in event.layers.values()]
        rows.append(
            (
                str(event.restart),
                str(event.epoch + 1),
                event.summary(),
                "" if None in again else str(sum(again)),
                "" if event.metric_drop is None else f"{event.metric_drop:+.4f}",
                "not" if event.epochs_to_recover is None else f"{event.epochs_to_recover}",
            )
        )
    header = (
        "restart",
        "epoch",
        "what",
        "useless again",
        "metric worse by",
        "epochs to recover",
    )
    return plain_table(header, rows)


def _record(folder: pathlib.Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text())
        missing = {"settings", "versions", "data", "events", "table", "finished"} - record.keys()
    except FileNotFoundError as error:
        raise ValueError(
            f"A folder of a run with a {RECORD} in it was expected, which is written when the "
            f"first round is over. Received: {folder}"
        ) from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / RECORD} is no record of a run: {one_line(error)}") from error
    if missing:
        raise ValueError(f"{folder / RECORD} is no record of a run: it lacks {sorted(missing)}")
    return record

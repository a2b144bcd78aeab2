"""What a run shows, in a few sentences: gain, useless filters, filters chosen again, control."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasrestart.experiments.records.run_folder import BASELINE
from kerasrestart.experiments.report.markdown import escape

USELESS = 0.1
"""A filter counts as useless where its score is below this share of its layer's mean score."""


def run_summary(record: Mapping[str, Any], folder: pathlib.Path) -> list[str]:
    """Sentences in Markdown for the head of a run's report.

    Args:
        record: The run's record.
        folder: The run's folder, for the command of the control.
    """
    return [*_gain(record), *_useless(record), *_chosen_again(record), _control(record, folder)]


def _gain(record: Mapping[str, Any]) -> list[str]:
    table, measures = record["table"], ("validation_accuracy", "train_accuracy_last")
    key = next((m for m in measures if any(row[m] is not None for row in table)), None)
    if key is None or len(table) < 2:
        return ["No round after the baseline has been completed."]
    baseline, *later = table
    name = "Validation accuracy" if key == "validation_accuracy" else "Training accuracy"
    rounds = ", ".join(
        f"{100 * row[key]:.2f} % after {escape(row['round'])} "
        f"({100 * (row[key] - baseline[key]):+.2f} points)"
        for row in later
    )
    return [f"{name} was {100 * baseline[key]:.2f} % in the baseline and {rounds}."]


def _useless(record: Mapping[str, Any]) -> list[str]:
    layers = record["events"][0]["layers"].values() if record["events"] else ()
    scores = [np.asarray(layer["scores"], float) for layer in layers]
    if not scores:
        return []
    useless = sum(int((of <= USELESS * of.mean()).sum()) for of in scores)
    total = sum(map(len, scores))
    verb = "filter" if useless == 1 else "filters"
    return [
        f"Before the first restart {useless or 'no'} {verb} of {total} scored at most "
        f"{USELESS:.0%} of the mean of its layer."
    ]


def _chosen_again(record: Mapping[str, Any]) -> list[str]:
    again = [
        [layer["reselected"] for layer in event["layers"].values()]
        for event in record["events"][1:]
        if event["layers"]
    ]
    if not again:
        return []
    counts = sum(number or 0 for of_event in again for number in of_event)
    total = sum(
        len(layer["filters"])
        for event in record["events"][1:]
        for layer in event["layers"].values()
    )
    return [
        f"Of {total} filters chosen after the first restart, {counts or 'none'} had been chosen by "
        "the restart before."
    ]


def _control(record: Mapping[str, Any], folder: pathlib.Path) -> str:
    if record["settings"]["init"] == "none":
        return (
            "This run is a control: no filter is re-initialised, only the learning rate is reset."
        )
    words = [
        *("python", "-m", "kerasrestart.main", f"--flagfile={folder / 'flags.txt'}", "--init=none"),
        *([f"--baseline={folder}"] if (folder / BASELINE).exists() else []),
    ]
    command = shlex.join(words).replace("`", "'")
    return (
        "More epochs alone may gain as much: compare with the control, which resets no filter: "
        f"`{command}`."
    )

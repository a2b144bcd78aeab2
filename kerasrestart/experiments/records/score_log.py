"""`scores.jsonl`: the scores of all filters, one line an epoch."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasrestart.experiments.records.file_mark import read_marked
from kerasrestart.experiments.records.schema import RecordError, ScoreLine, parse
from kerasrestart.restart.observer import RestartObserver

SCORES = "scores.jsonl"


class ScoreLog(RestartObserver):
    """Appends the scores of each epoch to a file, `{"epoch": 3, "scores": {"conv1": [0.5]}}`.

    Args:
        path: The file; it is created where it is missing.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    def on_epoch_end(self, epoch, restart):
        """Appends a line, where the epoch was scored."""
        if restart.state.scored_epoch != epoch:
            return
        # Six digits are more than a mean over a sample is worth, and keep the file small.
        scores = {
            name: [float(f"{score:.6g}") for score in of_layer]
            for name, of_layer in restart.scores.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "scores": scores}) + "\n")


def read_scores(
    path: str | os.PathLike, mark: Mapping[str, Any] | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads what `ScoreLog` wrote.

    Args:
        path: The file. Where it is missing no epoch was scored.
        mark: What the run's record says of the file, see `read_marked`. Defaults to None: nothing.

    Returns:
        The epochs, int `[n]`, and by layer the scores, float `[n, filters]`; NaN where an epoch has
        none of that layer.

    Raises:
        RecordError: The file is not that of the record, or a line is damaged. A last line without
            its end is left out instead: it was cut short when the process was killed.
    """
    path = pathlib.Path(path)
    content = read_marked(path, mark)
    lines = [
        parse(line, ScoreLine, str(path)) for line in content.split(b"\n")[:-1] if line.strip()
    ]
    filters = {name: len(scores) for line in lines for name, scores in line["scores"].items()}
    if any(len(s) != filters[name] for line in lines for name, s in line["scores"].items()):
        raise RecordError(f"{path} is not a valid record: a layer has different numbers of scores.")
    scores = {
        name: np.array([line["scores"].get(name, [np.nan] * count) for line in lines], float)
        for name, count in filters.items()
    }
    return np.array([line["epoch"] for line in lines], int), scores

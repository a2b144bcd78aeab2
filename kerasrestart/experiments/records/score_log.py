"""The scores of all filters by epoch, in a file of one line an epoch."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from kerasrestart.restart.observer import RestartObserver


class ScoreLog(RestartObserver):
    """Appends the scores of each epoch to a file, `{"epoch": 3, "scores": {"conv1": [0.5]}}`.

    Args:
        path: The file; it is made where it is missing.
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


def read_scores(path: str | os.PathLike) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads what `ScoreLog` wrote.

    Args:
        path: The file. Where it is missing no epoch was scored; a line that was cut short when the
            process was killed is left out.

    Returns:
        The epochs, int `[n]`, and by layer the scores, float `[n, filters]`; not a number where an
        epoch has none of that layer.
    """
    epochs, lines = [], []
    try:
        text = pathlib.Path(path).read_text()
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
            epochs.append(int(record["epoch"]))
            lines.append(dict(record["scores"]))
        except (ValueError, KeyError, TypeError):
            continue
    filters = {name: len(scores) for line in lines for name, scores in line.items()}
    scores = {
        name: np.array([line.get(name, [np.nan] * count) for line in lines], float)
        for name, count in filters.items()
    }
    return np.array(epochs, int), scores

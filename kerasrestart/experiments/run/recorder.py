"""Writes the record of a run."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasrestart
from kerasrestart.experiments import data
from kerasrestart.experiments.records.run_folder import RunFolder
from kerasrestart.experiments.records.run_record import write_record
from kerasrestart.experiments.records.table import table_rows
from kerasrestart.experiments.run.environment import describe_environment
from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.observer import RestartObserver


class Recorder(RestartObserver):
    """Writes `run.json` at the end of rounds, and when the run is over.

    Args:
        settings: The settings of the run.
        images: Its data.
        folder: Its folder.
        evaluator: Its `RoundEvaluator`.
        checkpoint: Its `RunCheckpoint`, which knows its duration.
        weights: What the record says about the file of initial weights. Defaults to None: there is
            none.
        sources: SHA-256 of each file of code that the settings name. Defaults to none.
    """

    def __init__(
        self,
        settings: RunSettings,
        images: data.ImageData,
        folder: RunFolder,
        evaluator: RoundEvaluator,
        checkpoint: RunCheckpoint,
        weights: dict[str, Any] | None = None,
        sources: Mapping[str, str | None] | None = None,
    ):
        self.settings, self.images, self.folder = settings, images, folder
        self.evaluator, self.checkpoint, self.weights = evaluator, checkpoint, weights
        self.sources = dict(sources or {})

    def on_round_end(self, ended, restart):
        """Writes what is known so far, after each of the first rounds and then after every tenth.

        A record holds all rounds, so that one after each round would make a long run's writing grow
        with the square of their number.
        """
        if ended.round < 20 or ended.round % 10 == 0:
            self.write(restart)

    def write(self, restart: PartialRestart, *, ended: bool = False) -> dict[str, Any]:
        """Writes and returns the record.

        Args:
            restart: The run's callback.
            ended: Whether the run is over and its model saved: only then does the record say why it
                finished. Defaults to False.
        """
        state, seconds = restart.state.to_dict(), self.checkpoint.seconds
        started = datetime.datetime.fromtimestamp(time.time() - seconds)
        record = {
            "settings": self.settings.to_dict(),
            "versions": versions(),
            "environment": describe_environment(),
            "data": self.images.summary(),
            "weights": self.weights,
            "sources": self.sources,
            "events": state["events"],
            "rounds": state["rounds"],
            "rollbacks": self.checkpoint.rollbacks,
            "finished": (state["finished"] or "epochs used up") if ended else None,
            "table": table_rows(
                self.images.name, restart.rounds, restart.events, self.evaluator.evaluations
            ),
            "files": self.checkpoint.files.marks() if ended else {},
            "timing": {
                "started": started.isoformat("T", "seconds"),
                "seconds": round(seconds, 1),
                "folder": str(self.folder.path),
            },
        }
        write_record(self.folder.path, record)
        return record


def versions() -> dict[str, str]:
    """Versions of what a run is computed with, by name."""
    return {
        "kerasrestart": kerasrestart.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }

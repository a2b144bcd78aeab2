"""The records of a run for TensorBoard's HParams tab: its settings and outcomes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

# `tensorboard.plugins.hparams.api` re-exports this module, but imports TensorFlow too.
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as api
from tensorboard.summary.writer.record_writer import RecordWriter

from kerasrestart.experiments.settings import SETTINGS

HPARAMS = "hparams"
"""Name of the folder in a run's folder."""

_ALWAYS = (
    *("model", "dataset", "init", "criterion", "fraction", "trigger", "max_restarts"),
    *("optimizer", "learning_rate", "batch_size", "seed"),
)


def write_run_hparams(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Writes the session of a run into its folder; that of an earlier call is replaced.

    TensorBoard finds the columns by itself, so runs with other settings can be beside it. They are
    the settings that differ from their defaults and those that most runs are compared by.

    Args:
        folder: The run's folder.
        record: The run's record.
    """
    place = folder / HPARAMS
    place.mkdir(exist_ok=True)
    values = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in record["settings"].items()
        if name in _ALWAYS
        or (value != SETTINGS[name].default and not SETTINGS[name].same_on_resume)
    }
    session = api.hparams_pb(values, trial_id=folder.name, start_time_secs=0)
    write_events(place / "events.out.tfevents.0.run", [session, *scalars(_outcomes(record))])


def _outcomes(record: Mapping[str, Any]) -> dict[str, float | None]:
    """By tag, the accuracies of the run's best epoch, by validation accuracy, and of its last."""
    table = record["table"]
    measured = [row for row in table if row["validation_accuracy"] is not None]
    outcomes = {"outcome/training, last epoch": table[-1]["train_accuracy_last"]}
    if measured:
        best = max(measured, key=lambda row: row["validation_accuracy"])
        outcomes["outcome/validation, best epoch"] = best["validation_accuracy"]
        outcomes["outcome/test, best epoch"] = best["test_accuracy"]
    return outcomes


def scalars(outcomes: Mapping[str, float | None]) -> list[Summary]:
    """Accuracies as summaries in percent; those that are not known are left out."""
    return [
        Summary(value=[Summary.Value(tag=tag, simple_value=100 * value)])
        for tag, value in outcomes.items()
        if value is not None
    ]


def write_events(path: pathlib.Path, summaries: Sequence[Summary]) -> None:
    """Writes an event file, the same bytes for the same summaries.

    A summary writer puts the time and the host into the name and the events of a file.
    """
    with path.open("wb") as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=0, file_version="brain.Event:2").SerializeToString())
        for summary in summaries:
            for value in summary.value:
                _sort_settings(value)
            records.write(Event(wall_time=0, step=0, summary=summary).SerializeToString())


def _sort_settings(value: Summary.Value) -> None:
    """Fixes the order of the settings, which differs from process to process otherwise."""
    plugin = value.metadata.plugin_data
    if plugin.content:
        content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
        plugin.content = content.SerializeToString(deterministic=True)

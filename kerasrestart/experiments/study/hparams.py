"""The records of a study for TensorBoard's HParams tab: each run's settings and outcomes."""

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

from kerasrestart.experiments.study.results import CellResult, common_settings

# A summary writer puts the time and the host into the name and the events of a file. This name and
# a time of 0 make the same study give the same bytes, and replace the records of an earlier report.
_FILE = "events.out.tfevents.0.study"
_METRICS = {
    "outcome/chosen": "outcome (%)",
    "outcome/last": "last epoch (%)",
    "outcome/validation": "validation accuracy (%)",
}


def write_hparams(folder: pathlib.Path, results: Sequence[CellResult]) -> None:
    """Writes a session for each run; those of an earlier report are replaced.

    Args:
        folder: Where to, below the log folder of TensorBoard. Each run has a sub-folder.
        results: The runs.
    """
    common = common_settings(results)
    sessions = {result.cell.name: (result, _hyperparameters(result, common)) for result in results}
    names = list(dict.fromkeys(name for _, values in sessions.values() for name in values))
    config = api.hparams_config_pb(
        hparams=[api.HParam(name) for name in names],
        metrics=[api.Metric(tag, display_name=text) for tag, text in _METRICS.items()],
        time_created_secs=0,
    )
    _write(folder, [config])
    for name, (result, values) in sessions.items():
        session = api.hparams_pb(values, trial_id=name, start_time_secs=0)
        _write(folder / name, [session, *_scalars(result)])
    for old in folder.glob(f"*/{_FILE}"):
        if old.parent.name not in sessions:  # of an arm that the study no longer has
            old.unlink()
            old.parent.rmdir()


def _hyperparameters(result: CellResult, common: Mapping[str, Any]) -> dict[str, Any]:
    """The run's place in the grid, and the settings that are not the same in all runs."""
    cell = result.cell
    place = {"network": cell.model, "arm": cell.arm, "seed": cell.seed}
    if cell.variation:
        place["variation"] = cell.variation
    own = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in result.record["settings"].items()
        if name not in common and name not in ("seed", "baseline")
    }
    return {**place, **own}


def _scalars(result: CellResult) -> list[Summary]:
    values = zip(_METRICS, (result.chosen, result.last, result.validation), strict=True)
    return [
        Summary(value=[Summary.Value(tag=tag, simple_value=100 * value)])
        for tag, value in values
        if value is not None
    ]


def _write(folder: pathlib.Path, summaries: Sequence[Summary]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE).open("wb") as file:
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

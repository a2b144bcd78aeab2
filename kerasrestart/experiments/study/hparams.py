"""What TensorBoard's HParams tab shows of a study: each run with its settings and outcomes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from kerasrestart.experiments.study.results import CellResult, common_settings

# TensorBoard reads files with `tfevents` in their names; one of the same name is replaced.
_FILE = "events.out.tfevents.0.study"
_OUTCOME, _LAST, _VALIDATION = "outcome/chosen", "outcome/last", "outcome/validation"


def write_hparams(folder: pathlib.Path, results: Sequence[CellResult]) -> None:
    """Writes a session for each run; written again, they take the place of those before.

    Args:
        folder: Where to: below the folder that TensorBoard is given. Each run has a folder in it.
        results: The runs.
    """
    common = common_settings(results)
    sessions = {}
    for result in results:
        sessions[result.cell.name] = result, _hyperparameters(result, common)
    names = list(dict.fromkeys(name for _, values in sessions.values() for name in values))
    metrics = {
        _OUTCOME: "outcome (%)",
        _LAST: "last epoch (%)",
        _VALIDATION: "validation accuracy (%)",
    }
    experiment = summary_v2.hparams_config_pb(
        hparams=[summary_v2.HParam(name) for name in names],
        metrics=[summary_v2.Metric(tag, display_name=text) for tag, text in metrics.items()],
        time_created_secs=0,
    )
    _write(folder, [experiment])
    for name, (result, values) in sessions.items():
        begin = summary_v2.hparams_pb(values, trial_id=name, start_time_secs=0)
        _write(folder / name, [begin, *_scalars(result), _end()])
    for old in folder.glob(f"*/{_FILE}"):
        if old.parent.name not in sessions:  # of an arm that the study no longer has
            old.unlink()
            old.parent.rmdir()


def _hyperparameters(result: CellResult, common: Mapping[str, Any]) -> dict[str, Any]:
    """The place in the grid, and the settings that are not the same in all runs."""
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
    values = {_OUTCOME: result.chosen, _LAST: result.last, _VALIDATION: result.validation}
    return [
        Summary(value=[Summary.Value(tag=tag, simple_value=100 * value)])
        for tag, value in values.items()
        if value is not None
    ]


def _end() -> Summary:
    """Tells that a session is over and well, as TensorBoard's own function for it would."""
    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=0)
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def _write(folder: pathlib.Path, summaries: Sequence[Summary]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE).open("wb") as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=0, file_version="brain.Event:2").SerializeToString())
        for one in summaries:
            for value in one.value:
                _put_in_order(value)
            records.write(Event(wall_time=0, step=0, summary=one).SerializeToString())


def _put_in_order(value: Summary.Value) -> None:
    """Gives the settings in a value one order; else the same ones are other bytes each time."""
    plugin = value.metadata.plugin_data
    if plugin.content:
        content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
        plugin.content = content.SerializeToString(deterministic=True)

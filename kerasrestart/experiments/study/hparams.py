"""The records of a study for TensorBoard's HParams tab: each run's settings and outcomes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

# `tensorboard.plugins.hparams.api` re-exports this module, but imports TensorFlow too.
from tensorboard.plugins.hparams import summary_v2 as api

from kerasrestart.experiments.report.hparams import scalars, write_events
from kerasrestart.experiments.study.results import CellResult, common_settings

# This name and a time of 0 make the same study give the same bytes, and replace the records of an
# earlier report.
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
    folder.mkdir(parents=True, exist_ok=True)
    write_events(folder / _FILE, [config])
    for name, (result, values) in sessions.items():
        session = api.hparams_pb(values, trial_id=name, start_time_secs=0)
        (folder / name).mkdir(exist_ok=True)
        measured = zip(_METRICS, (result.chosen, result.last, result.validation), strict=True)
        write_events(folder / name / _FILE, [session, *scalars(dict(measured))])
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

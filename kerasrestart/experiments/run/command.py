"""The command line of one run: reads the flags and starts the run."""

from __future__ import annotations

from typing import Any, NoReturn

from kerasrestart.experiments.command_line import (
    VERBOSITY,
    Parsed,
    Program,
    set_up_tensorflow,
)
from kerasrestart.experiments.setting import Setting
from kerasrestart.experiments.settings import SETTINGS, RunSettings, is_plain_name

TEXT = """
Trains a network, restarts its useless filters at plateaus, reports each round.

  python -m kerasrestart.main --model=mininet --init=uniform
  python -m kerasrestart.main --flagfile=flags/quickstart.flags
"""
PLACE = {
    setting.name: setting
    for setting in (
        Setting("logdir", str, "tf_logs", "run", "Folder of all runs."),
        Setting(
            "run_name",
            str,
            None,
            "run",
            "Name of this run's folder in --logdir. Default: a name is made.",
            valid=is_plain_name,
            expected="a plain name of letters, digits and _.=+-, such as mininet-uniform-0",
        ),
        Setting(
            "resume",
            bool,
            True,
            "run",
            "Resume the run of that name where it stopped. Without it a name that is taken is an "
            "error.",
        ),
        Setting(
            "hparams",
            bool,
            True,
            "run",
            "Write the run's settings and outcomes for TensorBoard's HParams tab. A study writes "
            "those of all its runs itself.",
        ),
    )
}
"""Flags that say where a run is written; they are not among its settings."""

PROGRAM = Program("kerasrestart.main", TEXT, {**SETTINGS, **PLACE})


def main(parsed: Parsed) -> dict[str, Any]:
    """Makes the run that the flags describe; returns its record."""
    set_up_tensorflow()
    settings = read_settings(parsed)
    from kerasrestart.experiments.run.launch import launch_run  # not for `--help`

    place = {name: parsed.values[name] for name in PLACE}
    return launch_run(settings, **place, quiet=parsed.values[VERBOSITY.name] < 1)


def read_settings(parsed: Parsed) -> RunSettings:
    """The settings of a command line.

    Raises:
        SettingError: Two flags exclude each other.
    """
    return RunSettings(**{name: parsed.values[name] for name in SETTINGS})


def entry_point() -> NoReturn:
    """Starts the command; the console script calls this."""
    PROGRAM.start(main, stopped="Stopped before training began.")

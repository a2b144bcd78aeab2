"""Trains a network, restarts its useless filters on plateau, and reports each round.

python -m kerasrestart.main --model=mininet --init=uniform
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

from kerasrestart.experiments import data, run_flags, settings
from kerasrestart.experiments.command_line import fail, set_up_tensorflow, start
from kerasrestart.experiments.interruption import RunStoppedError, exit_status, interruptible
from kerasrestart.experiments.records.run_folder import check_folder
from kerasrestart.experiments.startup import choose_backend
from kerasrestart.experiments.weights.locate import locate_alexnet_weights

run_flags.define_flags()
run_flags.define_place_flags()
# Else --help would leave out flags that another module defines.
flags.adopt_module_key_flags(run_flags)


def main(argv: list[str]) -> None:
    """Makes the run that the flags describe."""
    del argv
    set_up_tensorflow()
    try:
        chosen = settings.RunSettings.from_flags(flags.FLAGS)
    except flags.Error as error:
        fail(str(error), status=2)
    try:
        with interruptible():
            _run(chosen)
    except (ValueError, OSError, RunStoppedError) as error:
        logging.debug("The place of the error, for --verbosity=1:", exc_info=True)
        fail(str(error), getattr(error, "status", 1))
    except KeyboardInterrupt as error:
        fail("Stopped before training began.", exit_status(error))


def _run(chosen: settings.RunSettings) -> None:
    choose_backend()
    place = {name: flags.FLAGS[name].value for name in ("logdir", "run_name", "resume")}
    named = place["run_name"] and pathlib.Path(place["logdir"]) / place["run_name"]
    check_folder(named, resume=place["resume"], baseline=chosen.baseline)  # before any work
    if chosen.weights is not None:
        locate_alexnet_weights(chosen.weights)
    images = data.load(
        chosen.dataset,
        chosen.data_dir,
        train_examples=chosen.train_examples,
        label_noise=chosen.label_noise,
    )
    if images.note:
        print(f"*** {images.note} ***", flush=True)
    # TensorFlow comes with this import: only now, when flags and data are known to be right.
    from kerasrestart.experiments.run.train import run

    run(chosen, images, **place)


def entry_point() -> None:
    """What the console script calls."""
    start(main)

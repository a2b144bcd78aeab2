"""`launch_run`: checks folders, weights and data before TensorFlow is imported, then runs."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

from kerasrestart.experiments import data
from kerasrestart.experiments.data.dataset import in_colour
from kerasrestart.experiments.interruption import interruptible
from kerasrestart.experiments.models.weight_files import locate_alexnet_weights
from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.records.run_folder import check_folder, check_logdir
from kerasrestart.experiments.report.terminal import print_text
from kerasrestart.experiments.run.matched_counts import MatchedCounts
from kerasrestart.experiments.run.own_code import load_code
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.experiments.startup import choose_backend, held_back_libraries, load_keras


def launch_run(
    settings: RunSettings,
    *,
    logdir: str,
    run_name: str | None = None,
    resume: bool = True,
    hparams: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Loads the data that the settings name and makes the run.

    Args:
        settings: What to compute.
        logdir: Folder of all runs.
        run_name: Name of this run's folder in it. Defaults to None: a name is made.
        resume: Whether to resume a run that is in that folder. Defaults to True.
        hparams: Whether to write the run's settings and outcomes for TensorBoard's HParams tab.
            Defaults to True.
        quiet: Whether to hide what TensorFlow writes while it starts, unless it fails. Defaults to
            False.

    Returns:
        The record, as `run.json` holds it.

    Raises:
        ValueError, OSError, RunStoppedError: As `kerasrestart.experiments.run.train.run`; or the
            data, the weights or code that the settings name are not available.
        KeyboardInterrupt: Ctrl-C or SIGTERM before training.
    """
    with interruptible(), contextlib.ExitStack() as start:
        choose_backend()
        logdir = str(user_path(logdir, "logdir"))
        if quiet:
            start.enter_context(held_back_libraries())
        check_logdir(logdir)
        folder = pathlib.Path(logdir) / run_name if run_name else None
        check_folder(folder, resume=resume, baseline=settings.baseline)
        if settings.weights is not None:
            locate_alexnet_weights(settings.weights)
        if settings.matched_run is not None:
            MatchedCounts.of_run(settings.matched_run)
        load_code(settings)
        images = data.load(
            settings.dataset,
            settings.data_dir,
            image_size=settings.image_size,
            train_examples=settings.train_examples,
            eval_examples=settings.eval_examples,
            label_noise=settings.label_noise,
        )
        if settings.weights is not None:
            images = in_colour(images)
        if images.note:
            print_text(f"*** {images.note} ***")
        # TensorFlow is imported here, once flags and data are known to be right.
        load_keras()
        from kerasrestart.experiments.run.strategies import set_up_devices
        from kerasrestart.experiments.run.train import run

        set_up_devices()
        start.close()
        return run(
            settings, images, logdir=logdir, run_name=run_name, resume=resume, hparams=hparams
        )

"""One run from settings to table: data, model, training with restarts, records."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.experiments import data
from kerasrestart.experiments.data.class_order import ClassOrderCallback
from kerasrestart.experiments.models.alexnet_weights import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    LoadedWeights,
)
from kerasrestart.experiments.records.run_folder import RESUMED_FROM, RunFolder, read_record
from kerasrestart.experiments.records.score_log import ScoreLog
from kerasrestart.experiments.report.run_report import REPORT, write_run_report
from kerasrestart.experiments.report.run_table import print_run_table
from kerasrestart.experiments.run import strategies
from kerasrestart.experiments.run.build import build_model, regime_of, restart_callback
from kerasrestart.experiments.run.divergence import DivergenceCheck
from kerasrestart.experiments.run.guarded_fit import (
    explain_interruption,
    explain_startup_failure,
    fit_to_end,
)
from kerasrestart.experiments.run.recorder import Recorder
from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint, restore_run
from kerasrestart.experiments.run.starting_point import identity_of, starting_point
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.tensorboard import RestartTensorBoard
from kerasrestart.scoring.replicas import split_batches


def run(
    settings: RunSettings,
    images: data.ImageData,
    *,
    logdir: str,
    run_name: str | None = None,
    resume: bool = True,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Makes one run, or goes on with it where it was killed, and prints its table.

    Args:
        settings: What to compute.
        images: The data that the settings name.
        logdir: Folder of all runs.
        run_name: Folder of this run in it. Defaults to None: a name is made.
        resume: Whether to go on with a run that is in that folder already. It ends with the
            numbers of a run that was never killed. Defaults to True.
        strategy: The strategy that the settings name, where it is made already. Defaults to None:
            it is made here, which several workers can do only before TensorFlow has computed
            anything.

    Returns:
        The record, as `run.json` holds it.

    Raises:
        ValueError, OSError: A setting cannot be used, or the folder is there already, holds a run
            with other settings, or cannot be written.
        RunStoppedError: The run has been interrupted, could write no more, or its loss diverged.
    """
    keras.utils.set_random_seed(settings.seed)
    if strategy is None:
        strategy = strategies.make_strategy(settings.strategy)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.dtype_policy)
    try:
        many = _evaluation_batch(settings)
        sizes = (images.train, settings.batch_size), (images.validation, many), (images.test, many)
        for split, size in sizes:
            strategies.check_batches(strategy, len(split), size)
        with explain_startup_failure():
            with strategy.scope():
                model, weights = build_model(settings, images)
            restart = restart_callback(settings)
            restart.check(model)  # before there is a folder
        replicas = strategy.num_replicas_in_sync
        digest = weights.sha256 if weights else None
        identity = identity_of(settings, images, digest, replicas)
        prefix = f"{settings.model}-{settings.init}-{images.name}"
        with _own_logdir(strategy, logdir) as own:
            folder = RunFolder(own, run_name, prefix, resume=resume)
            try:
                strategies.agree(strategy, identity)
                strategies.take_files_of_chief(strategy, folder.path, RESUMED_FROM)
                return _train(model, restart, settings, images, folder, weights, identity)
            finally:
                folder.release()
    finally:
        keras.config.set_dtype_policy(policy)


def _own_logdir(
    strategy: tf.distribute.Strategy, logdir: str
) -> contextlib.AbstractContextManager[str]:
    """Where this process writes: only the chief's records are kept."""
    if strategies.is_chief(strategy):
        return contextlib.nullcontext(logdir)
    return tempfile.TemporaryDirectory(prefix="kerasrestart-worker-")


def _train(
    model: keras.Model,
    restart: PartialRestart,
    settings: RunSettings,
    images: data.ImageData,
    folder: RunFolder,
    weights: LoadedWeights | None,
    identity: dict[str, Any],
) -> dict[str, Any]:
    strategy = model.distribute_strategy
    begin = starting_point(folder, settings, identity)
    if (record := read_record(folder.path)) is not None:
        print(f"This run has ended already: {folder.path}")
        print_run_table(record)
        if not (folder.path / REPORT).exists():  # it failed, or was removed
            write_run_report(folder.path)
        return record
    scale: dict[str, Any] = {"mean": images.mean, "std": images.std}
    if weights:
        scale = {"mean": IMAGENET_MEAN, "std": IMAGENET_DEVIATION}
    scale["image_size"] = settings.image_size
    batch_size, many = settings.batch_size, _evaluation_batch(settings)
    regime, clock = regime_of(settings, images), None
    if regime is not None:
        clock = ClassOrderCallback(regime)
    names = None if clock is None else clock.class_order
    validation = test = None
    if regime is None or regime.generalizes:
        validation, test = (
            split_batches(
                data.evaluation_batches(split, many, class_order=names, **scale), strategy
            )
            for split in (images.validation, images.test)
        )
    evaluation_steps = data.steps_per_epoch(images.validation, many)
    evaluator = RoundEvaluator(test, data.steps_per_epoch(images.test, many))
    if clock and begin.epoch:
        clock.on_epoch_begin(begin.epoch - 1)  # where only the end of the run is left to do
    if begin.state is not None:
        restore_run(*begin.state, model, restart, evaluator)
    records = folder.path if strategies.is_chief(strategy) else "kept by the first worker"
    replicas = strategy.num_replicas_in_sync
    devices = "" if settings.strategy == "none" else f" Replicas: {replicas}."
    print(f"Data: {describe(images)}.{devices} Records: {records}{begin.told}", flush=True)
    if weights:
        print(weights.summary(), flush=True)
    folder.write_flags(settings.to_dict())
    folder.keep_epochs(begin.epoch, begin.source)
    checkpoint = RunCheckpoint(
        folder.state,
        restart,
        evaluator,
        identity,
        baseline=None if settings.baseline else folder.baseline,
        begin=begin,
    )
    told = weights.to_dict() if weights else None
    recorder = Recorder(settings, images, folder, evaluator, checkpoint, told)
    restart.observers += [
        evaluator,
        ScoreLog(folder.scores),
        RestartTensorBoard(folder.path / "restart", settings=settings.to_dict()),
        recorder,
    ]

    def fit(first_epoch: int) -> None:
        batches = data.train_batches(
            images.train,
            batch_size,
            seed=settings.seed,
            augment=settings.augment,
            first_epoch=first_epoch,
            regime=regime,
            **scale,
        )
        model.fit(
            split_batches(batches, strategy),
            steps_per_epoch=data.steps_per_epoch(images.train, batch_size),
            validation_data=validation,
            validation_steps=None if validation is None else evaluation_steps,
            initial_epoch=settings.epochs if begin.done else first_epoch,
            epochs=settings.epochs,
            verbose="auto" if sys.stdout.isatty() else 2,
            shuffle=False,  # the batches come shuffled
            callbacks=[
                *([clock] if clock else []),
                DivergenceCheck(),
                restart,
                keras.callbacks.CSVLogger(str(folder.history), append=True),
                keras.callbacks.TensorBoard(folder.path, write_graph=False),
                checkpoint,  # last: an epoch is over when its state is written
            ],
        )

    with explain_interruption(folder, checkpoint):
        fit_to_end(
            fit,
            begin.epoch,
            model,
            checkpoint,
            on_nan=settings.on_nan,
            learning_rate_factor=settings.learning_rate_factor,
        )
        model.set_weights(evaluator.best_weights)
        folder.save_model(model)
        record = recorder.write(restart, ended=True)
        report = write_run_report(folder.path)
    print(f"\n{describe(images)}; {record['finished']}; {record['timing']['seconds']:.0f} s")
    print_run_table(record)
    if strategies.is_chief(strategy):
        logdir = folder.path.parent
        print(f"Report: {report}; charts: tensorboard --logdir={logdir}, then", flush=True)
        # Smoothing would distort the few points of restarts.
        print("http://localhost:6006/#custom_scalars&_smoothingWeight=0", flush=True)
    return record


def _evaluation_batch(settings: RunSettings) -> int:
    # Several batches are held at once: only as stored are images small enough for 500.
    return settings.batch_size if settings.image_size else max(settings.batch_size, 500)


def describe(images: data.ImageData) -> str:
    """The data in a few words: which set it really is, and how many images."""
    counts = f"{len(images.train)} + {len(images.validation)} + {len(images.test)}"
    warning = " (NOT CIFAR-10)" if images.note else ""
    return f"{images.name}{warning}, {counts} images to train, validate and test"

"""One run, from settings to table: data, model, training with restarts, records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.experiments import data
from kerasrestart.experiments.data.class_order import ClassOrderCallback
from kerasrestart.experiments.models.alexnet_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LoadedWeights,
)
from kerasrestart.experiments.records.run_folder import WEIGHTS, RunFolder
from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.experiments.records.score_log import ScoreLog
from kerasrestart.experiments.references import short_name
from kerasrestart.experiments.report.hparams import write_run_hparams
from kerasrestart.experiments.report.run_report import REPORT, write_run_report
from kerasrestart.experiments.report.run_table import print_run_table
from kerasrestart.experiments.report.terminal import print_text
from kerasrestart.experiments.run import strategies
from kerasrestart.experiments.run.build import build_model, regime_of, restart_callback
from kerasrestart.experiments.run.divergence import DivergenceCheck
from kerasrestart.experiments.run.environment import describe_environment, run_environment
from kerasrestart.experiments.run.guarded_fit import (
    explain_interruption,
    explain_startup_failure,
    fit_to_end,
)
from kerasrestart.experiments.run.own_code import make_callbacks
from kerasrestart.experiments.run.recorder import Recorder
from kerasrestart.experiments.run.remedy_callback import RemedyCallback, remedy_of
from kerasrestart.experiments.run.round_evaluator import RoundEvaluator, TestEachEpoch
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint, restore_run
from kerasrestart.experiments.run.starting_point import identity_of, starting_point
from kerasrestart.experiments.settings import RunSettings, errors_name_flags
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.remedies import Remedy
from kerasrestart.restart.tensorboard import RestartTensorBoard
from kerasrestart.scoring.replicas import split_batches


def run(
    settings: RunSettings,
    images: data.ImageData,
    *,
    logdir: str,
    run_name: str | None = None,
    resume: bool = True,
    hparams: bool = True,
) -> dict[str, Any]:
    """Makes one run, or resumes it where it was killed, and prints its table.

    Args:
        settings: What to compute.
        images: The data that the settings name.
        logdir: Folder of all runs.
        run_name: Folder of this run in it. Defaults to None: a name is made.
        resume: Whether to resume a run that is in that folder already. It ends with the numbers of
            a run that was never killed. Defaults to True.
        hparams: Whether to write the settings and outcomes for TensorBoard's HParams tab. Defaults
            to True.

    Returns:
        The record, as `run.json` holds it.

    Raises:
        ValueError, OSError: A setting cannot be used, or the folder exists already, holds a run
            with other settings, or cannot be written.
        RunStoppedError: The run was interrupted, could write no more, or its loss diverged.
    """
    keras.utils.set_random_seed(settings.seed)
    strategy = strategies.make_strategy(settings.strategy)
    strategies.check_batches(strategy, len(images.train), settings.batch_size)
    for split in (images.validation, images.test):
        size = _eval_batch_size(settings, split, strategy)
        strategies.check_batches(strategy, len(split), size)
    with run_environment(settings.dtype_policy):
        with explain_startup_failure():
            with strategy.scope():
                model, weights = build_model(settings, images)
            restart = restart_callback(settings)
            own = make_callbacks(settings)
            with errors_name_flags():
                restart.check(model)  # before there is a folder
            remedy = remedy_of(settings, model)
        identity = identity_of(
            settings,
            images,
            describe_environment(),
            weights.sha256 if weights else None,
            strategy.num_replicas_in_sync,
        )
        prefix = "-".join((short_name(settings.model), short_name(settings.init), images.name))
        folder = RunFolder(logdir, run_name, prefix, resume=resume)
        try:
            if (record := read_record(folder.path)) is not None:
                starting_point(folder, settings, identity)  # refuses other settings
                print(f"This run has ended already: {folder.path}")
                print_run_table(record)
                if not (folder.path / REPORT).exists():  # it failed, or was removed
                    _write_pages(folder, record, hparams)
                return record
            record = _train(
                model, restart, remedy, settings, images, folder, weights, identity, own, hparams
            )
            _print_end(images, folder, record)
            return record
        finally:
            folder.release()


def _train(
    model: keras.Model,
    restart: PartialRestart,
    remedy: Remedy | None,
    settings: RunSettings,
    images: data.ImageData,
    folder: RunFolder,
    weights: LoadedWeights | None,
    identity: dict[str, Any],
    own: Sequence[Any],
    hparams: bool,
) -> dict[str, Any]:
    strategy = model.distribute_strategy
    begin = starting_point(folder, settings, identity)
    regime, clock = regime_of(settings, images), None
    if regime is not None:
        clock = ClassOrderCallback(regime)
        if begin.epoch:
            clock.on_epoch_begin(begin.epoch - 1)  # where only the end of the run is left to do
    preprocessing = _preprocessing(settings, images, weights)

    def evaluation(split: data.Split) -> tuple[Any, int | None]:
        if regime is not None and not regime.generalizes:
            return None, None
        batch_size = _eval_batch_size(settings, split, strategy)
        batches = data.evaluation_batches(
            split,
            batch_size,
            class_order=None if clock is None else clock.class_order,
            **preprocessing,
        )
        batches = strategies.evaluation_input(batches, strategy)
        return batches, data.steps_per_epoch(split, batch_size)

    validation, validation_steps = evaluation(images.validation)
    evaluator = RoundEvaluator(*evaluation(images.test))
    if begin.state is not None:
        restore_run(begin.state, model, restart, evaluator)
    checkpoint = RunCheckpoint(
        folder,
        restart,
        evaluator,
        identity,
        keeps_baseline=settings.baseline is None,
        begin=begin,
    )
    replicas = f" Replicas: {strategy.num_replicas_in_sync}." if settings.strategy != "none" else ""
    where = f"{' '.join(strategies.set_up_devices())}.{replicas} Records: {folder.path}"
    print_text(f"Data: {describe(images)}. Device: {where}{begin.message}")
    if weights:
        print(weights.summary(), flush=True)
    folder.write_flags(settings.to_dict())
    checkpoint.files.restore(begin.marks, begin.source)
    about_weights = weights.to_dict() if weights else None
    recorder = Recorder(
        settings, images, folder, evaluator, checkpoint, about_weights, identity["sources"]
    )
    restart.observers += [
        evaluator,
        ScoreLog(folder.scores),
        RestartTensorBoard(folder.restarts, settings=settings.to_dict()),
        *(observer for observer in own if isinstance(observer, RestartObserver)),
        recorder,
    ]
    callbacks = [callback for callback in own if isinstance(callback, keras.callbacks.Callback)]

    epochs = _epochs(settings)

    def fit(first_epoch: int) -> None:
        batches = data.train_batches(
            images.train,
            settings.batch_size,
            seed=settings.seed,
            augment=settings.augment,
            first_epoch=first_epoch,
            regime=regime,
            **preprocessing,
        )
        model.fit(
            split_batches(batches, strategy),
            steps_per_epoch=data.steps_per_epoch(images.train, settings.batch_size),
            validation_data=validation,
            validation_steps=validation_steps,
            initial_epoch=epochs if begin.done else first_epoch,
            epochs=epochs,
            verbose="auto" if sys.stdout.isatty() else 2,
            shuffle=False,  # the batches are shuffled already
            callbacks=[
                *([clock] if clock else []),
                DivergenceCheck(),
                restart,
                *([RemedyCallback(restart, remedy, settings.seed)] if remedy else []),
                *callbacks,
                *([TestEachEpoch(evaluator)] if settings.test_each_epoch else []),
                keras.callbacks.CSVLogger(str(folder.history), append=True),
                keras.callbacks.TensorBoard(folder.path, write_graph=False),
                checkpoint,  # last: an epoch is over when its state is saved
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
        if (name := folder.save_model(model)) == WEIGHTS:
            print(f"The class of the model has no get_config: {name} has its weights alone.")
        record = recorder.write(restart, ended=True)
        _write_pages(folder, record, hparams)
    return record


def _write_pages(folder: RunFolder, record: dict[str, Any], hparams: bool) -> None:
    if hparams:
        write_run_hparams(folder.path, record)
    write_run_report(folder.path)


def _print_end(images: data.ImageData, folder: RunFolder, record: dict[str, Any]) -> None:
    print_text(f"\n{describe(images)}; {record['finished']}; {record['timing']['seconds']:.0f} s")
    print_run_table(record)
    print(f"Report: {folder.path / REPORT}")
    print(f"Charts: tensorboard --logdir={folder.path.parent}, then", flush=True)
    # Smoothing would distort the few points of restarts.
    print("http://localhost:6006/#custom_scalars&_smoothingWeight=0", flush=True)


def _epochs(settings: RunSettings) -> int:
    """How many epochs a run has at most; rounds of equal length add up to less than `--epochs`."""
    if settings.trigger == "epochs":
        return min(settings.epochs, settings.round_epochs * (settings.max_restarts + 1))
    return settings.epochs


def _preprocessing(
    settings: RunSettings, images: data.ImageData, weights: LoadedWeights | None
) -> dict[str, Any]:
    """How images are normalised and resized: pretrained weights expect ImageNet's statistics."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if weights else (images.mean, images.std)
    return {"mean": mean, "std": std, "image_size": settings.image_size}


def _eval_batch_size(
    settings: RunSettings, split: data.Split, strategy: tf.distribute.Strategy
) -> int:
    # Several batches are held at once: only images of their stored size are small enough for 500.
    size = settings.batch_size if settings.image_size else max(settings.batch_size, 500)
    replicas = strategy.num_replicas_in_sync
    return max(min(size, len(split)) // replicas, 1) * replicas


def describe(images: data.ImageData) -> str:
    """The data in a few words: which set it really is, and how many images."""
    counts = f"{len(images.train)} + {len(images.validation)} + {len(images.test)}"
    warning = " (NOT CIFAR-10)" if images.note else ""
    return f"{images.name}{warning}, {counts} images to train, validate and test"

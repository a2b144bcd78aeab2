"""One run, from settings to table: data, model, training with restarts, records."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.experiments import data
from kerasrestart.experiments.models.alexnet_weights import LoadedWeights
from kerasrestart.experiments.records.run_folder import WEIGHTS, RunFolder
from kerasrestart.experiments.records.run_record import read_record
from kerasrestart.experiments.records.score_log import ScoreLog
from kerasrestart.experiments.references import short_name
from kerasrestart.experiments.report.hparams import write_run_hparams
from kerasrestart.experiments.report.run_report import REPORT, write_run_report
from kerasrestart.experiments.report.run_table import print_run_table
from kerasrestart.experiments.report.terminal import print_text
from kerasrestart.experiments.run import strategies
from kerasrestart.experiments.run.build import build_model, restart_callback
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
from kerasrestart.experiments.run.run_batches import RunBatches, check_run_batches
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint, restore_run
from kerasrestart.experiments.run.starting_point import (
    StartingPoint,
    check_ended,
    identity_of,
    starting_point,
)
from kerasrestart.experiments.settings import RunSettings, errors_name_flags
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.remedies import Remedy
from kerasrestart.restart.tensorboard import RestartTensorBoard


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
    check_run_batches(settings, images, strategy)
    with run_environment(settings.dtype_policy):
        parts = _make_parts(settings, images, strategy)
        prefix = "-".join((short_name(settings.model), short_name(settings.init), images.name))
        folder = RunFolder(logdir, run_name, prefix, resume=resume)
        try:
            if (record := read_record(folder.path)) is not None:
                check_ended(record, settings, parts.identity, folder.path)
                print(f"This run has ended already: {folder.path}")
                print_run_table(record)
                if not (folder.path / REPORT).exists():  # it failed, or was removed
                    _write_pages(folder, record, hparams)
                return record
            record = _train(parts, folder, hparams)
            _print_end(images, folder, record)
            return record
        finally:
            folder.release()


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a run is made of, before there is a folder for it."""

    settings: RunSettings
    images: data.ImageData
    model: keras.Model
    weights: LoadedWeights | None
    restart: PartialRestart
    remedy: Remedy | None
    own: Sequence[Any]
    identity: dict[str, Any]


def _make_parts(
    settings: RunSettings, images: data.ImageData, strategy: tf.distribute.Strategy
) -> _Parts:
    with explain_startup_failure():
        with strategy.scope():
            model, weights = build_model(settings, images)
        restart = restart_callback(settings)
        own = make_callbacks(settings)
        with errors_name_flags():
            restart.check(model)
        remedy = remedy_of(settings, model)
    sha256, replicas = weights.sha256 if weights else None, strategy.num_replicas_in_sync
    identity = identity_of(settings, images, describe_environment(), sha256, replicas)
    return _Parts(settings, images, model, weights, restart, remedy, own, identity)


def _train(parts: _Parts, folder: RunFolder, hparams: bool) -> dict[str, Any]:
    settings, images, restart, model = parts.settings, parts.images, parts.restart, parts.model
    begin = starting_point(folder, settings, parts.identity)
    batches = RunBatches(
        settings,
        images,
        model.distribute_strategy,
        has_pretrained_weights=parts.weights is not None,
    )
    if batches.class_order is not None and begin.epoch:
        batches.class_order.on_epoch_begin(begin.epoch - 1)  # if only the run's end is left to do
    evaluator = RoundEvaluator(*batches.evaluation(images.test))
    if begin.state is not None:
        restore_run(begin.state, model, restart, evaluator)
    keeps_baseline = settings.baseline is None
    checkpoint = RunCheckpoint(
        folder, restart, evaluator, parts.identity, keeps_baseline=keeps_baseline, begin=begin
    )
    _print_start(parts, folder, begin)
    folder.write_flags(settings.to_dict())
    checkpoint.files.restore(begin.marks, begin.source)
    about_weights = parts.weights.to_dict() if parts.weights else None
    sources = parts.identity["sources"]
    recorder = Recorder(settings, images, folder, evaluator, checkpoint, about_weights, sources)
    restart.observers += _observers(parts, folder, evaluator, recorder)
    validation = batches.evaluation(images.validation)

    def fit(first_epoch: int) -> None:
        callbacks = _callbacks(parts, folder, batches, evaluator, checkpoint)
        _fit(parts, batches, validation, callbacks, first_epoch, is_done=begin.done)

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


def _observers(
    parts: _Parts, folder: RunFolder, evaluator: RoundEvaluator, recorder: Recorder
) -> list[RestartObserver]:
    return [
        evaluator,
        ScoreLog(folder.scores),
        RestartTensorBoard(folder.restarts, settings=parts.settings.to_dict()),
        *(observer for observer in parts.own if isinstance(observer, RestartObserver)),
        recorder,
    ]


def _callbacks(
    parts: _Parts,
    folder: RunFolder,
    batches: RunBatches,
    evaluator: RoundEvaluator,
    checkpoint: RunCheckpoint,
) -> list[keras.callbacks.Callback]:
    """The callbacks of a `fit`, in the order in which they act."""
    settings, remedy = parts.settings, parts.remedy
    own = [callback for callback in parts.own if isinstance(callback, keras.callbacks.Callback)]
    return [
        *([batches.class_order] if batches.class_order else []),
        DivergenceCheck(),
        parts.restart,
        *([RemedyCallback(parts.restart, remedy, settings.seed)] if remedy else []),
        *own,
        *([TestEachEpoch(evaluator)] if settings.test_each_epoch else []),
        keras.callbacks.CSVLogger(str(folder.history), append=True),
        keras.callbacks.TensorBoard(folder.path, write_graph=False),
        checkpoint,  # last: an epoch is over when its state is saved
    ]


def _fit(
    parts: _Parts,
    batches: RunBatches,
    validation: tuple[Any, int | None],
    callbacks: list[keras.callbacks.Callback],
    first_epoch: int,
    *,
    is_done: bool,
) -> None:
    """Trains from an epoch on; with `is_done` no epoch is left, and only the end of `fit` runs."""
    epochs = _epochs(parts.settings)
    parts.model.fit(
        batches.training(first_epoch),
        steps_per_epoch=batches.training_steps,
        validation_data=validation[0],
        validation_steps=validation[1],
        initial_epoch=epochs if is_done else first_epoch,
        epochs=epochs,
        verbose="auto" if sys.stdout.isatty() else 2,
        shuffle=False,  # the batches are shuffled already
        callbacks=callbacks,
    )


def _print_start(parts: _Parts, folder: RunFolder, begin: StartingPoint) -> None:
    count = parts.model.distribute_strategy.num_replicas_in_sync
    replicas = f" Replicas: {count}." if parts.settings.strategy != "none" else ""
    where = f"{' '.join(strategies.set_up_devices())}.{replicas} Records: {folder.path}"
    print_text(f"Data: {describe(parts.images)}. Device: {where}{begin.message}")
    if parts.weights:
        print(parts.weights.summary(), flush=True)


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


def describe(images: data.ImageData) -> str:
    """The data in a few words: which set it really is, and how many images."""
    counts = f"{len(images.train)} + {len(images.validation)} + {len(images.test)}"
    warning = " (NOT CIFAR-10)" if images.note else ""
    return f"{images.name}{warning}, {counts} images to train, validate and test"

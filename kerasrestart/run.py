"""One run from settings to table: data, model, training with restarts, records."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import Any

import keras
import tensorflow as tf

from kerasrestart import data, models, strategies
from kerasrestart.checkpoint.run_checkpoint import RunCheckpoint, take_up
from kerasrestart.checkpoint.starting_point import identity_of, starting_point
from kerasrestart.data.regimes import Regime, TaskSequence, WarmStart
from kerasrestart.report.recorder import Recorder
from kerasrestart.report.round_evaluator import RoundEvaluator
from kerasrestart.report.run_folder import RESUMED_FROM, RunFolder, read_record
from kerasrestart.report.table import to_markdown
from kerasrestart.report.tensorboard import RestartTensorBoard
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.scoring.replicas import split_batches
from kerasrestart.settings import RunSettings


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
        strategy: What `make_strategy` made for these settings. Defaults to None: it is made here.

    Returns:
        The record, as `run.json` holds it.

    Raises:
        ValueError, OSError: A setting cannot be used, or the folder is there already, holds a run
            with other settings, or cannot be written.
    """
    keras.utils.set_random_seed(settings.seed)
    if strategy is None:
        strategy = strategies.make_strategy(settings.strategy)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if settings.mixed_precision else "float32")
    try:
        many = _evaluation_batch(settings)
        for split, size in (
            (images.train, settings.batch_size), (images.validation, many), (images.test, many)
        ):  # fmt: skip
            strategies.check_batches(strategy, len(split), size)
        with strategy.scope():
            model, restart = build_model(settings, images), restart_callback(settings)
        restart.check(model)  # before there is a folder
        with _folder(strategy, logdir) as own_logdir:
            prefix = f"{settings.model}-{settings.init}-{images.name}"
            folder = RunFolder(own_logdir, run_name, prefix, resume=resume)
            try:
                strategies.agree(strategy, identity_of(settings, images))
                strategies.take_files_of_chief(strategy, folder.path, RESUMED_FROM)
                return _train(model, restart, settings, images, folder)
            finally:
                folder.release()
    finally:
        keras.config.set_dtype_policy(policy)


def _folder(strategy: tf.distribute.Strategy, logdir: str) -> contextlib.AbstractContextManager:
    """Where this process writes: only the chief's records are kept."""
    if strategies.is_chief(strategy):
        return contextlib.nullcontext(logdir)
    return tempfile.TemporaryDirectory(prefix="kerasrestart-worker-")


def build_model(settings: RunSettings, images: data.ImageData) -> keras.Model:
    """Builds and compiles the model that the settings name, for these images."""
    build = getattr(models, settings.model)
    model = build(images.train.images.shape[1:], len(images.classes))
    model.compile(
        optimizer=_optimizer(settings),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if settings.jit_compile is None else settings.jit_compile,
    )
    if settings.strategy != "none":
        strategies.synchronize_norms(model)
    return model


def _optimizer(settings: RunSettings) -> keras.optimizers.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay or None
    optimizers = keras.optimizers
    if settings.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "rmsprop":
        return optimizers.RMSprop(rate, momentum=settings.momentum, weight_decay=decay)
    kind = {"adam": optimizers.Adam, "adamw": optimizers.AdamW}[settings.optimizer]
    return kind(rate, weight_decay=decay)


def restart_callback(settings: RunSettings) -> PartialRestart:
    """Makes the callback that the settings describe."""
    by_epochs = settings.trigger == "epochs"
    return PartialRestart(
        initializer=settings.init,
        criterion=settings.criterion,
        fraction=settings.fraction,
        threshold=settings.threshold,
        scope=settings.scope,
        cap=settings.cap,
        normalize=settings.normalize,
        layers=settings.layers,
        min_survivors=settings.min_survivors,
        monitor=settings.monitor,
        patience=settings.patience,
        max_restarts=settings.max_restarts,
        seed=settings.seed,
        min_delta=settings.min_delta,
        target=settings.target,
        round_epochs=settings.round_epochs if by_epochs else None,
        learning_rate_drops=settings.learning_rate_drops,
        learning_rate_factor=settings.learning_rate_factor,
        outgoing=settings.outgoing,
        grace_restarts=settings.grace_restarts,
        second_moment=settings.second_moment,
        reset_norm=settings.reset_norm,
        stop_on_repeat=settings.stop_on_repeat,
    )


def _train(
    model: keras.Model,
    restart: PartialRestart,
    settings: RunSettings,
    images: data.ImageData,
    folder: RunFolder,
) -> dict[str, Any]:
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    begin = starting_point(folder, settings, images, replicas)
    if (record := read_record(folder.path)) is not None:
        print(f"This run has ended already: {folder.path}")
        print(to_markdown(record["table"]), flush=True)
        return record
    scale = {"mean": images.mean, "deviation": images.deviation}
    batch_size = settings.batch_size
    regime, clock = regime_of(settings, images), None
    if regime is not None:
        clock = RegimeClock(regime)
    names = None if clock is None else clock.class_order
    many = _evaluation_batch(settings)
    (validation, validation_steps), (test, test_steps) = (
        (
            split_batches(
                data.evaluation_batches(split, many, class_order=names, **scale), strategy
            ),
            data.steps_per_epoch(split, many),
        )
        for split in (images.validation, images.test)
    )
    evaluator = RoundEvaluator(test, test_steps)
    if clock and begin.epoch:
        clock.on_epoch_begin(begin.epoch - 1)  # where only the end of the run is left to do
    if begin.state is not None:
        take_up(*begin.state, model, restart, evaluator)
    records = folder.path if strategies.is_chief(strategy) else "kept by the first worker"
    devices = "" if settings.strategy == "none" else f" Replicas: {replicas}."
    print(f"Data: {describe(images)}.{devices} Records: {records}{begin.told}", flush=True)
    folder.write_flags(settings.to_dict())
    folder.keep_history(begin.epoch, begin.history)
    checkpoint = RunCheckpoint(
        folder.state,
        restart,
        evaluator,
        identity_of(settings, images, replicas),
        baseline=None if settings.baseline else folder.baseline,
        seconds_before=begin.seconds,
    )
    recorder = Recorder(settings, images, folder, evaluator, checkpoint)
    restart.observers += [
        evaluator,
        RestartTensorBoard(folder.path / "restart", settings=settings.to_dict()),
        recorder,
    ]
    model.fit(
        split_batches(
            data.train_batches(
                images.train,
                batch_size,
                seed=settings.seed,
                augment=settings.augment,
                first_epoch=begin.epoch,
                regime=regime,
                **scale,
            ),
            strategy,
        ),
        steps_per_epoch=data.steps_per_epoch(images.train, batch_size),
        validation_data=validation,
        validation_steps=validation_steps,
        initial_epoch=settings.epochs if begin.done else begin.epoch,
        epochs=settings.epochs,
        verbose="auto" if sys.stdout.isatty() else 2,
        shuffle=False,  # the batches come shuffled
        callbacks=[
            *([clock] if clock else []),
            restart,
            keras.callbacks.CSVLogger(str(folder.history), append=True),
            keras.callbacks.TensorBoard(folder.path, write_graph=False),
            checkpoint,  # last: an epoch is over when its state is written
        ],
    )
    model.set_weights(evaluator.best_weights)
    folder.save_model(model)
    record = recorder.write(restart, ended=True)
    print(f"\n{describe(images)}; {record['finished']}; {record['timing']['seconds']:.0f} s")
    print(to_markdown(record["table"]))
    if records == folder.path:
        print(f"Records: {records}; tensorboard --logdir={folder.path.parent}", flush=True)
    return record


def _evaluation_batch(settings: RunSettings) -> int:
    return max(settings.batch_size, 500)


def regime_of(settings: RunSettings, images: data.ImageData) -> Regime | None:
    """What each epoch is trained on; None where that is all images, as they are."""
    if settings.tasks == "none" and settings.warm_start_fraction is None:
        return None
    common = {
        "split": images.train,
        "classes": len(images.classes),
        "epochs": settings.round_epochs,
        "seed": settings.seed,
    }
    if settings.tasks != "none":
        return TaskSequence(kind=settings.tasks, **common)
    return WarmStart(fraction=settings.warm_start_fraction, **common)


class RegimeClock(keras.callbacks.Callback):
    """Lets validation and test call the classes as training does.

    Args:
        regime: What each epoch is trained on.

    Attributes:
        class_order: Variable with the names of the present epoch.
    """

    def __init__(self, regime: Regime):
        super().__init__()
        self.regime = regime
        self.class_order = tf.Variable(regime.class_order(0), trainable=False)

    def on_epoch_begin(self, epoch, logs=None):
        """Takes the names of this epoch."""
        self.class_order.assign(self.regime.class_order(epoch))


def describe(images: data.ImageData) -> str:
    """The data in a few words: which set it really is, and how many images."""
    counts = f"{len(images.train)} + {len(images.validation)} + {len(images.test)}"
    warning = " (NOT CIFAR-10)" if images.note else ""
    return f"{images.name}{warning}, {counts} images to train, validate and test"

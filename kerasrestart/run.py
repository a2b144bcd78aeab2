"""One run from settings to table: data, model, training with restarts, records."""

from __future__ import annotations

import sys
from typing import Any

import keras
import tensorflow as tf

from kerasrestart import data, models
from kerasrestart.checkpoint.divergence import DivergenceCheck
from kerasrestart.checkpoint.guarded_fit import fit_to_end, saying_how_to_go_on
from kerasrestart.checkpoint.run_checkpoint import RunCheckpoint, take_up
from kerasrestart.checkpoint.starting_point import identity_of, starting_point
from kerasrestart.data.regimes import Regime, TaskSequence, WarmStart
from kerasrestart.models.alexnet_weights import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    LoadedWeights,
    load_alexnet_weights,
)
from kerasrestart.report.recorder import Recorder
from kerasrestart.report.round_evaluator import RoundEvaluator
from kerasrestart.report.run_folder import RunFolder, read_record
from kerasrestart.report.score_log import ScoreLog
from kerasrestart.report.table import to_markdown
from kerasrestart.report.tensorboard import RestartTensorBoard
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.learning_rate import scale_learning_rate
from kerasrestart.settings import RunSettings


def run(
    settings: RunSettings,
    images: data.ImageData,
    *,
    logdir: str,
    run_name: str | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Makes one run, or goes on with it where it was killed, and prints its table.

    Args:
        settings: What to compute.
        images: The data that the settings name.
        logdir: Folder of all runs.
        run_name: Folder of this run in it. Defaults to None: a name is made.
        resume: Whether to go on with a run that is in that folder already. It ends with the
            numbers of a run that was never killed. Defaults to True.

    Returns:
        The record, as `run.json` holds it.

    Raises:
        ValueError, OSError: A setting cannot be used, or the folder is there already, holds a run
            with other settings, or cannot be written.
        RunStoppedError: The run has been interrupted, could write no more, or its loss diverged.
    """
    keras.utils.set_random_seed(settings.seed)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if settings.mixed_precision else "float32")
    try:
        model, weights = build_model(settings, images)
        restart = restart_callback(settings)
        restart.check(model)  # before there is a folder
        prefix = f"{settings.model}-{settings.init}-{images.name}"
        folder = RunFolder(logdir, run_name, prefix, resume=resume)
        try:
            return _train(model, restart, settings, images, folder, weights)
        finally:
            folder.release()
    finally:
        keras.config.set_dtype_policy(policy)


def build_model(
    settings: RunSettings, images: data.ImageData
) -> tuple[keras.Model, LoadedWeights | None]:
    """Builds and compiles the model that the settings name, for these images.

    Returns:
        The model, and what weights of a file it has; None where it has none.
    """
    build = getattr(models, settings.model)
    height, width, channels = images.train.images.shape[1:]
    side = settings.image_size
    model = build((side or height, side or width, channels), len(images.classes))
    optimizer, weights = _optimizer(settings), None
    if settings.weights is not None:
        weights = load_alexnet_weights(model, settings.weights)
        if settings.freeze_features:
            for layer in model.layers:
                layer.trainable = not isinstance(layer, keras.layers.Conv2D)
        if (factor := settings.pretrained_learning_rate_factor) != 1:
            loaded = [v for name in weights.layers for v in model.get_layer(name).variables]
            scale_learning_rate(optimizer, loaded, factor)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if settings.jit_compile is None else settings.jit_compile,
    )
    return model, weights


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
    weights: LoadedWeights | None,
) -> dict[str, Any]:
    digest = weights.sha256 if weights else None
    begin = starting_point(folder, settings, images, digest)
    if (record := read_record(folder.path)) is not None:
        print(f"This run has ended already: {folder.path}")
        print(to_markdown(record["table"]), flush=True)
        return record
    scale: dict[str, Any] = {"mean": images.mean, "deviation": images.deviation}
    if weights:
        scale = {"mean": IMAGENET_MEAN, "deviation": IMAGENET_DEVIATION}
    scale["image_size"] = settings.image_size
    batch_size = settings.batch_size
    # Several batches are held at once: only as stored are images small enough for 500.
    evaluated = batch_size if settings.image_size else max(batch_size, 500)
    regime, clock = regime_of(settings, images), None
    if regime is not None:
        clock = RegimeClock(regime)
    names = None if clock is None else clock.class_order
    validation, test = (
        data.evaluation_batches(split, evaluated, class_order=names, **scale)
        for split in (images.validation, images.test)
    )
    evaluator = RoundEvaluator(test)
    if clock and begin.epoch:
        clock.on_epoch_begin(begin.epoch - 1)  # where only the end of the run is left to do
    if begin.state is not None:
        take_up(*begin.state, model, restart, evaluator)
    print(f"Data: {describe(images)}. Records: {folder.path}{begin.told}", flush=True)
    if weights:
        print(weights.summary(), flush=True)
    folder.write_flags(settings.to_dict())
    folder.keep_epochs(begin.epoch, begin.source)
    checkpoint = RunCheckpoint(
        folder.state,
        restart,
        evaluator,
        identity_of(settings, images, digest),
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
        model.fit(
            data.train_batches(
                images.train,
                batch_size,
                seed=settings.seed,
                augment=settings.augment,
                first_epoch=first_epoch,
                regime=regime,
                **scale,
            ),
            steps_per_epoch=data.steps_per_epoch(images.train, batch_size),
            validation_data=validation,
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

    with saying_how_to_go_on(folder, checkpoint):
        fit_to_end(
            fit,
            begin.epoch,
            model,
            checkpoint,
            on_nan=settings.on_nan,
            learning_rate_factor=settings.learning_rate_factor,
        )
        return _finish(model, restart, images, folder, evaluator, recorder)


def _finish(
    model: keras.Model,
    restart: PartialRestart,
    images: data.ImageData,
    folder: RunFolder,
    evaluator: RoundEvaluator,
    recorder: Recorder,
) -> dict[str, Any]:
    """Saves the best weights, writes the record and prints the table."""
    model.set_weights(evaluator.best_weights)
    folder.save_model(model)
    record = recorder.write(restart, ended=True)
    print(f"\n{describe(images)}; {record['finished']}; {record['timing']['seconds']:.0f} s")
    print(to_markdown(record["table"]))
    print(f"Records: {folder.path}; tensorboard --logdir={folder.path.parent}", flush=True)
    return record


def regime_of(settings: RunSettings, images: data.ImageData) -> Regime | None:
    """What each epoch is trained on; None where that is all images, as they are."""
    if settings.tasks == "none" and settings.warm_start_fraction is None:
        return None
    common: dict[str, Any] = {
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

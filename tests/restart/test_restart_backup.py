"""`PartialRestart` beside the stock callbacks of Keras, and killed beside `BackupAndRestore`."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from keras import callbacks, layers

import kerasrestart as kr

EPOCHS = 6


def net():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def restarts(backup=None):
    return kr.PartialRestart(
        "he_uniform",
        fraction=0.25,
        when=kr.EveryEpochs(2, monitor="loss", learning_rate_drops=1),
        stop_on_repeat=False,
        observers=[] if backup is None else [kr.RestartBackup(backup)],
    )


class KilledError(Exception):
    pass


class Kill(callbacks.Callback):
    def __init__(self, epoch, where):
        super().__init__()
        self.epoch, self.where = epoch, where

    def on_epoch_begin(self, epoch, logs=None):
        if (epoch, self.where) == (self.epoch, "begin"):
            raise KilledError

    def on_train_batch_end(self, batch, logs=None):
        if (self.params["epochs"], self.where) == (EPOCHS, "batch") and batch == 1:
            self.seen = getattr(self, "seen", 0) + 1
            if self.seen == self.epoch + 1:
                raise KilledError


def train(model, images, *callbacks_):
    x, y = images
    return model.fit(
        x, y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=list(callbacks_)
    )


def as_is(restart):
    """The state as plain data, without a metric that `ReduceLROnPlateau` adds to the logs."""
    state = dataclasses.asdict(restart.state)
    for record in (*state["rounds"], *state["events"]):
        for name, of_epoch in record.items():
            if "metrics" in name:
                of_epoch.pop("learning_rate", None)
    return state


@pytest.fixture(scope="module")
def uninterrupted():
    """Data, the trained model and the callback of a training that nothing interrupted."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(20, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 20)
    model, restart = net(), restarts()
    train(model, (x, y), restart)
    assert len(restart.events) == 2
    return (x, y), model, restart


# Before the first restart; between a restart's decision and its execution; in the epoch after it.
@pytest.mark.parametrize(
    ("epoch", "where", "first"),
    [(1, "batch", True), (4, "begin", True), (4, "batch", False), (5, "batch", True)],
)
def test_killed_and_fitted_again_it_ends_as_if_uninterrupted(
    tmp_path, uninterrupted, epoch, where, first
):
    images, straight, plain = uninterrupted

    def both():
        restart = restarts(tmp_path / "restarts")
        keep = callbacks.BackupAndRestore(tmp_path / "model")
        return restart, ([restart, keep] if first else [keep, restart])

    with pytest.raises(KilledError):
        train(net(), images, *both()[1], Kill(epoch, where))
    model, (again, in_order) = net(), both()
    history = train(model, images, *in_order)
    assert history.epoch[0] == epoch  # it resumed
    assert as_is(again) == as_is(plain)
    for one, other in zip(straight.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), one.path)
    assert not (tmp_path / "restarts").exists()


def test_weights_that_are_not_those_of_the_epoch_are_refused(tmp_path, images):
    with pytest.raises(KilledError):
        train(net(), images, restarts(tmp_path / "restarts"), Kill(2, "begin"))
    with pytest.raises(ValueError, match="as of BackupAndRestore with save_freq='epoch'"):
        net().fit(*images, initial_epoch=2, epochs=EPOCHS, verbose=0,
                  callbacks=[restarts(tmp_path / "restarts")])  # fmt: skip


def test_a_second_fit_with_the_same_callback_is_backed_up_too(tmp_path, images):
    restart = restarts(tmp_path / "restarts")
    train(net(), images, restart)
    keep = callbacks.BackupAndRestore(tmp_path / "model")
    with pytest.raises(KilledError):
        train(net(), images, restart, keep, Kill(3, "begin"))
    again = restarts(tmp_path / "restarts")
    history = train(net(), images, again, callbacks.BackupAndRestore(tmp_path / "model"))
    assert history.epoch[0] == 3


@pytest.mark.parametrize("first", [True, False])
def test_what_is_saved_of_an_epoch_is_the_model_that_its_metrics_describe(tmp_path, images, first):
    x, y = images
    save = callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    both = [restarts(), save] if first else [save, restarts()]
    model = net()
    history = model.fit(x, y, validation_data=(x, y), epochs=4, verbose=0, callbacks=both).history
    assert len(both[not first].events) == 1
    for epoch, loss in enumerate(history["val_loss"]):
        model.load_weights(tmp_path / f"{epoch + 1}.weights.h5")
        np.testing.assert_allclose(model.evaluate(x, y, verbose=0)[0], loss, rtol=1e-5)


def test_a_damaged_backup_or_one_of_other_epochs_is_refused(tmp_path, images):
    backup = tmp_path / "restarts"
    with pytest.raises(KilledError):
        train(net(), images, restarts(backup), Kill(3, "begin"))

    def resume(epoch):
        net().fit(*images, initial_epoch=epoch, epochs=8, verbose=0,
                  callbacks=[restarts(backup)])  # fmt: skip

    with pytest.raises(ValueError, match=r"state after epochs 0, 1, 2, but .* after epoch 5"):
        resume(6)
    backup.write_text("{]")
    with pytest.raises(ValueError, match="not a backup of restarts"):
        resume(2)


def stock(tmp_path):
    return [
        callbacks.CSVLogger(tmp_path / "log.csv"),  # before what adds the rate to the logs
        callbacks.BackupAndRestore(tmp_path / "backup"),
        callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss"),
        callbacks.EarlyStopping("loss", patience=EPOCHS),
        callbacks.ReduceLROnPlateau("loss", patience=EPOCHS),
        callbacks.TensorBoard(tmp_path / "board", update_freq=2),
    ]


@pytest.mark.parametrize("first", [True, False])
def test_beside_stock_callbacks_it_restarts_what_it_does_alone(tmp_path, uninterrupted, first):
    images, alone, expected = uninterrupted
    model, others, restart = net(), stock(tmp_path), restarts()
    train(model, images, *((restart, *others) if first else (*others, restart)))
    assert as_is(restart) == as_is(expected)
    for one, another in zip(alone.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), another.numpy(), one.path)
    saved = keras.saving.load_model(tmp_path / "best.keras")
    assert type(saved) is keras.Sequential
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    # What this callback adds to the logs is seen by those after it.
    assert ("learning_rate" in header) is first


@pytest.mark.parametrize("first", [True, False])
def test_early_stopping_leaves_no_filter_restarted_for_nothing(images, first):
    x, y = images
    model, restart = net(), restarts()
    # The loss falls, so this stops at the end of epoch 1, where the first round ends too.
    stop = callbacks.EarlyStopping("loss", mode="max", patience=1)
    both = [restart, stop] if first else [stop, restart]
    history = model.fit(x, y, validation_data=(x, y), epochs=EPOCHS, verbose=0, callbacks=both)
    assert restart.events == []
    assert len(restart.rounds) == 1
    assert restart.state.finished == "another callback has ended the training"
    assert restart.state.pending is None
    loss, _ = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(loss, history.history["val_loss"][-1], rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_reduce_lr_on_plateau_and_a_restart_agree_on_the_rate(images, first):
    model = net()
    restart = kr.PartialRestart(fraction=0.25, when=kr.EveryEpochs(3, monitor="loss"))
    lower = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    history = train(model, images, *((restart, lower) if first else (lower, restart)))
    rates = history.history["learning_rate"]
    # The other lowers the rate at the end of each epoch but the first; a new round begins high.
    np.testing.assert_allclose(rates[:6], [0.01, 0.01, 0.005, 0.01, 0.005, 0.0025], rtol=1e-5)


def a_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "restarts.json"


@pytest.mark.parametrize(
    ("path_in", "reason"),
    [
        (lambda folder: folder, "it is a folder"),
        (a_file, "exists|Not a directory"),
        (lambda folder: folder / ("n" * 300) / "a.json", "name too long"),
        (lambda folder: folder / "a\0b" / "c.json", "null"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before_training(path_in, reason, tmp_path):
    path, model = path_in(tmp_path), net()
    x, y = np.zeros((4, 8, 8, 2), "float32"), np.zeros(4)
    with pytest.raises(ValueError, match="path must be that of a file that can be") as error:
        model.fit(x, y, epochs=2, verbose=0, callbacks=[restarts(path)])
    text = str(error.value)
    assert f"Received: {str(path)!r}" in text
    assert re.search(rf"\(.*({reason}).*\)$", text)
    assert "\n" not in text
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("path", [3, None, b"restarts.json", ["restarts.json"]])
def test_what_is_not_a_path_is_refused_at_once(path):
    with pytest.raises(ValueError, match=r"path must be a path, that of a file\. Received: "):
        kr.RestartBackup(path)
    with pytest.raises(ValueError, match=r"log_dir must be a path, that of a folder\. Received: "):
        kr.RestartTensorBoard(path)
    if path is not None:
        with pytest.raises(ValueError, match=r"log_dir must be a path, that of a folder\. Rec"):
            kr.PlasticityMonitor(np.zeros((2, 8, 8, 2)), log_dir=path)


@pytest.mark.parametrize(
    ("argument", "value"), [("settings", 3), ("settings", "lr"), ("image_layer", 3)]
)
def test_other_arguments_of_the_tensorboard_observer_are_checked_at_once(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be None or .* Received: {value!r}"):
        kr.RestartTensorBoard("logs", **{argument: value})

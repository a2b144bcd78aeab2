"""`PartialRestart` beside the stock callbacks of Keras, and killed beside `BackupAndRestore`."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
from keras import callbacks, layers

import kerasrestart as kr

EPOCHS = 8


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


def restarts(**options):
    return kr.PartialRestart(
        "he_uniform", fraction=0.25, monitor="loss", round_epochs=2, learning_rate_drops=1,
        stop_on_repeat=False, verbose=0, **options,
    )  # fmt: skip


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
    """The state as plain data, but for a metric that `ReduceLROnPlateau` adds to the logs."""
    state = dataclasses.asdict(restart.state)
    for record in (*state["rounds"], *state["events"]):
        for name, of_epoch in record.items():
            if "metrics" in name:
                of_epoch.pop("learning_rate", None)
    return state


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("epoch", "where"), [(1, "batch"), (4, "begin"), (4, "batch"), (5, "batch")]
)
def test_killed_and_fitted_again_it_ends_as_if_undisturbed(tmp_path, images, epoch, where, first):
    straight, plain = net(), restarts()
    train(straight, images, plain)
    assert len(plain.events) == 3

    def both():
        restart = restarts(backup=tmp_path / "restarts")
        keep = callbacks.BackupAndRestore(tmp_path / "model")
        return restart, ([restart, keep] if first else [keep, restart])

    with pytest.raises(KilledError):
        train(net(), images, *both()[1], Kill(epoch, where))
    model, (again, in_order) = net(), both()
    history = train(model, images, *in_order)
    assert history.epoch[0] == epoch  # it did not begin anew
    assert as_is(again) == as_is(plain)
    for one, other in zip(straight.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), one.path)
    assert not (tmp_path / "restarts").exists()


def test_weights_that_are_not_those_of_the_epoch_are_refused(tmp_path, images):
    with pytest.raises(KilledError):
        train(net(), images, restarts(backup=tmp_path / "restarts"), Kill(2, "begin"))
    with pytest.raises(ValueError, match="expected BackupAndRestore with save_freq='epoch'"):
        net().fit(*images, initial_epoch=2, epochs=EPOCHS, verbose=0,
                  callbacks=[restarts(backup=tmp_path / "restarts")])  # fmt: skip


def test_a_second_fit_with_the_same_callback_is_backed_up_too(tmp_path, images):
    restart = restarts(backup=tmp_path / "restarts")
    train(net(), images, restart)
    keep = callbacks.BackupAndRestore(tmp_path / "model")
    with pytest.raises(KilledError):
        train(net(), images, restart, keep, Kill(3, "begin"))
    again = restarts(backup=tmp_path / "restarts")
    history = train(net(), images, again, callbacks.BackupAndRestore(tmp_path / "model"))
    assert history.epoch[0] == 3


@pytest.mark.parametrize("first", [True, False])
def test_what_is_saved_of_an_epoch_is_what_its_metrics_tell_of(tmp_path, images, first):
    x, y = images
    save = callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    both = [restarts(), save] if first else [save, restarts()]
    history = (
        net().fit(x, y, validation_data=(x, y), epochs=EPOCHS, verbose=0, callbacks=both).history
    )
    saved = [keras.saving.load_model(tmp_path / f"{n + 1}.keras") for n in range(EPOCHS)]
    losses = [model.evaluate(x, y, verbose=0)[0] for model in saved]
    np.testing.assert_allclose(losses, history["val_loss"], rtol=1e-5)


def test_a_backup_of_other_epochs_or_of_no_sense_is_refused(tmp_path, images):
    backup = tmp_path / "restarts"
    with pytest.raises(KilledError):
        train(net(), images, restarts(backup=backup), Kill(3, "begin"))

    def go_on(epoch):
        net().fit(*images, initial_epoch=epoch, epochs=EPOCHS, verbose=0,
                  callbacks=[restarts(backup=backup)])  # fmt: skip

    with pytest.raises(ValueError, match=r"state after epochs 0, 1, 2, but .* after epoch 5"):
        go_on(6)
    backup.write_text("{]")
    with pytest.raises(ValueError, match="no backup of restarts"):
        go_on(2)


def stock(tmp_path):
    return {
        "BackupAndRestore": callbacks.BackupAndRestore(tmp_path / "backup"),
        "ModelCheckpoint": callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss"),
        "EarlyStopping": callbacks.EarlyStopping("loss", patience=EPOCHS),
        "ReduceLROnPlateau": callbacks.ReduceLROnPlateau("loss", patience=EPOCHS),
        "TensorBoard": callbacks.TensorBoard(tmp_path / "board", update_freq=2),
        "CSVLogger": callbacks.CSVLogger(tmp_path / "log.csv"),
    }


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", list(stock(pathlib.Path())))
def test_beside_a_stock_callback_in_either_order(tmp_path, images, name, first):
    alone, model, other = net(), net(), stock(tmp_path)[name]
    expected, restart = restarts(), restarts()
    train(alone, images, expected)
    train(model, images, *((restart, other) if first else (other, restart)))
    assert as_is(restart) == as_is(expected)
    for one, another in zip(alone.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), another.numpy(), one.path)
    if name == "ModelCheckpoint":
        saved = keras.saving.load_model(tmp_path / "best.keras")
        assert type(saved) is keras.Sequential
    if name == "CSVLogger":
        header = (tmp_path / "log.csv").read_text().splitlines()[0]
        # What this callback adds to the logs is seen by those behind it.
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
    restart = kr.PartialRestart(fraction=0.25, monitor="loss", round_epochs=3, verbose=0)
    lower = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    history = train(model, images, *((restart, lower) if first else (lower, restart)))
    rates = history.history["learning_rate"]
    # The other lowers the rate at the end of each epoch but the first; a new round begins high.
    np.testing.assert_allclose(rates[:6], [0.01, 0.01, 0.005, 0.01, 0.005, 0.0025], rtol=1e-5)

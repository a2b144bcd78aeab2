"""The monitor sees what `diagnose` sees, as a callback and as an observer."""

import keras
import numpy as np
import pytest
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerasrestart.diagnosis.diagnose import diagnose
from kerasrestart.diagnosis.plasticity_monitor import PlasticityMonitor
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.when import EveryEpochs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, 16)


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def test_every_second_epoch_is_diagnosed_and_written(tmp_path):
    model = network()
    monitor = PlasticityMonitor(X, Y, every=2, log_dir=tmp_path)
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=100)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[board, monitor])
    assert [entry["epoch"] for entry in monitor.history] == [0, 2]
    now = diagnose(model, X, Y).layers["conv"].scalars()
    assert monitor.history[-1]["layers"]["conv"] == now
    assert monitor.seconds == sum(entry["seconds"] for entry in monitor.history)
    records = EventAccumulator(str(tmp_path / "plasticity")).Reload()
    assert {tag.split("/")[1] for tag in records.Tags()["tensors"]} == set(now)


@pytest.mark.usefixtures("grappler")
def test_it_changes_no_weight_of_a_training_with_restarts():
    weights, monitor = [], PlasticityMonitor(X, Y)
    for observers in ([], [monitor]):
        model = network()
        restart = PartialRestart(
            fraction=0.25, when=EveryEpochs(1, monitor="loss"), max_restarts=1, observers=observers
        )
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[restart])
        weights.append(model.get_weights())
    assert len(monitor.history) == 2
    for with_it, without in zip(*weights, strict=True):
        np.testing.assert_array_equal(with_it, without)

"""Runs on several devices give the numbers of a run on one."""

import csv
import functools
import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from kerasrestart.experiments import data
from kerasrestart.experiments.run.command import entry_point
from kerasrestart.experiments.run.strategies import check_batches, synchronize_norms
from tests.soak.kill_resume import compare

ROOT = pathlib.Path(__file__).parents[3]
# 37 images of 89 are left for the last batch: it cannot be split evenly.
FLAGS = (
    *("--dataset=shapes", "--train_examples=89", "--batch_size=52", "--learning_rate=0.003"),
    *("--trigger=epochs", "--round_epochs=1", "--learning_rate_drops=0", "--max_restarts=2"),
    "--eval_examples=200",
)

# The command line on a CPU that is split into logical devices. The process may kill itself when a
# number of epochs is over.
MAIN = """
import functools, os, signal, sys
devices, epochs = int(sys.argv.pop(1)), int(sys.argv.pop(1))
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint
on_epoch_end = RunCheckpoint.on_epoch_end
def die(checkpoint, epoch, logs=None):
    on_epoch_end(checkpoint, epoch, logs)
    if epoch + 1 == epochs:
        os.kill(os.getpid(), signal.SIGKILL)
RunCheckpoint.on_epoch_end = die
from kerasrestart.experiments import data
data.load = functools.partial(data.load, shapes_examples=2000)
from kerasrestart.main import entry_point
entry_point()
"""


def run(folder, devices, *, killed_after=0):
    """Starts or resumes the run in a folder of that name."""
    return subprocess.run(
        [
            *(sys.executable, "-c", MAIN, str(devices), str(killed_after), *FLAGS),
            *("--strategy=mirrored", f"--logdir={folder.parent}", f"--run_name={folder.name}"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on one device, in this process."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    place = (f"--logdir={folder.parent}", f"--run_name={folder.name}")
    with pytest.MonkeyPatch.context() as patch:
        few = functools.partial(data.load, shapes_examples=2000)
        patch.setattr(data, "load", few)
        patch.setattr(sys, "argv", ["kerasrestart", *FLAGS, *place])
        with pytest.raises(SystemExit) as ended:
            entry_point()
    assert ended.value.code == 0
    return folder


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_on_several_devices_has_the_numbers_of_one_device(alone, devices):
    folder = alone.with_name(f"devices{devices}")
    done = run(folder, devices)
    assert done.returncode == 0, done.stderr
    assert f"Replicas: {devices}" in done.stdout
    assert "ran out of data" not in done.stderr
    assert len(history(folder)) == 3
    for one, several in zip(history(alone), history(folder), strict=True):
        # One of the 200 images may be classified differently.
        accuracy = {name: 0.0051 for name in one if name.endswith("accuracy")}
        for name, value in one.items():
            tolerance = {"rel": 1e-4, "abs": accuracy.get(name, 1e-5)}
            assert several[name] == pytest.approx(value, **tolerance), name
    one, several = record_of(alone), record_of(folder)
    for mine, theirs in zip(one["events"], several["events"], strict=True):
        for name, layer in mine["layers"].items():
            assert layer["filters"] == theirs["layers"][name]["filters"]
            scores = layer["scores"], theirs["layers"][name]["scores"]
            np.testing.assert_allclose(*scores, rtol=2e-3, atol=1e-6)
    for mine, theirs in zip(one["table"], several["table"], strict=True):
        assert mine["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=0.0051)


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_undisturbed_run(alone):
    straight, killed = alone.with_name("devices2"), alone.with_name("killed")
    if not straight.exists():
        assert run(straight, 2).returncode == 0
    assert run(killed, 2, killed_after=1).returncode == -9
    done = run(killed, 2)
    assert done.returncode == 0, done.stderr
    assert "resumed after epoch 1" in done.stdout
    assert compare(straight, killed) == []


def test_batches_that_cannot_be_split_are_refused():
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    check_batches(strategy, 89, 52)
    with pytest.raises(ValueError, match="--batch_size must be a multiple of 2"):
        check_batches(strategy, 90, 53)
    with pytest.raises(ValueError, match="must be a multiple of 2"):
        check_batches(strategy, 89, 100)
    with pytest.raises(ValueError, match="the last has 1"):
        check_batches(strategy, 105, 52)


def test_batch_norms_are_synchronized_inside_blocks_too():
    norm = keras.layers.BatchNormalization()
    synchronize_norms(keras.Sequential([keras.Sequential([norm])]))
    assert norm.synchronized

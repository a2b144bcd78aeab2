"""Runs on several workers, and what is asked of them."""

import csv
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from kerasrestart.experiments import data
from kerasrestart.experiments.run import strategies
from kerasrestart.experiments.run.train import run
from kerasrestart.experiments.settings import parse_settings

ROOT = pathlib.Path(__file__).parents[3]
# 37 images of 53 are left for the last batch: an odd number.
FLAGS = (
    *("--dataset=shapes", "--train_examples=90", "--batch_size=53", "--epochs=2"),
    *("--trigger=epochs", "--round_epochs=1", "--learning_rate_drops=0", "--max_restarts=1"),
)


# Makes the run, takes its last epoch back, and makes it again, in one process.
TWICE = """
import functools, pathlib, sys
from absl import flags
from kerasrestart import main, strategies
strategies.make_strategy = functools.cache(strategies.make_strategy)
flags.FLAGS(sys.argv)
main.main([])
folder = pathlib.Path(flags.FLAGS.logdir, flags.FLAGS.run_name)
if strategies.is_chief(strategies.make_strategy("multiworker")):
    (folder / "history.csv").rename(folder / "whole.csv")
    (folder / "history.csv").write_text((folder / "whole.csv").read_text())
    (folder / "run.json").unlink()
    (folder / "state.npz").unlink()  # so that the one before it is taken up
main.main([])
"""


def workers(flags):
    """What two workers print, who train together."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    for held in sockets:
        held.close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWICE, *flags],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "CUDA_VISIBLE_DEVICES": "",
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [printed for printed, _ in outputs]


def alone(flags):
    """The same run in this process, on one device."""
    settings = parse_settings(flags)
    images = data.load(settings.dataset, train_examples=settings.train_examples)
    return settings, images


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def restarts(folder):
    return json.loads((folder / "run.json").read_text())["events"]


def test_two_workers_end_as_one_process_also_when_they_are_resumed(tmp_path):
    place = ("--run_name=workers", f"--logdir={tmp_path}")
    first, second = workers([*FLAGS, "--strategy=multiworker", *place])
    run(*alone(FLAGS), logdir=tmp_path, run_name="alone")
    folder = tmp_path / "workers"
    assert "Replicas: 2" in first
    assert str(folder) in first
    assert "kept by the first worker" in second
    assert str(folder) not in second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "workers"]
    for one, two in zip(history(tmp_path / "alone"), history(folder), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    (one,), (two,) = restarts(tmp_path / "alone"), restarts(folder)
    for layer in one["layers"]:
        assert one["layers"][layer]["filters"] == two["layers"][layer]["filters"]
        scores = (event["layers"][layer]["scores"] for event in (one, two))
        np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-6)
    assert "going on behind epoch 1" in first
    assert "going on behind epoch 1" in second
    assert (folder / "history.csv").read_text() == (folder / "whole.csv").read_text()


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_refused_in_one_line(config):
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG") as refused:
        strategies.read_cluster({"TF_CONFIG": config})
    assert "\n" not in str(refused.value)
    assert repr(config) in str(refused.value)


def test_the_chief_is_the_first_worker():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 1}}
    addresses = ["a:1", "b:1", "c:1"]
    assert strategies.read_cluster({"TF_CONFIG": json.dumps(config)}) == (addresses, 2)

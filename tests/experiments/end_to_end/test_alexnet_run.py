"""Runs of AlexNet from a file of weights, and of ResNet-20, as small as they can be."""

import functools
import json

import keras
import numpy as np
import pytest
import safetensors.numpy

from kerasrestart import models
from kerasrestart.experiments import data
from kerasrestart.experiments.data import pipeline
from kerasrestart.experiments.models.alexnet_weights import IMAGENET_MEAN, IMAGENET_STD
from kerasrestart.experiments.models.networks import NETWORKS
from kerasrestart.experiments.run.build import build_model
from kerasrestart.experiments.run.train import run
from tests.typed_settings import parse_settings

NUMBERS = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
SMALL = ("--image_size=63", "--batch_size=20", "--trigger=epochs", "--round_epochs=1", "--epochs=2")
SMALL += ("--max_restarts=1", "--learning_rate_drops=0")


def settings_of(*arguments):
    return parse_settings([*SMALL, *arguments])


@pytest.fixture(scope="module")
def images():
    return data.load("shapes", shapes_examples=100, train_examples=40)


@pytest.fixture(autouse=True)
def _few_units(monkeypatch):
    few = functools.partial(models.alexnet, units=8)
    monkeypatch.setattr(models, "alexnet", few)
    monkeypatch.setitem(NETWORKS, "alexnet", few)


@pytest.fixture
def weights(tmp_path):
    """A file with the five convolutions; what is in it."""
    model, tensors = models.alexnet((63, 63, 3)), {}
    for layer, number in NUMBERS.items():
        kernel, bias = model.get_layer(layer).get_weights()
        tensors[f"features.{number}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"features.{number}.bias"] = bias + 0.01
    safetensors.numpy.save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors", tensors


def record_without_timing(record):
    return {key: value for key, value in json.loads(json.dumps(record)).items() if key != "timing"}


def test_a_run_from_weights_records_them_and_resumes_with_the_same_only(
    weights, images, tmp_path, monkeypatch
):
    path, tensors = weights
    chosen = settings_of("--model=alexnet", f"--weights={path}")
    scales = []
    fetcher = pipeline._fetcher
    monkeypatch.setattr(
        pipeline, "_fetcher", lambda s, m, d: scales.append((m, d)) or fetcher(s, m, d)
    )
    record = run(chosen, images, logdir=tmp_path / "logs", run_name="one")
    assert len(record["weights"]["sha256"]) == 64
    assert record["weights"]["layers"] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert [row["round"] for row in record["table"]] == ["baseline", "restart 1"]
    assert set(scales) == {(IMAGENET_MEAN, IMAGENET_STD)}
    saved = keras.saving.load_model(tmp_path / "logs" / "one" / "model.keras")
    assert saved.input_shape == (None, 63, 63, 3)

    again = run(chosen, images, logdir=tmp_path / "logs", run_name="one")
    assert record_without_timing(again) == record_without_timing(record)
    safetensors.numpy.save_file(tensors | {"features.0.bias": np.ones(64, "f4")}, path)
    with pytest.raises(ValueError, match="the initial weights have changed"):
        run(chosen, images, logdir=tmp_path / "logs", run_name="one")


def test_frozen_convolutions_are_neither_trained_nor_restarted(weights, images, tmp_path):
    path, tensors = weights
    frozen = ("--model=alexnet", f"--weights={path}", "--freeze_features")
    refused = settings_of(*frozen, "--layers=conv.*")
    with pytest.raises(ValueError, match="no filters to restart: conv1 is not trainable"):
        run(refused, images, logdir=tmp_path / "logs", run_name="refused")
    assert not (tmp_path / "logs").exists()
    chosen = settings_of(*frozen, "--layers=.*", "--fraction=0.3")
    record = run(chosen, images, logdir=tmp_path / "logs", run_name="frozen")
    assert record["table"][1]["restarted"] == {"dense1": 2, "dense2": 2}
    saved = keras.saving.load_model(tmp_path / "logs" / "frozen" / "model.keras")
    for layer, number in NUMBERS.items():
        kernel = saved.get_layer(layer).kernel.numpy().transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(kernel, tensors[f"features.{number}.weight"])


def test_loaded_layers_alone_train_at_the_lower_rate(weights, images):
    path, _ = weights
    batch = next(
        iter(
            data.evaluation_batches(
                images.train, 20, mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=63
            )
        )
    )
    moved = {}
    for factor in (1, 0.25):
        chosen = settings_of(
            "--model=alexnet", f"--weights={path}", f"--pretrained_learning_rate_factor={factor}"
        )
        keras.utils.set_random_seed(0)
        model, loaded = build_model(chosen, images)
        assert loaded.layers[0] == "conv1"
        before = {v.path: v.numpy() for v in model.trainable_variables}
        model.train_on_batch(*batch)
        moved[factor] = {v.path: v.numpy() - before[v.path] for v in model.trainable_variables}
    for name, step in moved[1].items():
        assert np.abs(step).max() > 0
        expected = step * (0.25 if name.startswith("conv") else 1)
        np.testing.assert_allclose(moved[0.25][name], expected, rtol=1e-2, atol=1e-7)


@pytest.mark.slow
def test_resnet20_is_restarted_with_outgoing_zero(images, tmp_path):
    chosen = settings_of("--model=resnet20", "--image_size=8", "--outgoing=zero")
    record = run(chosen, images, logdir=tmp_path / "logs", run_name="resnet")
    restarted = record["table"][1]["restarted"]
    assert set(restarted) >= {f"stage{s}_block{b}_conv1" for s in (1, 2, 3) for b in (1, 2, 3)}
    assert restarted["stage3_block2_conv1"] == 6

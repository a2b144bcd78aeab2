"""The examples run at small sizes and do what their first lines say."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(request):
    """The module of the example that the test is named after."""
    name = request.node.originalname.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def restarted(restart, times):
    """Filters of each layer, by restart."""
    assert len(restart.events) == times
    return [{n: layer.filters for n, layer in e.layers.items()} for e in restart.events]


def test_every_example_is_tested():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tests


def test_plain_model(example):
    accuracies = example.main(["--examples=200", "--round_epochs=1"])
    assert [len(rounds) for rounds in accuracies.values()] == [3, 3]
    # Until the first restart, the two runs are equal.
    assert accuracies["uniform"][0] == accuracies["none"][0]


def short_mobilenet(input_shape, alpha, weights, classes, classifier_activation):
    """Blocks 10 to 12 of MobileNetV2, which as a whole is trained with the slow tests."""
    x = image = keras.Input(input_shape)
    for number in (10, 11, 12):
        name = f"block_{number}_"
        x = layers.Conv2D(24, 1, use_bias=False, name=f"{name}expand")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.DepthwiseConv2D(3, 2, use_bias=False, name=f"{name}depthwise")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.Conv2D(12, 1, use_bias=False, name=f"{name}project")(x)
        x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, classifier_activation)(x))


@pytest.mark.parametrize("network", [short_mobilenet, pytest.param(None, marks=pytest.mark.slow)])
def test_applications_network(example, network, monkeypatch):
    if network:
        monkeypatch.setattr(keras.applications, "MobileNetV2", network)
    restart = example.main(["--examples=100", "--round_epochs=1", "--layers=block_1[0-2]_project"])
    assert restarted(restart, 1)[0].keys() <= {f"block_{n}_project" for n in (10, 11, 12)}


def test_own_training_step(example):
    restart = example.main(["--examples=200", "--epochs=6"])
    restarted(restart, 1)
    assert "train_step" not in vars(restart.model)


def test_own_criterion(example):
    choices = example.main(["--examples=200", "--epochs=3"])
    assert list(choices) == ["taylor", "signed_taylor", "twins", "reversed_twins"]
    counts = [{name: len(k) for name, k in chosen.items()} for chosen in choices.values()]
    assert counts == [{"conv1": 3, "conv2": 3, "conv3": 6}] * 4
    kernel = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")
    kernel[:, 3] = 2 * kernel[:, 1]
    assert np.argsort(example.distance_to_nearest(kernel))[:2].tolist() in ([1, 3], [3, 1])


def test_own_images(example, tmp_path):
    with pytest.raises(SystemExit, match=r"error: --folder must have images in .*, not a folder$"):
        example.main([f"--folder={tmp_path / 'birds'}"])
    for name, missing in (("crow", "train"), ("train/crow", "validation")):
        path = tmp_path / "birds" / name / "1.png"
        path.parent.mkdir(parents=True)
        path.touch()
        with pytest.raises(SystemExit, match=f"birds', without images in {missing}/$"):
            example.main([f"--folder={tmp_path / 'birds'}"])
    restart = example.main(["--examples=200", "--epochs=6"])
    assert restarted(restart, 1)[0].keys() == {"conv1", "conv2"}


def test_own_experiment(example, tmp_path):
    result, study = example.main(
        ["--examples=200", "--round_epochs=1", "--seeds=0", f"--logdir={tmp_path}"]
    )
    assert study is None  # its processes are tested with `experiments.study`
    assert result.table[1]["restarted"] == {"conv1": 2, "conv2": 3}
    assert result.model.get_layer("conv2").filters == 32

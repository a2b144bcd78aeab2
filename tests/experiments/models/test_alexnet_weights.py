"""AlexNet's weights from files that fit, fit in part, or are wrong."""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

import kerasrestart as kr
from kerasrestart.experiments.models import alexnet_weights
from kerasrestart.experiments.models.alexnet_weights import load_alexnet_weights
from kerasrestart.experiments.models.weight_files import StoredTensor, stored_tensors

SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}
FEATURES = ("conv1", "conv2", "conv3", "conv4", "conv5")


def dense(units, classes):
    return {
        "classifier.1": (units, 9216),
        "classifier.4": (units, units),
        "classifier.6": (classes, units),
    }


def tensors_of(shapes):
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = rng.random(shape, np.float32)
        tensors[f"{name}.bias"] = rng.random(shape[:1], np.float32)
    return tensors


@pytest.fixture(scope="module")
def features():
    return tensors_of(SHAPES)


@pytest.fixture(scope="module")
def model():
    return kr.models.alexnet((64, 64, 3), units=8)


def saved(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def test_convolutions_alone_leave_the_dense_layers_as_they_are(model, features, tmp_path):
    before = [model.get_layer(name).kernel.numpy() for name in ("dense1", "dense2", "logits")]
    loaded = load_alexnet_weights(model, saved(tmp_path / "w.safetensors", features))
    assert loaded.layers == FEATURES
    assert not loaded.kept
    kernel = model.get_layer("conv2").kernel.numpy()
    assert kernel[1, 3, 5, 7] == features["features.3.weight"][7, 5, 1, 3]
    np.testing.assert_array_equal(model.get_layer("conv5").bias, features["features.10.bias"])
    for name, was in zip(("dense1", "dense2", "logits"), before, strict=True):
        np.testing.assert_array_equal(model.get_layer(name).kernel, was)


def test_a_last_layer_of_other_classes_keeps_its_initial_weights_and_is_named(
    model, features, tmp_path, capsys
):
    path = saved(tmp_path / "w.safetensors", features | tensors_of(dense(8, 1000)))
    before = model.get_layer("logits").kernel.numpy()
    loaded = load_alexnet_weights(model, path)
    assert loaded.layers == (*FEATURES, "dense1", "dense2")
    assert loaded.kept == {"logits": "1000 units in the file, 10 here"}
    np.testing.assert_array_equal(model.get_layer("logits").kernel, before)
    kr.models.alexnet((64, 64, 3), units=8, weights=str(path))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "logits keeps initial weights: 1000 units in the file, 10 here" in printed


def test_all_layers_after_one_that_does_not_fit_keep_their_initial_weights(
    model, features, tmp_path
):
    path = saved(tmp_path / "w.safetensors", features | tensors_of(dense(9, 10)))
    loaded = load_alexnet_weights(model, path)
    assert loaded.layers == FEATURES
    assert list(loaded.kept) == ["dense1", "dense2", "logits"]


def replace(name, tensor):
    return lambda tensors: tensors | {name: tensor}


def without(name):
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


def renamed(name, new):
    return lambda tensors: without(name)(tensors) | {new: tensors[name]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replace("features.3.weight", np.ones((192, 64, 3, 3), "f4")), "'features.3.weight'"),
        (replace("features.3.weight", np.ones((5, 5, 64, 192), "f4")), r"\(192, 64, 5, 5\)"),
        (replace("features.10.bias", np.ones(255, "f4")), "'features.10.bias'"),
        (replace("features.8.bias", np.ones(256, "f2")), "'features.8.bias'.* F16"),
        (replace("features.6.bias", np.ones(384, "f8")), "'features.6.bias'.* F64"),
        (replace("features.0.bias", np.full(64, np.nan, "f4")), "'features.0.bias'.* finite"),
        (without("features.10.weight"), "no tensor 'features.10.weight'"),
        (renamed("features.0.weight", "features.1.weight"), "'features.1.weight'"),
        (replace("classifier.4.bias", np.ones(8, "f4")), "no tensor 'classifier.1.weight'"),
        (lambda t: t | tensors_of(dense(8, 10) | {"classifier.1": (8, 256)}), "'classifier.1.wei"),
        (lambda t: t | tensors_of(dense(8, 10) | {"classifier.4": (8, 7)}), "'classifier.4.weigh"),
    ],
)
def test_a_wrong_tensor_is_named_in_one_line_and_nothing_is_loaded(
    model, features, tmp_path, change, says
):
    path = saved(tmp_path / "w.safetensors", change(features))
    assert_refused(model, path, says)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:300],
        lambda content: b"",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: (10**5).to_bytes(8, "little") + b"[" * 10**5,
        lambda content: content + b"more",
    ],
)
def test_a_damaged_file_is_refused_in_one_line_and_nothing_is_loaded(
    model, features, tmp_path, damage
):
    path = saved(tmp_path / "w.safetensors", features)
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(model, path, "w.safetensors is damaged")


def assert_refused(model, path, says):
    before = model.get_weights()
    with pytest.raises(ValueError, match=says) as error:
        load_alexnet_weights(model, path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_images_of_other_channels_have_no_such_first_convolution(features, tmp_path):
    path = saved(tmp_path / "w.safetensors", features)
    with pytest.raises(ValueError, match=r"'features\.0\.weight'"):
        kr.models.alexnet((64, 64, 1), units=8, weights=path)


def test_a_missing_file_and_an_unknown_kind_of_file_are_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_alexnet_weights(model, tmp_path / "nowhere.safetensors")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ValueError, match=r"\.safetensors, \.pth or \.pt"):
        load_alexnet_weights(model, tmp_path / "weights.h5")
    with pytest.raises(OSError, match="'imagenet' or the path of a file"):
        load_alexnet_weights(model, pathlib.Path(tmp_path))


@pytest.mark.parametrize("wrong", ["features.10.bias", "features.0.weight"])
def test_no_values_are_read_from_a_file_with_a_wrong_shape(
    model, features, tmp_path, monkeypatch, wrong
):
    path = saved(tmp_path / "w.safetensors", features | {wrong: np.ones(3, "f4")})

    def unread(shape):
        return StoredTensor(shape, lambda: pytest.fail("a tensor was read"))

    listed = {name: unread(tensor.shape) for name, tensor in stored_tensors(path).items()}
    monkeypatch.setattr(alexnet_weights, "stored_tensors", lambda path: listed)
    assert_refused(model, path, rf"'{wrong}' .* must have the shape .*Received: \(3,\)")

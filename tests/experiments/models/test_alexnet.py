"""AlexNet against the same network in PyTorch."""

import pathlib

import keras
import numpy as np
import pytest
import safetensors.numpy

import kerasrestart as kr

SHARED = pathlib.Path(__file__).parents[4] / "shared"
PUBLISHED = SHARED / "weights" / "alexnet_imagenet_features.safetensors"


@pytest.fixture(scope="module")
def in_torch():
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'bench')")
    import torch_alexnet

    return torch_alexnet


def images_of(height, width, seed=1):
    return np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype("float32")


def test_it_has_the_weights_of_torchvisions():
    assert kr.models.alexnet(classes=1000).count_params() == 61_100_840


def test_layers_and_their_shapes():
    model = kr.models.alexnet(units=8)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert shapes == {
        "image": (224, 224, 3),
        "pad1": (228, 228, 3),
        "conv1": (55, 55, 64),
        "pool1": (27, 27, 64),
        "conv2": (27, 27, 192),
        "pool2": (13, 13, 192),
        "conv3": (13, 13, 384),
        "conv4": (13, 13, 256),
        "conv5": (13, 13, 256),
        "pool5": (6, 6, 256),
        "flatten": (9216,),
        "dropout1": (9216,),
        "dense1": (8,),
        "dropout2": (8,),
        "dense2": (8,),
        "logits": (10,),
    }


@pytest.mark.parametrize("file", ["random.pth", "random.safetensors", "published"])
def test_the_five_convolutions_are_pytorchs(in_torch, tmp_path, file):
    path, weights = tmp_path / file, in_torch.random_weights()
    if file == "published":
        path = PUBLISHED
        if not path.exists():
            pytest.skip(f"ImageNet's weights are not at {path}")
        weights = safetensors.numpy.load_file(path)
    elif path.suffix == ".pth":
        import torch

        torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, path)
    else:
        safetensors.numpy.save_file(weights, path)
    model = kr.models.alexnet(units=4, weights=path)
    images = images_of(224, 224)
    ours = keras.Model(model.input, model.get_layer("pool5").output)(images)
    theirs = in_torch.last_map(images, weights).permute(0, 2, 3, 1).numpy()
    assert theirs.max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "map_shape"),
    [
        (224, 224, (6, 6)),
        (64, 63, (1, 1)),  # torchvision repeats the one value 36 times
        (96, 190, (2, 4)),  # and takes means of neighbours where 6 is not a multiple
        (300, 110, (6, 2)),  # pooled to 6 from 8, for real
    ],
)
def test_the_whole_network_is_pytorchs_at_any_size(in_torch, tmp_path, height, width, map_shape):
    if height > 254 and not hasattr(keras.layers, "AdaptiveAveragePooling2D"):
        pytest.skip("this Keras has no AdaptiveAveragePooling2D")
    weights = in_torch.random_weights(units=12, classes=5)
    safetensors.numpy.save_file(weights, tmp_path / "weights.safetensors")
    model = kr.models.alexnet(
        (height, width, 3), 5, weights=tmp_path / "weights.safetensors", units=12
    )
    assert model.get_layer("flatten").input.shape[1:3] == map_shape
    images = images_of(height, width)
    theirs = in_torch.logits(images, weights)
    np.testing.assert_allclose(model(images), theirs, atol=1e-4)
    assert np.abs(theirs).max() > 0.1


@pytest.mark.parametrize("shape", [(62, 224, 3), (224, 62, 3), (32, 32, 3)])
def test_images_that_are_too_small_are_refused_with_the_least_size(shape):
    with pytest.raises(ValueError, match=r"at least 63 x 63 .* Received: \d+ x \d+"):
        kr.models.alexnet(shape)


def test_63_pixels_are_enough():
    assert kr.models.alexnet((63, 63, 3), units=8).get_layer("pool5").output.shape[1:3] == (1, 1)


def test_a_map_that_cannot_be_pooled_is_refused(monkeypatch):
    monkeypatch.delattr(keras.layers, "AdaptiveAveragePooling2D", raising=False)
    assert kr.models.alexnet((254, 254, 3), units=8).output_shape == (None, 10)
    with pytest.raises(ValueError, match="63 to 254 pixels"):
        kr.models.alexnet((255, 224, 3), units=8)


def test_dropout_acts_in_training_alone():
    model = kr.models.alexnet((64, 64, 3), units=32)
    images = images_of(64, 64)
    np.testing.assert_array_equal(model(images), model(images))
    assert not np.allclose(model(images, training=True), model(images))
    kept = kr.models.alexnet((64, 64, 3), units=32, dropout=0.0)
    np.testing.assert_array_equal(kept(images, training=True), kept(images))


def test_all_convolutions_can_be_restarted_and_a_restarted_model_trains():
    model = kr.models.alexnet((64, 64, 3), units=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    scores = kr.score_filters(model, images_of(64, 64), np.array([1, 2]))
    assert {name: len(of) for name, of in scores.items()} == {
        "conv1": 64,
        "conv2": 192,
        "conv3": 384,
        "conv4": 256,
        "conv5": 256,
    }
    chosen = kr.select_filters(scores, fraction=0.1)
    before = model(images_of(64, 64)).numpy()
    kr.restart_filters(model, chosen, initializer="uniform", outgoing="zero", seed=0)
    assert not np.allclose(model(images_of(64, 64)), before)
    model.fit(images_of(64, 64), np.array([1, 2]), verbose=0)


@pytest.mark.parametrize("side", [64, 224, 300])
def test_all_layers_are_kerass_own_and_a_saved_model_loads(tmp_path, side):
    if side > 254 and not hasattr(keras.layers, "AdaptiveAveragePooling2D"):
        pytest.skip("this Keras has no AdaptiveAveragePooling2D")
    model = kr.models.alexnet((side, side, 3), units=4)
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    model.save(tmp_path / "alexnet.keras")
    loaded = keras.saving.load_model(tmp_path / "alexnet.keras")
    np.testing.assert_array_equal(loaded(images_of(side, side)), model(images_of(side, side)))

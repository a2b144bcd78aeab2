import itertools

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import find_filter_layers


def test_it_has_the_weights_that_the_papers_form_comes_to():
    widths = (16, 32, 64)
    convolutions = 9 * 3 * 16 + 9 * 16 * 16 * 6
    convolutions += sum(9 * a * b + 5 * 9 * b * b for a, b in itertools.pairwise(widths))
    channels = 16 + 6 * sum(widths)  # each with a norm's scale and shift
    expected = convolutions + 2 * channels + 64 * 10 + 10
    assert expected == 269_722  # the paper's table 6: 0.27 million
    model = kr.models.resnet20()
    assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == expected
    layers = [x for x in model.layers if isinstance(x, keras.layers.Conv2D | keras.layers.Dense)]
    assert len(layers) == 20


def test_stages_halve_the_positions():
    model = kr.models.resnet20(classes=7)
    sides = {
        name: model.get_layer(name).output.shape[1:]
        for name in ("relu1", "stage1_block3_relu2", "stage2_block1_relu2", "stage3_block3_relu2")
    }
    assert sides == {
        "relu1": (32, 32, 16),
        "stage1_block3_relu2": (32, 32, 16),
        "stage2_block1_relu2": (16, 16, 32),
        "stage3_block3_relu2": (8, 8, 64),
    }
    assert model.output_shape == (None, 7)


def test_a_new_stages_shortcut_is_every_other_position_and_zeros():
    model = kr.models.resnet20()
    x = model.get_layer("stage1_block3_relu2").output
    shortcut = model.get_layer("stage2_block1_widen").output
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    x, shortcut = (part.numpy() for part in keras.Model(model.input, [x, shortcut])(images))
    assert x.max() > 0.1
    np.testing.assert_array_equal(shortcut[..., :16], x[:, ::2, ::2])
    np.testing.assert_array_equal(shortcut[..., 16:], 0)


def test_the_first_convolution_of_each_block_can_be_restarted_with_outgoing_zero():
    model = kr.models.resnet20()
    found = find_filter_layers(model)
    assert len(found.layers) == 19
    channels = ChannelMap(found.graph)
    for name, filter_layer in found.layers.items():
        path = channels.path(filter_layer.layer)
        if name.endswith("_conv1"):
            assert path.obstacle() is None
            (reader,) = path.readers
            assert reader.layer.name == name.replace("conv1", "conv2")
        else:
            assert "conv2" in path.obstacle()  # those that it is added to
            assert not path.escapes
        assert filter_layer.norm.name == name.replace("conv", "bn")


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    for model in (kr.models.resnet20(), kr.models.alexnet((64, 64, 3), units=8)):
        assert model.output.dtype == "float32"
        assert model.get_layer("conv1").compute_dtype == "float16"


@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 20, 1)])
def test_any_size_of_image(shape):
    assert kr.models.resnet20(shape, 3)(np.zeros((2, *shape))).shape == (2, 3)


def test_all_layers_are_kerass_own_and_a_saved_model_loads(tmp_path):
    model = kr.models.resnet20((8, 8, 3))
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    model.save(tmp_path / "resnet20.keras")
    loaded = keras.saving.load_model(tmp_path / "resnet20.keras")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    np.testing.assert_array_equal(loaded(images), model(images))

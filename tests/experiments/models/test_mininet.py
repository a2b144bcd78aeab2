import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.experiments.models.networks import NETWORKS
from kerasrestart.experiments.settings import SETTINGS


def test_mininet_has_the_weights_of_caffe_quick():
    assert kr.models.mininet().count_params() == 145_578


def test_layers_and_their_shapes():
    shapes = {layer.name: layer.output.shape[1:] for layer in kr.models.mininet().layers}
    assert shapes == {
        "image": (32, 32, 3),
        "conv1": (32, 32, 32),
        "pool1": (16, 16, 32),
        "conv2": (16, 16, 32),
        "pool2": (8, 8, 32),
        "conv3": (8, 8, 64),
        "pool3": (4, 4, 64),
        "flatten": (1024,),
        "dense1": (64,),
        "logits": (10,),
    }


def test_width_is_a_factor_on_all_hidden_layers():
    model = kr.models.mininet(width=0.25)
    names = ("conv1", "conv2", "conv3", "dense1", "logits")
    assert [model.get_layer(name).kernel.shape[-1] for name in names] == [8, 8, 16, 16, 10]
    assert kr.models.mininet(width=0.001).get_layer("conv1").filters == 1


def test_output_is_logits():
    model = kr.models.mininet(input_shape=(16, 16, 1), classes=4, name="tiny")
    logits = model(np.random.default_rng(0).normal(size=(3, 16, 16, 1)) * 9).numpy()
    assert logits.shape == (3, 4)
    assert logits.min() < 0
    assert model.name == "tiny"


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = kr.models.mininet()
    assert (model.get_layer("dense1").compute_dtype, model.output.dtype) == ("float16", "float32")


def test_every_name_of_the_registry_builds_a_model():
    assert tuple(NETWORKS) == SETTINGS["model"].choices
    for name in SETTINGS["model"].choices:
        assert getattr(kr.models, name)((64, 64, 3), 7).output_shape == (None, 7)


def test_name_is_the_function_though_its_module_was_imported_before():
    code = "import kerasrestart; print(kerasrestart.models.mininet().name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "mininet"


def test_unknown_model_is_an_attribute_error():
    with pytest.raises(AttributeError, match="mininett"):
        _ = kr.models.mininett

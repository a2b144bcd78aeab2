"""Networks, rules and callbacks of your own in a run: loaded, checked, recorded."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasrestart.experiments import data
from kerasrestart.experiments.run.build import build_model, restart_callback
from kerasrestart.experiments.run.own_code import load_code, make_callbacks
from kerasrestart.experiments.run.own_network import ends_in_softmax
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.experiments.sources import changed_sources, source_hashes
from kerasrestart.restart.select import Fraction

CODE = """
import keras
from keras import layers
import tensorflow as tf
import kerasrestart
def tiny(input_shape, classes, activation=None):
    return keras.Sequential([keras.Input(input_shape), layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(), layers.Dense(classes, activation=activation)])
def soft(input_shape, classes): return tiny(input_shape, classes, "softmax")
class Own(keras.Model):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.conv, self.flat = layers.Conv2D(4, 3, name="conv"), layers.Flatten()
        self.logits = layers.Dense(classes)
    def call(self, x): return self.logits(self.flat(self.conv(x)))
def three(input_shape, classes): return tiny(input_shape, 3)
def nothing(input_shape, classes): pass
def fails(input_shape, classes): raise KeyError("no such layer")
def one_argument(input_shape): pass
def lowest(scores): return {name: of.argsort()[:1] for name, of in scores.items()}
part = kerasrestart.Fraction(0.25)
def product(feature_map, gradient, channel_axis):
    return tf.reduce_sum(tf.abs(feature_map * gradient), axis=[1, 2])
def halves(kernel, axis, seed, chosen): return kernel / 2
class Say(keras.callbacks.Callback): pass
class Watch(kerasrestart.RestartObserver): pass
def stop(): return keras.callbacks.TerminateOnNaN()
number = 3
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path / "own.py"


@pytest.fixture(scope="module")
def images():
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 1), np.uint8)
    return data.dataset.ImageData(
        "mine", ("a", "b"), *[data.Split(x, (np.arange(20) % 2).astype(np.int32))] * 3
    )


@pytest.mark.parametrize("name", ["tiny", "Own"])
def test_a_network_of_your_own_is_built_for_the_images(name, images):
    model, weights = build_model(RunSettings(model=f"own.py:{name}"), images)
    assert weights is None
    assert model.built
    assert model(np.zeros((3, 6, 6, 1))).shape == (3, 2)
    assert model.loss.from_logits


def test_layers_have_the_names_of_a_new_process_in_each_run(images):
    number = int(layers.Conv2D(1, 1).name.partition("_")[2] or 0)
    settings = RunSettings(model="own.py:tiny")
    names = [[of.name for of in build_model(settings, images)[0].layers] for _ in range(2)]
    assert names == [["conv2d", "flatten", "dense"]] * 2
    assert layers.Conv2D(1, 1).name == f"conv2d_{number + 1}"  # outside, the count continues


def test_a_network_that_ends_in_softmax_gets_the_loss_of_probabilities(images):
    model, _ = build_model(RunSettings(model="own.py:soft"), images)
    assert ends_in_softmax(model)
    assert not model.loss.from_logits


def test_a_softmax_is_found_wherever_it_is_held():
    head = [layers.Dense(2), layers.Softmax()]
    nested = keras.Sequential([keras.Input((3,)), keras.Sequential([keras.Input((3,)), *head])])
    image = keras.Input((3,))
    function = keras.Model(image, keras.ops.softmax(layers.Dense(2)(image)))
    assert ends_in_softmax(nested)
    assert ends_in_softmax(function)
    assert not ends_in_softmax(keras.Model(image, layers.Dense(2)(keras.ops.softmax(image))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model": "own.py:three"},
            r"--model must be .* returns shape \(1, 3\) for one image$",
        ),
        ({"model": "own.py:nothing"}, "'own.py:nothing', which returns 'NoneType'"),
        ({"model": "own.py:fails"}, r"fails: KeyError: 'no such layer' \(own.py, line 1\d\)"),
        ({"model": "own.py:one_argument"}, r"cannot be called with \(input_shape, classes\)"),
        ({"model": "own.py:number"}, "not a function: int"),
        ({"model": "own.py:tinny"}, "Did you mean tiny"),
        ({"init": "own.py:tiny"}, "--init must be an initializer: .* neither: tiny.input_shape"),
        ({"criterion": "own.py:number"}, "--criterion must be a criterion"),
        ({"criterion": "own.py:lowest"}, r"--criterion must be .* Received: lowest\(scores\)"),
        ({"select": "own.py:product"}, r"--select must be .* Received: product\("),
        ({"select": "own.py:Watch"}, "--select must be a function scores -> {layer: indices}"),
        ({"callback": "own.py:lowest"}, "--callback must be .* with no argument: lowest.scores"),
        ({"callback": "own.py:number"}, "not a function: int"),
        ({"callback": "own.py:dict"}, "own.py has no 'dict'"),
        ({"callback": "builtins:dict"}, "'builtins:dict', which makes 'dict'"),
        ({"select": "own.py:lowest", "fraction": 0.2}, "--fraction is not an option of --select"),
    ],
)
def test_wrong_code_is_refused_in_one_line(settings, message, images):
    def refused():
        made = RunSettings(**settings)
        load_code(made)
        make_callbacks(made)
        build_model(made, images)

    with pytest.raises(SettingError, match=message) as caught:
        refused()
    assert "\n" not in str(caught.value)


def test_rules_of_your_own_are_parts_of_the_callback():
    settings = RunSettings(
        init="own.py:halves", criterion="reversed_own.py:product", select="own.py:lowest"
    )
    plan = restart_callback(settings).plan
    assert plan.reset.initializer.__name__ == "halves"
    assert plan.select({"conv": np.array([3.0, 1.0])}) == {"conv": [1]}
    assert plan.scoring.criterion.reversed
    plan = restart_callback(RunSettings(criterion="own.py:product", select="own.py:part")).plan
    assert plan.scoring.criterion.__name__ == "product"
    assert plan.select == Fraction(0.25)


def test_settings_are_checked_without_importing_code(tmp_path, code):
    code.write_text("raise AssertionError('imported')\ndef tiny(a, b): pass")
    settings = RunSettings(model="own.py:tiny", init="own.py:tiny", callback="own.py:tiny")
    assert source_hashes(settings.to_dict()).keys() == {
        "model=own.py:tiny",
        "init=own.py:tiny",
        "callback=own.py:tiny",
    }


def test_callbacks_and_observers_are_made_for_each_run():
    settings = RunSettings(callback="own.py:Say,own.py:Watch,own.py:stop")
    first, second = make_callbacks(settings), make_callbacks(settings)
    assert [type(of).__name__ for of in first] == ["Say", "Watch", "TerminateOnNaN"]
    assert not set(map(id, first)) & set(map(id, second))
    assert isinstance(first[0], keras.callbacks.Callback)


def test_changed_code_is_noticed_by_its_file(code):
    settings = RunSettings(model="own.py:tiny", select="own.py:lowest")
    was = source_hashes(settings.to_dict())
    assert changed_sources(was, source_hashes(settings.to_dict())) == []
    code.write_text(CODE + "\n# changed")
    now = source_hashes(settings.to_dict())
    assert changed_sources(was, now) == [
        "the code of --model=own.py:tiny has changed",
        "the code of --select=own.py:lowest has changed",
    ]
    assert changed_sources(was, now, {"select"}) == ["the code of --model=own.py:tiny has changed"]
    assert changed_sources({}, now) == []

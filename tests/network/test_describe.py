"""The table that tells what will be restarted."""

import re

import keras
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.network.text import listed


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Conv2D(4, 3, padding="same", name="inner")

    def call(self, x):
        return keras.activations.relu(self.inner(x))


def rows(model, layers=None):
    """By layer name, the cells of its line."""
    header, *lines = kr.describe(model, layers=layers).split("\n")
    names = ("layer", "kind", "filters", "score read after", "norm", "read by", "remark")
    starts = [header.index(name) for name in names]
    ends = [*starts[1:], None]
    cells = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines]
    return {name: of_layer for name, *of_layer in cells}


def network():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(4, 1, name="second")(x)
    x = layers.Add(name="sum")([x, Block(name="block")(x)])
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(2, name="out")(x))


def test_each_layer_with_filters_has_a_line_with_what_becomes_of_it():
    found = rows(network())
    assert found["first"] == ["Conv2D", "6", "relu", "norm", "depthwise", ""]
    assert found["depthwise"] == ["DepthwiseConv2D", "6", "depthwise", "", "second", ""]
    assert found["second"] == [
        *("Conv2D", "4", "second", "", "inner, out"),
        "its channels are shared with inner",
    ]
    assert found["out"][-1] == "left out: makes an output of the model"


def test_convolutions_within_a_layer_have_lines_too():
    found = rows(network())
    assert list(found) == ["first", "depthwise", "second", "inner", "out"]
    assert found["inner"][:3] == ["Conv2D", "4", "block"]


def test_layers_that_were_not_chosen_say_so():
    found = rows(network(), layers=["second"])
    assert found["first"][-1] == "left out: is not among the chosen layers"
    assert found["second"][-1] == "its channels are shared with inner"


def test_a_dense_layer_says_how_it_is_taken_too():
    image = keras.Input((6, 6, 2))
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.Dense(5, name="hidden")(x)
    model = keras.Model(image, layers.Dense(2, name="out")(x))
    assert rows(model)["hidden"][-1] == "left out: is a dense layer (layers='.*' takes these too)"
    assert rows(model, ".*")["hidden"][-1] == ""


class Untold(keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.head = Block(), layers.Conv2D(1, 1)

    def call(self, x):
        return self.head(self.block(x))


@pytest.mark.parametrize("x", ["images", [], (None, 8, 8, 3), {"image": 3}])
def test_what_is_not_an_example_is_refused_in_one_line(x):
    with pytest.raises(TypeError, match=r"^x must be an example .*arrays.* Received: \S.*$"):
        kr.describe(Untold(), x)
    assert "inner" in kr.describe(Untold(), keras.KerasTensor((None, 8, 8, 3)))


def test_a_wide_table_has_its_remarks_below_and_names_no_more_than_it_has_room_for():
    model = kr.models.resnet20()
    header, *lines = kr.describe(model).split("\n")
    assert max(map(len, lines)) <= 120
    assert header.endswith("  read by")
    assert [line.split()[0] for line in lines if line[0] != " "] == [
        layer.name for layer in model.layers if isinstance(layer, layers.Conv2D | layers.Dense)
    ]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("conv1 "):
            # Nine blocks read it, and the dense layer behind them; the sums are those of the nine.
            assert line.endswith("stage1_block1_conv1 and 9 more")
            assert re.fullmatch(
                "    its channels are shared with stage1_block1_conv2, .* and 7 more", below
            )
        if line.startswith("stage1_block2_conv1 "):
            assert line.endswith(" stage1_block2_conv2")
            assert not below.startswith(" ")
    assert lines[-1] == "    left out: makes an output of the model"


@pytest.mark.parametrize(
    ("names", "width", "expected"),
    [
        ([], 10, ""),
        (["relu3"], 3, "relu3"),
        (["relu3", "conv7"], 12, "relu3, conv7"),
        (["relu3", "conv7"], 11, "relu3 and 1 more"),
        (["relu3", "conv7", "a", "b", "c", "d", "e"], 12, "relu3, conv7 and 5 more"),
    ],
)
def test_names_are_listed_as_far_as_there_is_room(names, width, expected):
    assert listed(names, width) == expected

"""The table that tells what will be restarted."""

import keras
from keras import layers

import kerasrestart as kr


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Conv2D(4, 3, padding="same")

    def call(self, x):
        return keras.activations.relu(self.inner(x))


def rows(model, only=None):
    """By layer name, the cells of its line."""
    header, *lines = kr.describe(model, only).split("\n")
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
    assert found["second"][:2] == ["Conv2D", "4"]
    assert found["second"][-1] == "its channels go into block"
    assert found["out"][-1] == "left out: makes an output of the model"


def test_convolutions_out_of_sight_are_told_of():
    found = rows(network())
    assert list(found) == ["first", "depthwise", "second", "block", "out"]
    assert found["block"] == [
        *("Block", "", "", "", ""),
        "left out: has convolutions inside, which are not followed",
    ]


def test_layers_that_were_not_chosen_say_so():
    found = rows(network(), only=["second"])
    assert found["first"][-1] == "left out: is not among the chosen layers"
    assert found["second"][-1] == "its channels go into block"

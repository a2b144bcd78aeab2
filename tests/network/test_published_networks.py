"""What is found in networks of keras.applications, against their papers' tables.

All numbers are counted by hand in the papers and in Keras's documentation, and nothing is trained.
"""

from collections import Counter

import keras
import pytest

from kerasrestart.network.filter_layers import find_filter_layers

RELU, NORM, CONV = "Activation", "BatchNormalization", "Conv2D"
MAX, AVERAGE, GLOBAL = "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"
DEPTHWISE = "DepthwiseConv2D"


def resnet(*blocks):
    """Convolutions and filters: a stem, blocks of f, f and 4f, a projection at each stage."""
    stages = list(zip(blocks, (64, 128, 256, 512), strict=True))
    filters = 64 + sum(6 * f * count + 4 * f for count, f in stages)
    return 1 + 3 * sum(blocks) + 4, filters


def densenet(*blocks):
    """A stem of 64, layers of 128 and 32, and transitions that halve the channels."""
    channels = 64
    filters = channels + 160 * sum(blocks)
    for count in blocks[:-1]:
        channels = (channels + 32 * count) // 2
        filters += channels
    return 1 + 2 * sum(blocks) + 3, filters


def mobilenet_v2():
    """Table 2 of the paper: expansion, channels, repeats; each with a depthwise between."""
    filters, given = 32 + 1280, 32
    for expansion, channels, repeats in (
        *((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)),
    ):
        for _ in range(repeats):
            filters += (2 if expansion > 1 else 1) * expansion * given + channels
            given = channels
    return 2 + 17 * 3 - 1, filters


def efficientnet_b0():
    """Table 1 of the paper, with the squeeze to a quarter of a block's input and back."""
    filters, given = 32 + 1280, 32
    for expansion, channels, repeats in (
        *((1, 16, 1), (6, 24, 2), (6, 40, 2), (6, 80, 3), (6, 112, 3), (6, 192, 4), (6, 320, 1)),
    ):
        for _ in range(repeats):
            filters += (3 if expansion > 1 else 2) * expansion * given + given // 4 + channels
            given = channels
    return 2 + 16 * 5 - 1, filters


def mobilenet():
    """Table 1 of the paper: 13 depthwise convolutions, each with a pointwise one behind it."""
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    return 27, sum(widths[:-1]) + sum(widths)


VGG16 = 13, 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
VGG19 = 16, 2 * 64 + 2 * 128 + 4 * 256 + 8 * 512
XCEPTION = (
    40,  # figure 5: 36 in the flows, and 4 projections beside them
    *(32 + 64 + 128 + 256 + 728 + 1024 + 2 * (128 + 256 + 728) + 24 * 728 + 728 + 1024 + 3584,),
)
CONVNEXT = 22, 96 + 192 + 384 + 768 + 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
SLOW = pytest.mark.slow

# By network: convolutions and their filters, how many have a norm of their own, and after which
# kinds of layer the scores are read. ResNet: two of three convolutions of a block are read behind
# their activation, the third and the projection behind their norm, the stem behind its pooling.
NETWORKS = [
    ("VGG16", VGG16, 0, {CONV: 8, MAX: 5}),
    ("ResNet50", resnet(3, 4, 6, 3), 53, {RELU: 32, NORM: 20, MAX: 1}),
    ("ResNet50V2", resnet(3, 4, 6, 3), 33, {RELU: 33, CONV: 20}),
    ("MobileNet", mobilenet(), 27, {"ReLU": 22, DEPTHWISE: 4, GLOBAL: 1}),
    ("MobileNetV2", mobilenet_v2(), 52, {"ReLU": 30, NORM: 17, DEPTHWISE: 4, GLOBAL: 1}),
    (
        *("EfficientNetB0", efficientnet_b0(), 49),
        {RELU: 28, CONV: 32, NORM: 16, DEPTHWISE: 4, GLOBAL: 1},
    ),
    ("Xception", XCEPTION, 40, None),
    ("ConvNeXtTiny", CONVNEXT, 19, None),
    pytest.param(
        *("DenseNet121", densenet(6, 12, 24, 16), 59),
        {RELU: 58, CONV: 58, MAX: 1, AVERAGE: 3},
        marks=SLOW,
    ),
    pytest.param("VGG19", VGG19, 0, {CONV: 11, MAX: 5}, marks=SLOW),
    pytest.param(
        *("ResNet101", resnet(3, 4, 23, 3), 104, {RELU: 66, NORM: 37, MAX: 1}), marks=SLOW
    ),
    pytest.param(
        *("ResNet152", resnet(3, 8, 36, 3), 155, {RELU: 100, NORM: 54, MAX: 1}), marks=SLOW
    ),
    pytest.param(
        *("DenseNet169", densenet(6, 12, 32, 32), 83),
        {RELU: 82, CONV: 82, MAX: 1, AVERAGE: 3},
        marks=SLOW,
    ),
    pytest.param(
        *("DenseNet201", densenet(6, 12, 48, 32), 99),
        {RELU: 98, CONV: 98, MAX: 1, AVERAGE: 3},
        marks=SLOW,
    ),
]


@pytest.mark.parametrize(("name", "convolutions", "norms", "places"), NETWORKS)
def test_filters_norms_and_reading_places_are_those_of_the_paper(name, convolutions, norms, places):
    size = 71 if name == "Xception" else 32
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(size, size, 3), classes=4)
    found = find_filter_layers(model)
    layers, filters = convolutions
    assert (len(found.layers), found.watched) == (layers, filters)
    assert not found.out_of_reach
    assert sum(layer.norm is not None for layer in found.layers.values()) == norms
    if places is not None:
        read = [
            type(call.operation).__name__ for of in found.layers.values() for _, call in of.reads
        ]
        assert Counter(read) == places

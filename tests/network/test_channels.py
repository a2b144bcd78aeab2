"""Where channels go, proven on the network itself.

If all outgoing weights of a filter are found, then the network no longer depends on the
filter once they are zero. If no others are found, then a filter whose feature map is zero may have
them zeroed with no effect.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.kernels import filter_mask, filters_of, incoming_kernel
from kerasrestart.network.traced_graph import traced_graph
from kerasrestart.restart.outgoing import outgoing_masks, outgoing_paths

SIZE = 16


def image(channels=3):
    return keras.Input((SIZE, SIZE, channels), name="image")


def conv(filters, name, **settings):
    return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name, **settings)


def flat():
    x = conv(4, "first")(image_in := image())
    x = layers.MaxPooling2D(4)(x)
    x = layers.Dropout(0.5)(conv(6, "second")(x))
    x = layers.Dense(8, activation="relu", name="dense")(layers.Flatten()(x))
    return keras.Model(image_in, layers.Dense(3, name="out")(x))


def reshaped():
    x = conv(4, "first", strides=4)(image_in := image())
    x = layers.Reshape((16, 4))(x)
    x = layers.Reshape((4, 16))(x)
    x = layers.Conv1D(5, 2, name="second")(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.GlobalMaxPooling1D()(x)))


def unet():
    down = conv(4, "down")(image_in := image())
    x = conv(6, "bottom")(layers.AveragePooling2D(2)(down))
    x = layers.Conv2DTranspose(5, 2, strides=2, activation="relu", name="up")(x)
    x = layers.Concatenate()([x, image_in, down])
    x = conv(4, "merge")(x)
    return keras.Model(image_in, layers.Conv2D(2, 1, name="out")(x))


def depthwise():
    x = conv(4, "expand")(image_in := image())
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(x))


def grouped():
    x = conv(8, "first")(image_in := image())
    x = conv(6, "grouped", groups=2)(x)
    x = conv(4, "pointwise")(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.GlobalMaxPooling2D()(x)))


def dense_block():
    x = conv(4, "stem")(image_in := image())
    for name in ("one", "two"):
        grown = conv(3, name)(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Concatenate()([x, grown])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(x))


def nested():
    inside_in = keras.Input((SIZE, SIZE, 4))
    inside = keras.Sequential([inside_in, conv(5, "inner"), layers.MaxPooling2D()])
    outer_in = keras.Input((SIZE, SIZE, 4))
    outer = keras.Model(outer_in, conv(6, "middle")(inside(outer_in)))
    x = outer(conv(4, "outer")(image_in := image()))
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.Flatten()(x)))


def shared():
    twice = conv(4, "twice")
    left, right = twice(image_in := image()), twice(keras.ops.flip(image_in, axis=1))
    x = layers.Concatenate()([left, right])
    x = conv(5, "after")(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.GlobalMaxPooling2D()(x)))


def residual():
    x = conv(4, "stem")(image_in := image())
    y = conv(6, "inner")(x)
    x = layers.Add()([x, conv(4, "last")(y)])
    x = layers.GlobalAveragePooling2D()(conv(5, "after")(x))
    return keras.Model(image_in, layers.Dense(3, name="out")(x))


def two_inputs():
    first, second = image(), keras.Input((6,), name="numbers")
    x = layers.GlobalAveragePooling2D()(conv(4, "look")(first))
    y = layers.Dense(5, activation="relu", name="think")(second)
    z = layers.Dense(6, activation="relu", name="both")(layers.Concatenate()([y, x]))
    return keras.Model(
        [first, second], [layers.Dense(2, name="one")(z), layers.Dense(3, name="two")(z)]
    )


def channels_first(flatten="channels_first"):
    first = {"data_format": "channels_first"}
    x = layers.Conv2D(4, 3, name="first", **first)(image_in := keras.Input((3, SIZE, SIZE)))
    x = layers.ReLU()(layers.BatchNormalization(axis=1)(x))
    x = layers.DepthwiseConv2D(3, name="depthwise", **first)(x)
    y = layers.Conv2D(5, 1, activation="relu", name="second", **first)(x)
    x = layers.AveragePooling2D(4, **first)(layers.Concatenate(axis=1)([y, x]))
    x = layers.Conv2D(4, 2, name="third", **first)(x)
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.Flatten(flatten)(x)))


def flattened_as_it_stands():
    return channels_first(flatten="channels_last")


def channels_first_square():
    """As many positions as channels: the sizes alone do not say which axis is which."""
    first = {"data_format": "channels_first"}
    x = layers.Conv2D(4, 3, strides=8, padding="same", name="first", **first)(
        image_in := keras.Input((3, SIZE, SIZE))
    )
    x = layers.Conv1D(5, 1, name="second", **first)(layers.Reshape((4, 4))(x))
    return keras.Model(image_in, layers.Dense(3, name="out")(layers.Flatten()(x)))


def broadcast(x):
    batch = tf.shape(x)[0]
    x = keras.ops.broadcast_to(x[:, :, None, :, None], (batch, SIZE // 4, 2, SIZE // 4, 2, 6))
    return keras.ops.reshape(x, (-1, SIZE // 2, SIZE // 2, 6))


def repeated():
    """An octave convolution, which up-samples by hand."""
    low = conv(6, "low")(layers.AveragePooling2D(2)(image_in := image()))
    low = conv(6, "lowest")(layers.AveragePooling2D(2)(low))
    x = layers.Concatenate()([layers.Lambda(broadcast)(low), keras.ops.tile(low, (1, 2, 2, 1))])
    x = keras.ops.repeat(keras.ops.repeat(x, 2, axis=1), 2, axis=2)
    x = layers.Concatenate()([conv(4, "high")(image_in), x])
    return keras.Model(image_in, layers.Conv2D(2, 1, name="out")(x))


MODELS = [
    *(flat, reshaped, unet, depthwise, grouped, dense_block, nested, shared),
    *(residual, two_inputs, channels_first, flattened_as_it_stands),
    *(channels_first_square, repeated),
]


def randomize(model, rng):
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.path else (-1, 1)
        variable.assign(rng.uniform(low, high, variable.shape))


def outputs(model, rng_seed=5):
    rng = np.random.default_rng(rng_seed)
    inputs = [rng.normal(size=(4, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    outs = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))
    return np.concatenate([np.ravel(out) for out in outs])


def change(variable, mask, value):
    variable.assign(np.where(mask, value, variable.numpy()))


def masks_of(found, chosen):
    return outgoing_masks(outgoing_paths(ChannelMap(found.graph), found.layers, chosen))


@pytest.fixture(scope="module", params=MODELS, ids=lambda build: build.__name__)
def network(request):
    """A model, its layers with filters, and the names of those whose channels are their own."""
    model = request.param()
    found = find_filter_layers(model, ".*")
    channels = ChannelMap(found.graph)
    names = [n for n, s in found.layers.items() if channels.outgoing(s.layer).obstacle() is None]
    assert names
    return model, found, names


def test_network_without_outgoing_weights_does_not_see_the_filter(network):
    model, found, names = network
    for name in names:
        rng = np.random.default_rng(3)
        randomize(model, rng)
        layer = found.layers[name].layer
        filters = sorted(rng.choice(filters_of(layer), 2, replace=False))
        before = outputs(model)
        for kernel, mask in masks_of(found, {name: filters}):
            change(kernel, mask, 0)
        zeroed = outputs(model)
        assert not np.allclose(before, zeroed), name
        mask = filter_mask(layer, filters)
        change(incoming_kernel(layer), mask, 9.0)
        np.testing.assert_allclose(outputs(model), zeroed, rtol=1e-5, atol=1e-5, err_msg=name)
        # ... and it does see the other filters.
        change(incoming_kernel(layer), ~mask, 9.0)
        assert not np.allclose(outputs(model), zeroed), name


def test_outgoing_weights_of_a_filter_that_gives_zero_are_without_effect(network):
    model, found, names = network
    for name in names:
        randomize(model, np.random.default_rng(4))
        for layer in model._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):  # zero stays zero
                layer.beta.assign(layer.beta * 0)
                layer.moving_mean.assign(layer.moving_mean * 0)
            if isinstance(layer, layers.DepthwiseConv2D):
                layer.bias.assign(layer.bias * 0)
        layer = found.layers[name].layer
        filters = [filters_of(layer) - 1]
        change(incoming_kernel(layer), filter_mask(layer, filters), 0)
        layer.bias.assign(np.where(np.arange(filters_of(layer)) == filters[0], 0, layer.bias))
        before = outputs(model)
        masks = masks_of(found, {name: filters})
        assert masks, name
        for kernel, mask in masks:
            change(kernel, mask, 0)
        np.testing.assert_allclose(outputs(model), before, rtol=1e-5, atol=1e-6, err_msg=name)


def path_of(model, name, filters=None):
    found = find_filter_layers(model, ".*")
    return ChannelMap(found.graph).path(found.layers[name].layer, filters)


def test_channels_are_followed_through_a_depthwise_convolution():
    found = find_filter_layers(depthwise(), ".*")
    channels, layer = ChannelMap(found.graph), found.layers["expand"].layer
    assert [r.layer.name for r in channels.path(layer, [1]).readers] == ["depthwise"]
    path = channels.outgoing(layer, [1])
    # With a multiplier of two, channel 1 makes channels 2 and 3.
    assert [(r.layer.name, r.channels) for r in path.readers] == [("separable", (2, 3))]
    assert [r.channels for r in path.norms] == [(2, 3)]
    assert path.obstacle() is None


def test_convolution_with_a_group_for_each_channel_is_followed_through():
    x = conv(4, "first")(image_in := image())
    x = conv(8, "alone", groups=4)(x)
    model = keras.Model(image_in, layers.Conv2D(2, 1, name="out")(x))
    found = find_filter_layers(model, ".*")
    path = ChannelMap(found.graph).outgoing(found.layers["first"].layer, [2])
    assert [(r.layer.name, r.channels) for r in path.readers] == [("out", (4, 5))]


def test_depthwise_filter_of_zeros_stands_between_and_is_not_followed():
    model = depthwise()
    layer = model.get_layer("depthwise")
    change(layer.kernel, filter_mask(layer, [2, 3]), 0)
    found = find_filter_layers(model, ".*")
    assert masks_of(found, {"expand": [1]}) == []
    (_, of_two), (_, of_both) = (
        masks_of(found, {"expand": [1, 2]})[0],
        masks_of(found, {"expand": [1], "depthwise": [3]})[0],
    )
    assert np.flatnonzero(of_two).tolist() == [4, 5]
    assert np.flatnonzero(of_both).tolist() == [3]


def test_layer_that_reads_two_filters_by_one_weight_makes_them_one():
    one, two = conv(4, "one")(image_in := image()), conv(4, "two")(image_in)
    again = conv(5, "again")
    x = layers.Concatenate()([again(one), again(two)])
    model = keras.Model(image_in, layers.Conv2D(2, 1, name="out")(x))
    assert path_of(model, "one").shared_with == ("two",)
    assert path_of(model, "again").obstacle() is None


def test_weights_that_cannot_grow_are_not_set_to_zero():
    model = flat()
    model.get_layer("dense").trainable = False
    assert path_of(model, "second").obstacle() == "its channels are read by dense, of fixed weights"


def test_channels_of_a_residual_sum_are_shared():
    model = residual()
    assert path_of(model, "stem").shared_with == ("last",)
    assert path_of(model, "last").shared_with == ("stem",)
    assert path_of(model, "inner").obstacle() is None
    found = find_filter_layers(model)
    with pytest.raises(ValueError, match="'last' cannot be set to zero: its channels are shared"):
        masks_of(found, {"last": [0]})


def test_channels_added_to_an_input_are_shared_with_it():
    x = layers.Add()([image_in := image(), conv(3, "first")(image_in)])
    model = keras.Model(image_in, layers.Dense(2, name="out")(layers.Flatten()(x)))
    assert path_of(model, "first").obstacle() == "its channels are shared with an input"


def beside_others(x):
    return layers.ReLU()(layers.Concatenate()([x, layers.Conv2D(2, 1)(x)]))


@pytest.mark.parametrize("wrap", [layers.Identity(), beside_others])
def test_channels_added_to_what_is_not_followed_are_shared_with_that_operation(wrap):
    one, two = conv(4, "one")(image_in := image()), conv(4, "two")(image_in)
    x = layers.Add()([wrap(one), wrap(keras.ops.flip(keras.ops.cumsum(two, -1), -1))])
    model = keras.Model(image_in, layers.Dense(2, name="out")(layers.Flatten()(x)))
    assert path_of(model, "one").obstacle() == "its channels are shared with TensorFlow's Cumsum"
    assert path_of(model, "two").obstacle() == "its channels go into TensorFlow's Cumsum"


def test_one_weight_that_reads_a_filter_and_what_is_not_followed_names_that():
    one, two = conv(4, "one")(image_in := image()), conv(4, "two")(image_in)
    again = conv(5, "again")
    x = layers.Concatenate()([again(one), again(keras.ops.cumsum(two, -1))])
    model = keras.Model(image_in, layers.Conv2D(2, 1, name="out")(x))
    assert path_of(model, "one").shared_with == ("TensorFlow's Cumsum",)


def test_channels_of_a_squeezed_excitation_are_shared_with_its_gate():
    x = conv(4, "features")(image_in := image())
    gate = layers.Dense(4, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)])
    model = keras.Model(image_in, layers.Dense(2, name="out")(layers.GlobalMaxPooling2D()(x)))
    assert path_of(model, "features").shared_with == ("gate",)


@pytest.mark.parametrize(
    ("mix", "where"),
    [
        (lambda: layers.LayerNormalization(name="mixer"), "mixer"),
        (lambda: layers.Softmax(name="mixer"), "mixer"),
        (lambda: layers.Activation("softmax", name="mixer"), "mixer"),
        (lambda: layers.Permute((3, 1, 2), name="mixer"), "mixer"),
        (lambda: layers.Reshape((SIZE, SIZE, 2, 2), name="mixer"), "mixer"),
        (lambda: layers.MaxPooling2D(2, data_format="channels_first", name="mixer"), "mixer"),
        (lambda: layers.BatchNormalization(axis=1, name="mixer"), "mixer"),
        (lambda: layers.Conv2D(4, 1, data_format="channels_first", name="mixer"), "mixer"),
        (lambda: layers.Flatten(data_format="channels_first", name="mixer"), "mixer"),
        (lambda: layers.Lambda(lambda x: keras.ops.roll(x, 1, -1), name="mixer"), "mixer"),
    ],
)
def test_channels_that_are_mixed_in_other_ways_are_not_followed(mix, where):
    x = mix()(conv(4, "first")(image_in := image()))
    model = keras.Model(image_in, layers.Dense(2, name="out")(layers.Flatten()(x)))
    path = path_of(model, "first")
    assert (path.readers, path.escapes) == ((), (where,))


@pytest.mark.parametrize(
    ("reshape", "where"),
    [
        (layers.Reshape((4, 4)), "reader"),  # it reads positions as channels
        (lambda x: keras.ops.reshape(x, (-1, 4)), "a reshape"),  # makes examples of channels
    ],
)
def test_positions_of_a_map_with_channels_first_are_not_taken_for_channels(reshape, where):
    image_in = keras.Input((3, SIZE, SIZE))
    x = layers.Conv2D(4, 8, strides=8, name="first", data_format="channels_first")(image_in)
    x = layers.Dense(5, name="reader")(reshape(x))
    model = keras.Model(image_in, layers.Dense(2, name="out")(layers.Flatten()(x)))
    path = path_of(model, "first")
    assert (path.readers, path.escapes) == ((), (where,))


def test_channels_that_are_reversed_are_followed_to_their_new_places():
    x = conv(4, "first")(image_in := image())
    x = layers.GlobalMaxPooling2D()(layers.Lambda(lambda x: x[..., ::-1])(x))
    path = path_of(keras.Model(image_in, layers.Dense(2, name="out")(x)), "first", [0, 1])
    assert [(reading.name, reading.channels) for reading in path.readers] == [("out", (2, 3))]


def test_channels_that_are_an_output_too_escape():
    x = conv(4, "first")(image_in := image())
    hidden = layers.Dense(5, name="hidden")(x)
    model = keras.Model(image_in, [hidden, layers.Dense(2, name="out")(hidden)])
    graph = traced_graph(model)
    path = ChannelMap(graph).path(model.get_layer("hidden"))
    assert path.escapes == ("an output",)


@pytest.mark.parametrize(
    ("application", "name", "readers"),
    [
        ("DenseNet121", "conv2_block1_2_conv", {"conv2_block2_1_conv": 64, "pool2_conv": 64}),
        ("MobileNetV2", "block_1_depthwise", {"block_1_project": 0}),
        ("ResNet50", "conv2_block1_1_conv", {"conv2_block1_2_conv": 0}),
        ("VGG16", "block5_conv3", {"fc1": 0}),
    ],
)
def test_well_known_networks(application, name, readers):
    model = getattr(keras.applications, application)(
        weights=None, input_shape=(64, 64, 3), classes=10
    )
    path = path_of(model, name, [0])
    assert path.obstacle() is None
    first = {reading.layer.name: reading.channels[0] for reading in path.readers}
    assert first.items() >= readers.items()

"""Which layers have filters to restart, and where each is read."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.network.describe import describe
from kerasrestart.network.filter_layers import find_filter_layers


def model_of(*body, head=True):
    model = keras.Sequential([keras.Input((8, 8, 2)), *body])
    if head:
        model.add(layers.Flatten())
        model.add(layers.Dense(3))
    return model


def conv(name="conv", filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)


def read_of(model, name="conv"):
    """The name of the layer whose output is read, for the one use of a layer."""
    ((own, read),) = find_filter_layers(model).layers[name].reads
    assert own.operation is find_filter_layers(model).layers[name].layer
    return read.operation.name


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (lambda: [conv()], "conv"),
        (lambda: [conv(), layers.ReLU(name="relu")], "relu"),
        (lambda: [conv(), layers.MaxPooling2D(name="pool")], "pool"),
        (lambda: [conv(), layers.MaxPooling2D(data_format="channels_first")], "conv"),
        (lambda: [conv(), layers.Dropout(0.1)], "conv"),
        (lambda: [conv(), layers.Dropout(0.1), layers.MaxPooling2D(name="pool")], "pool"),
        (lambda: [conv(), layers.UpSampling2D(2)], "conv"),
        (
            lambda: [conv(), layers.BatchNormalization(), layers.Activation("elu", name="elu")],
            "elu",
        ),
        (lambda: [conv(activation="relu"), layers.BatchNormalization(name="norm")], "norm"),
        (
            lambda: [conv(activation="elu"), layers.Activation("tanh"), layers.MaxPooling2D()],
            "conv",
        ),
        (
            lambda: [
                conv(),
                layers.MaxPooling2D(),
                layers.Activation("tanh", name="tanh"),
                layers.GlobalMaxPooling2D(name="global"),
            ],
            "global",
        ),
        (lambda: [conv(), layers.LayerNormalization(), layers.ReLU(name="relu")], "relu"),
        (lambda: [conv(), layers.GroupNormalization(2), layers.ReLU(name="relu")], "relu"),
        (lambda: [conv(), layers.LayerNormalization([1, 2, 3]), layers.ReLU(name="relu")], "relu"),
    ],
)
def test_filter_is_read_after_its_activation_on_the_fewest_elements(body, place):
    assert read_of(model_of(*body())) == place


def test_nothing_is_read_behind_a_second_reader():
    image = keras.Input((8, 8, 2))
    x = conv(activation="relu")(image)
    pooled = layers.MaxPooling2D(name="pool")(x)
    both = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(pooled)])
    assert read_of(keras.Model(image, layers.Dense(3)(both))) == "conv"


def test_nothing_is_read_behind_an_output_of_the_model():
    image = keras.Input((8, 8, 2))
    inner = conv("inner")(image)
    x = conv()(inner)
    x = layers.ReLU(name="relu")(x)
    out = layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D(name="pool")(x)))
    model = keras.Model(image, [out, inner])
    assert list(find_filter_layers(model).layers) == ["conv"]
    assert read_of(model) == "pool"


def test_layers_that_cannot_or_must_not_be_restarted_are_left_out():
    model = model_of(
        conv("frozen", trainable=False),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.SeparableConv2D(4, 3, name="separable"),
        conv("kept"),
        layers.Conv2DTranspose(4, 3, name="transposed"),
        layers.Dense(5, name="units"),
    )
    found = find_filter_layers(model)
    assert list(found.layers) == ["depthwise", "separable", "kept", "transposed"]
    out = model.layers[-1].name
    assert list(found.left_out) == ["frozen", "units", out]
    assert found.left_out["frozen"] == "is not trainable"
    assert "output" in found.left_out[out]
    assert "units" in find_filter_layers(model, ".*").layers
    assert list(find_filter_layers(model, ["kept"]).layers) == ["kept"]
    with pytest.raises(ValueError, match="makes an output"):
        find_filter_layers(model, ["kept", out])
    with pytest.raises(ValueError, match=r"layers must be some of .* Received: 'nowhere'"):
        find_filter_layers(model, ["nowhere"])


def test_layers_of_a_frozen_nested_model_are_left_out():
    block = keras.Sequential([keras.Input((8, 8, 2)), conv("inner")])
    block.trainable = False
    assert list(find_filter_layers(model_of(block, conv("outer"))).layers) == ["outer"]


@pytest.mark.parametrize(
    "tail",
    [
        lambda: [],
        lambda: [layers.GlobalAveragePooling2D(), layers.Softmax()],
        lambda: [layers.BatchNormalization(), layers.Activation("sigmoid")],
        lambda: [layers.Reshape((-1,)), layers.Activation("linear")],
    ],
)
def test_convolution_that_makes_the_output_is_left_out(tail):
    model = model_of(conv("body"), conv("head"), *tail(), head=False)
    assert list(find_filter_layers(model).layers) == ["body"]


def test_shared_convolution_that_makes_the_output_in_one_of_its_uses_is_left_out():
    image = keras.Input((8, 8, 2))
    shared = conv("shared", filters=2)
    model = keras.Model(image, shared(shared(conv("body", filters=2)(image))))
    assert list(find_filter_layers(model).layers) == ["body"]


def test_norm_behind_a_convolution_belongs_to_it():
    norm = layers.BatchNormalization()
    assert find_filter_layers(model_of(conv(), norm)).layers["conv"].norm is norm
    norm = layers.BatchNormalization()
    assert find_filter_layers(model_of(conv(), layers.ReLU(), norm)).layers["conv"].norm is norm


def test_activation_made_by_an_operation_counts_as_one():
    image = keras.Input((8, 8, 2))
    x = layers.BatchNormalization()(conv()(image))
    x = layers.MaxPooling2D(name="pool")(keras.ops.silu(x))
    assert read_of(keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))) == "pool"


def test_norm_is_found_behind_an_activation_made_by_an_operation():
    image = keras.Input((8, 8, 2))
    norm = layers.BatchNormalization()
    x = norm(keras.ops.relu(conv()(image)))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    assert find_filter_layers(model).layers["conv"].norm is norm


def test_norm_of_a_branch_alone_does_not_belong_to_the_convolution():
    image = keras.Input((8, 8, 2))
    x = conv()(image)
    both = layers.Add()([x, layers.BatchNormalization()(x)])
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(both)))
    assert find_filter_layers(model).layers["conv"].norm is None


def test_norm_after_a_sum_does_not_belong_to_the_convolution():
    image = keras.Input((8, 8, 2))
    both = layers.Add()([conv("left")(image), conv("right")(image)])
    x = layers.BatchNormalization()(both)
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    assert [filter_layer.norm for filter_layer in find_filter_layers(model).layers.values()] == [
        None,
        None,
    ]


def test_norm_of_another_axis_does_not_belong_to_the_convolution():
    # 8 rows and 8 filters: the shape of its weights alone does not tell.
    model = model_of(conv(filters=8), layers.BatchNormalization(axis=1))
    assert find_filter_layers(model).layers["conv"].norm is None


def test_norm_that_two_convolutions_share_belongs_to_neither():
    image = keras.Input((8, 8, 2))
    norm = layers.BatchNormalization()
    both = layers.Add()([norm(conv("left")(image)), norm(conv("right")(image))])
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(both)))
    assert [filter_layer.norm for filter_layer in find_filter_layers(model).layers.values()] == [
        None,
        None,
    ]


def test_norms_of_the_uses_of_a_shared_convolution_belong_to_none():
    image = keras.Input((8, 8, 2))
    shared = conv("shared", filters=2)
    x = layers.BatchNormalization()(shared(image))
    x = layers.BatchNormalization()(shared(x))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    (filter_layer,) = find_filter_layers(model).layers.values()
    assert filter_layer.norm is None
    assert [read.operation.name for _, read in filter_layer.reads] == [
        layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)
    ]


def test_filters_lie_on_the_axis_before_the_last_of_a_transposed_kernel():
    filter_layers = find_filter_layers(
        model_of(conv(), layers.Conv2DTranspose(5, 3, name="transposed"))
    ).layers
    for filter_layer in filter_layers.values():
        assert filter_layer.layer.kernel.shape[filter_layer.filter_axis] == filter_layer.filters
    assert [filter_layer.filter_axis for filter_layer in filter_layers.values()] == [-1, -2]


def test_two_layers_of_one_name_have_their_paths_for_keys():
    left = keras.Sequential([keras.Input((8, 8, 2)), conv("same")], name="left")
    right = keras.Sequential([keras.Input((8, 8, 4)), conv("same")], name="right")
    found = find_filter_layers(model_of(left, right, conv("own")))
    assert list(found.layers) == ["left/same", "right/same", "own"]
    assert [found.layers[key].name for key in found.layers] == list(found.layers)
    assert found.layers["right/same"].layer is right.layers[0]
    (only,) = find_filter_layers(model_of(left, right), ["right/same"]).layers.values()
    assert only.layer is right.layers[0]
    assert list(find_filter_layers(model_of(left, right), "left/.*").layers) == ["left/same"]


def test_model_that_is_not_built_says_what_to_pass():
    model = keras.Sequential([conv(), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(TypeError, match=r"describe\(model, x\).* not built") as error:
        find_filter_layers(model)
    assert "\n" not in str(error.value)
    assert list(find_filter_layers(model, x=np.zeros((2, 8, 8, 2))).layers) == ["conv"]
    assert model.built


@pytest.mark.parametrize("model", [None, layers.Dense(2), keras.Model, "model"])
def test_what_is_no_model_is_refused_in_one_line(model):
    with pytest.raises(TypeError, match="model must be a Keras 3 model") as error:
        find_filter_layers(model)
    assert "\n" not in str(error.value)


def test_model_without_filters_is_refused():
    with pytest.raises(ValueError, match="no filters"):
        find_filter_layers(model_of())


def test_dense_layers_of_one_name_are_different_layers():
    base = keras.Sequential(
        [keras.Input((8, 8, 2)), conv(), layers.Flatten(), layers.Dense(5, name="dense")],
        name="base",
    )
    model = keras.Sequential([keras.Input((8, 8, 2)), base, layers.Dense(3, name="dense")])
    assert list(find_filter_layers(model).layers) == ["conv"]
    found = find_filter_layers(model, ".*")
    assert list(found.layers) == ["conv", "base/dense"]
    assert found.layers["base/dense"].layer is base.layers[-1]
    lines = [line.split() for line in describe(model, layers=".*").splitlines() if "Dense" in line]
    assert [line[:3] for line in lines] == [["base/dense", "Dense", "5"], ["dense", "Dense", "3"]]
    assert ["left" in line for line in lines] == [False, True]


@pytest.mark.parametrize(
    "activation", [functools.partial(keras.ops.leaky_relu, negative_slope=0.1), lambda x: 2 * x]
)
def test_an_activation_that_keras_cannot_serialize_is_one_all_the_same(activation):
    model = model_of(layers.Conv2D(4, 3, activation=activation, name="conv"), layers.ReLU())
    (filter_layer,) = find_filter_layers(model).layers.values()
    assert filter_layer.activations[0].operation is filter_layer.layer


def test_another_backend_is_refused_in_one_line(monkeypatch):
    model = model_of(layers.Dense(2))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(
        ValueError, match=r"KERAS_BACKEND must be 'tensorflow', .*Received: 'torch'$"
    ):
        describe(model)


class MeanFree(layers.Conv2D):
    """Its kernel is computed from a variable."""

    @property
    def kernel(self):
        return self._kernel - keras.ops.mean(self._kernel, axis=(0, 1, 2), keepdims=True)


def test_a_layer_whose_kernel_is_computed_is_left_out():
    model = model_of(conv("plain"), MeanFree(3, 3, name="computed"))
    found = find_filter_layers(model)
    assert list(found.layers) == ["plain"]
    assert found.left_out["computed"] == "has a kernel that is computed from other weights"
    assert "its channels go into computed" in describe(model)


@pytest.mark.parametrize("function", [tf.nn.softmax, keras.activations.softmax, tf.nn.log_softmax])
def test_a_layer_whose_activation_function_mixes_filters_is_left_out(function):
    found = find_filter_layers(model_of(conv("mixing", activation=function), conv("plain")))
    assert list(found.layers) == ["plain"]
    assert "has an activation function that may mix filters" in str(
        describe(model_of(conv("mixing", activation=function), conv("plain")))
    )

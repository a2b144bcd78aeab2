"""Layers that keep weights of their own and apply them by raw operations."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.operation_words import words_of


class Linear(layers.Layer):
    """The layer of Keras's guide, with a product of the reader's choice."""

    def __init__(self, units, product=tf.matmul, **options):
        super().__init__(**options)
        self.units, self.product = units, product

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), initializer="random_normal")
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal")

    def call(self, x):
        return self.product(x, self.w) + self.b


class Convolution(layers.Layer):
    """A convolution that is not a Keras layer."""

    def __init__(self, filters, apply, trainable=True, **options):
        super().__init__(**options)
        self.filters, self.apply, self.learns = filters, apply, trainable

    def build(self, shape):
        self.k = self.add_weight(shape=(3, 3, shape[-1], self.filters), trainable=self.learns)

    def call(self, x):
        return self.apply(x, self.k)


def cosine(x, w):
    return tf.matmul(tf.math.l2_normalize(x, -1), tf.math.l2_normalize(w, 0))


def angular_margin(x, w):
    return 16 * tf.cos(tf.acos(tf.clip_by_value(cosine(x, w), -0.99, 0.99)) + 0.5)


def distances(x, w):
    return tf.reduce_sum((x[:, :, None] - w) ** 2, axis=1)


def standardized(x, kernel):
    kernel -= tf.reduce_mean(kernel, [0, 1, 2])
    return tf.nn.conv2d(x, kernel / tf.math.reduce_std(kernel, [0, 1, 2]), 1, "SAME")


def modulated(x, kernel):
    """As in StyleGAN2: a style scales the input, and its effect on the variance is divided out."""
    style = 1 + tf.reduce_mean(x, [1, 2])
    norm = tf.reduce_sum((kernel[None] * style[:, None, None, :, None]) ** 2, [1, 2, 3])
    x = tf.nn.conv2d(x * style[:, None, None], kernel, 1, "SAME")
    return x * tf.math.rsqrt(norm + 1e-8)[:, None, None]


def network(*tail):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="first"),
            layers.Conv2D(5, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="pooled"),
            *tail,
        ]
    )


@pytest.mark.parametrize(
    "product",
    [
        tf.matmul,
        lambda x, w: tf.tensordot(x, w, 1),
        lambda x, w: tf.einsum("bi,ij->bj", x, w),
        lambda x, w: tf.matmul(w, x[:, :, None], transpose_a=True)[..., 0],
        cosine,
        angular_margin,
        distances,
    ],
)
def test_a_convolution_before_a_head_of_weights_of_its_own_is_watched(product):
    found = find_filter_layers(network(Linear(3, product, name="head"), layers.Softmax()))
    assert list(found.layers) == ["first", "second"]
    assert found.left_out == {"head": "makes an output of the model"}
    assert found.coverage() == "Watching 9 of 9 filters in 2 layers"


@pytest.mark.parametrize(
    "tail",
    [
        lambda x: x * tf.Variable([1.0, 2, 3, 4, 5]) + tf.Variable(1.0),
        lambda x: tf.matmul(x[:, :, None], x[:, None, :]),
        lambda x: tf.matmul(x, tf.ones((5, 3))),
        lambda x: tf.matmul(x, tf.random.normal((5, 3))),
    ],
)
def test_a_scale_or_a_product_without_weights_leaves_the_output_to_the_convolution(tail):
    class Tail(layers.Layer):
        made = None

        def call(self, x):
            return tail(x)

    found = find_filter_layers(network(Tail()))
    assert found.left_out == {"second": "makes an output of the model"}


def test_scores_before_a_head_of_weights_of_its_own_are_those_before_a_dense_layer(images):
    x, y = images
    scores = []
    for head in (Linear(3, name="head"), layers.Dense(3, name="head")):
        keras.utils.set_random_seed(0)
        model = network(head)
        model.layers[-1].set_weights([np.eye(5, 3), np.arange(3.0)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        scores.append(kr.score_filters(model, x, y))
    assert scores[0].keys() == scores[1].keys() == {"first", "second"}
    for key, expected in scores[1].items():
        np.testing.assert_allclose(scores[0][key], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("apply", "filters"),
    [
        (lambda x, k: keras.ops.conv(x, k, padding="same"), 6),
        (standardized, 6),
        (modulated, 6),
        (lambda x, k: tf.nn.depthwise_conv2d(x, k, [1] * 4, "SAME"), 4 * 6),
    ],
)
def test_a_convolution_that_is_not_a_keras_layer_is_named_and_counted_as_out_of_reach(
    apply, filters
):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="first"),
            Convolution(6, apply, name="own"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    reason = (
        "has a kernel of its own: it is watched if a Keras convolution, or a subclass, holds it"
    )
    found = find_filter_layers(model)
    assert found.coverage() == (
        f"Watching 4 of {4 + filters} filters in 1 layer; {filters} out of reach: own ({reason})"
    )
    lines = [line.strip() for line in kr.describe(model).splitlines()]
    place = next(i for i, line in enumerate(lines) if line.startswith("own "))
    assert lines[place].split() == ["own", "Convolution", str(filters)]
    assert lines[place + 1] == f"left out: {reason}"


class Mixed(layers.Layer):
    """A conditionally parametrized convolution: 3 experts of 6 filters, mixed for each example."""

    def __init__(self, mix, apply, **options):
        super().__init__(**options)
        self.mix, self.apply = mix, apply

    def build(self, shape):
        self.router = Linear(3, name="router")
        self.router.build(shape)
        self.experts = self.add_weight(shape=(3, 3, 3, shape[-1], 6))

    def call(self, x):
        weights = tf.sigmoid(self.router(tf.reduce_mean(x, [1, 2])))
        return self.apply(x, self.mix(weights, tf.convert_to_tensor(self.experts)))


def product_of_matrices(weights, experts):
    shape = [-1, *experts.shape[1:]]
    return tf.reshape(tf.matmul(weights, tf.reshape(experts, (3, -1))), shape)


def sum_of_products(weights, experts):
    return tf.add_n([weights[:, i, None, None, None, None] * experts[i] for i in range(3)])


def one_by_one(x, kernels):
    def convolve(both):
        return tf.nn.conv2d(both[0][None], both[1], 1, "SAME")[0]

    return tf.map_fn(convolve, (x, kernels), fn_output_signature=tf.float32)


def in_one_vectorized_map(x, kernels):
    return tf.vectorized_map(
        lambda of: tf.nn.conv2d(of[0][None], of[1], 1, "SAME")[0], (x, kernels)
    )


def in_groups(x, kernels):
    batch, (size, channels, filters) = tf.shape(x)[0], (x.shape[1], x.shape[3], kernels.shape[-1])
    x = tf.reshape(tf.transpose(x, (1, 2, 0, 3)), (1, size, size, batch * channels))
    kernels = tf.transpose(kernels, (1, 2, 3, 0, 4))
    kernels = tf.reshape(kernels, (3, 3, channels, batch * filters))
    y = tf.nn.conv2d(x, kernels, 1, "SAME")
    return tf.transpose(tf.reshape(y, (size, size, batch, filters)), (2, 0, 1, 3))


@pytest.mark.parametrize("apply", [one_by_one, in_one_vectorized_map, in_groups])
@pytest.mark.parametrize(
    "mix",
    [
        product_of_matrices,
        sum_of_products,
        lambda weights, experts: tf.einsum("bn,nhwcf->bhwcf", weights, experts),
        lambda weights, experts: tf.tensordot(weights, experts, 1) * 2.0,
    ],
)
def test_experts_of_a_convolution_are_counted_as_filters_also_where_the_data_mix_them(mix, apply):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="first"),
            Mixed(mix, apply, name="mixed"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    found = find_filter_layers(model)
    assert found.coverage() == (
        "Watching 4 of 22 filters in 1 layer; 18 out of reach: mixed (mixes kernels by the data, "
        "so that each example has other filters)"
    )
    # The router is a dense layer, and its kernel that of a matrix product.
    assert find_filter_layers(model, ".*").out_of_reach == {"router": 3, "mixed": 18}
    assert (
        find_filter_layers(model, ".*")
        .left_out["router"]
        .endswith("Dense layer, or a subclass, holds it")
    )


def in_a_loop(x, kernel):
    kernel = tf.convert_to_tensor(kernel)
    return tf.map_fn(lambda row: tf.nn.conv2d(row[None], kernel, 1, "SAME")[0], x)


def in_a_function(x, kernel):
    return tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"))(x)


def in_a_condition(x, kernel):
    return tf.cond(
        tf.reduce_sum(x) > 0, lambda: 0.0 * x, lambda: tf.nn.conv2d(x, kernel, 1, "SAME")
    )


@pytest.mark.parametrize(
    ("apply", "within"),
    [
        (in_a_loop, "a loop"),
        (in_a_condition, "a condition"),
        (in_a_function, "a function"),
    ],
)
def test_a_kernel_that_is_applied_out_of_sight_is_counted_as_out_of_reach(apply, within):
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), Convolution(4, apply, name="own")]
    )
    model.add(layers.Flatten())
    model.add(layers.Dense(2))
    found = find_filter_layers(model)
    assert found.out_of_reach == {"own": 4}
    assert found.left_out["own"] == f"has a kernel of its own within {within}"


class ConvolvesItself(keras.Model):
    def __init__(self):
        super().__init__(name="itself")
        self.first, self.out = layers.Conv2D(4, 3, name="first"), layers.Dense(2, name="out")
        self.kernel = self.add_weight(shape=(3, 3, 4, 8))

    def call(self, x):
        x = tf.nn.relu(tf.nn.conv2d(self.first(x), self.kernel, 1, "VALID"))
        return self.out(tf.reduce_mean(x, [1, 2]))


def test_a_kernel_that_the_model_applies_itself_is_named_and_counted():
    found = find_filter_layers(ConvolvesItself(), x=np.zeros((2, 8, 8, 3), "float32"))
    assert found.coverage().startswith(
        "Watching 4 of 12 filters in 1 layer; 8 out of reach: itself"
    )


class Positions(layers.Layer):
    """A patch embedding, as of a vision transformer."""

    def build(self, shape):
        self.positions = self.add_weight(shape=(1, 4, shape[-1]))

    def call(self, x):
        return tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]]) + self.positions


def test_a_weight_for_each_position_is_not_a_kernel():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 4, 4, name="patches"),
            Positions(),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    assert find_filter_layers(model, ".*").left_out == {"out": "makes an output of the model"}


def test_a_kernel_that_never_trains_is_not_listed():
    blur = Convolution(2, standardized, trainable=False, name="blur")
    found = find_filter_layers(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, name="first"),
                blur,
                layers.Flatten(),
                layers.Dense(2, name="out"),
            ]
        )
    )
    assert list(found.layers) == ["first"]
    assert list(found.left_out) == ["out"]


def test_units_that_are_not_a_keras_layer_are_out_of_reach_where_dense_layers_are_chosen():
    model = network(Linear(7, name="hidden"), layers.ReLU(), layers.Dense(2, name="out"))
    reason = (
        "has a kernel of its own: it is watched if a Keras Dense layer, or a subclass, holds it"
    )
    found = find_filter_layers(model, ".*")
    assert (found.out_of_reach, found.left_out["hidden"]) == ({"hidden": 7}, reason)
    assert find_filter_layers(model).out_of_reach == {}


def test_two_layers_of_one_name_with_kernels_of_their_own_have_keys_of_their_own():
    left, right = (
        keras.Sequential(
            [keras.Input((8, 8, 2)), Convolution(2, standardized, name="own")], name=name
        )
        for name in ("left", "right")
    )
    model = keras.Sequential([keras.Input((8, 8, 2)), left, right, *network().layers[:2]])
    model.add(layers.Dense(2))
    assert find_filter_layers(model).out_of_reach == {"left/own": 2, "right/own": 2}


class Tied(layers.Layer):
    """Applies the kernel of another layer."""

    def __init__(self, of, apply, **options):
        super().__init__(**options)
        self.of, self.apply = of, apply

    def call(self, x):
        return self.apply(x, self.of.kernel)


def convolved_back(x, kernel):
    return tf.nn.conv2d_transpose(x, kernel, (tf.shape(x)[0], 8, 8, 2), 1, "SAME")


def tied_convolutions():
    image = keras.Input((8, 8, 2))
    encoder = layers.Conv2D(4, 3, padding="same", activation="relu", name="encoder")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="middle")(encoder(image))
    x = layers.Conv2D(4, 3, padding="same", name="last")(x)
    x = Tied(encoder, convolved_back, name="decoder")(x)
    return keras.Model(image, layers.Conv2D(1, 1, name="out")(x))


def tied_units():
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="second")(layers.Conv2D(4, 3, name="first")(image))
    x = layers.GlobalAveragePooling2D()(x)
    encoder = layers.Dense(6, activation="relu", name="encoder")
    x = layers.Dense(6, name="middle")(encoder(x))
    x = Tied(encoder, lambda x, w: tf.matmul(x, w, transpose_b=True), name="decoder")(x)
    return keras.Model(image, layers.Dense(2, name="out")(x))


@pytest.mark.parametrize(
    ("build", "layer", "reader"),
    [
        (tied_convolutions, "encoder", "a transposed convolution in decoder"),
        (tied_units, "encoder", "a matrix product in decoder"),
        (tied_units, "second", "a matrix product in decoder"),  # it is read by the encoder
    ],
)
def test_weights_that_something_else_reads_are_not_set_to_zero(build, layer, reader):
    with pytest.raises(
        ValueError, match=f"'{layer}' cannot .*: the weights of encoder are also read by {reader}"
    ):
        kr.restart_filters(build(), {layer: [1]}, outgoing="zero")


def test_weights_between_tied_ones_are_set_to_zero():
    model = tied_convolutions()
    kr.restart_filters(model, {"middle": [1]}, outgoing="zero")
    assert not model.get_layer("last").kernel.numpy()[:, :, 1].any()


def test_what_applies_a_kernel_beside_its_layer_is_named_whatever_else_is_said():
    image = keras.Input((8, 8, 4))
    first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")
    x = Tied(first, lambda x, w: keras.ops.conv(x, w, padding="same"), name="again")(first(image))
    description = kr.describe(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    assert "its channels go into a convolution in again" in description
    assert "the weights of first are also read by a convolution in again" in description


def test_two_layers_that_share_a_kernel_read_it_both():
    class Shared(layers.Conv2D):
        def build(self, shape):
            super().build(shape)
            self._kernel = first.kernel

    first = layers.Conv2D(4, 3, padding="same", name="first")
    model = keras.Sequential(
        [
            *(keras.Input((8, 8, 4)), first, Shared(4, 3, padding="same", name="second")),
            *(layers.Flatten(), layers.Dense(2, name="out")),
        ]
    )
    found = find_filter_layers(model)
    assert found.channels.outgoing(first).shared_weights == (
        "the weights of first are also read by second",
        "the weights of second are also read by first",
    )


def test_words_for_operations():
    assert words_of("Relu+Pow+Square") == "ReLU and a power"
    assert words_of("LeakyReluGrad") == "a gradient"
    assert words_of("SpaceToDepth") == "TensorFlow's SpaceToDepth"


class NormalizesKernel(layers.Wrapper):
    """Weight normalization: applies the kernel of a Keras convolution that it holds."""

    def build(self, shape):
        self.layer.build(shape)
        self.scale = self.add_weight(shape=(self.layer.filters,), initializer="ones")

    def call(self, x):
        kernel = tf.math.l2_normalize(self.layer.kernel, [0, 1, 2]) * self.scale
        return tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + self.layer.bias)


def test_filters_whose_kernel_a_wrapper_applies_itself_are_counted_once():
    wrapper = NormalizesKernel(layers.Conv2D(5, 3, name="inner"), name="wrapper")
    image = keras.Input((8, 8, 2))
    x = wrapper(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    assert find_filter_layers(model).coverage() == (
        "Watching 4 of 9 filters in 1 layer; 5 out of reach: wrapper (applies the kernel of inner "
        "by operations of its own)"
    )


@pytest.mark.parametrize("whole", [False, True])
def test_a_quantized_layer_reads_channels_as_a_frozen_one_does(whole):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    out = layers.Dense(3, name="out")
    model = keras.Model(image, out(layers.Flatten()(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convolutions have no quantized form
        (model if whole else out).quantize("int8")
    found = find_filter_layers(model)
    assert list(found.layers) == ["conv"]
    assert found.left_out == {"out": "makes an output of the model"}
    (reader,) = found.channels.path(model.get_layer("conv")).readers
    assert reader.layer is out

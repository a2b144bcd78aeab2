"""Scores are read after a custom norm as after those of Keras; a gate is not a norm."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, weight
from keras import layers, ops

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers


class Affine(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], name="gamma")
        self.beta = self.add_weight(shape=shape[-1:], name="beta")


class ScaleAndShift(Affine):
    def call(self, x):
        return x * self.gamma + self.beta


class InstanceNorm(Affine):
    def call(self, x):
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.beta.value, self.gamma.value, 1e-3)


class FilterResponseNorm(Affine):
    """Its epsilon is learned."""

    def build(self, shape):
        super().build(shape)
        self.epsilon = self.add_weight(shape=(), initializer="ones", name="epsilon")

    def call(self, x):
        power = tf.reduce_mean(x**2, [1, 2], keepdims=True) + tf.abs(self.epsilon.value)
        return x * tf.math.rsqrt(power) * self.gamma + self.beta


class InstanceNormOfKerasOperations(Affine):
    def call(self, x):
        centred = x - ops.mean(x, (1, 2), keepdims=True)
        deviation = ops.sqrt(ops.var(x, (1, 2), keepdims=True) + 1e-3)
        return centred / deviation * self.gamma + self.beta


class OwnGroupNorm(Affine):
    def call(self, x):
        shape = tf.shape(x)
        groups = tf.reshape(x, [shape[0], shape[1], shape[2], 2, x.shape[-1] // 2])
        mean, variance = tf.nn.moments(groups, [1, 2, 4], keepdims=True)
        groups = (groups - mean) * tf.math.rsqrt(variance + 1e-3)
        return tf.reshape(groups, shape) * self.gamma + self.beta


class BatchRenorm(Affine):
    """Its correction towards moving statistics is stopped."""

    def build(self, shape):
        super().build(shape)
        self.mean = self.add_weight(shape=shape[-1:], name="moving_mean", trainable=False)
        self.power = self.add_weight(shape=shape[-1:], name="moving_variance", trainable=False)

    def call(self, x):
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        deviation, moving = tf.sqrt(variance + 1e-3), tf.sqrt(self.power + 1e-3)
        scale = tf.stop_gradient(tf.clip_by_value(deviation / moving, 0.33, 3))
        shift = tf.stop_gradient(tf.clip_by_value((mean - self.mean) / moving, -5, 5))
        return ((x - mean) / deviation * scale + shift) * self.gamma + self.beta


class FlooredNorm(Affine):
    def call(self, x):
        x = x - tf.reduce_mean(x, [1, 2], keepdims=True)
        return x / tf.maximum(tf.math.reduce_std(x, [1, 2], keepdims=True), 0.1) * self.gamma


class NormByProducts(Affine):
    def call(self, x):
        variance = tf.einsum("bhwc,bhwc->bc", x, x) / (x.shape[1] * x.shape[2])
        return tf.einsum("bhwc,bc->bhwc", x, tf.math.rsqrt(variance + 1e-3)) * self.gamma


class OwnBatchNorm(layers.BatchNormalization):
    def call(self, x, training=None, mask=None):
        return super().call(x, training=training, mask=mask)


def per_instance(axes, groups=None):
    def norm(layer, x):
        shape = x.shape
        if groups:
            x = tf.reshape(x, [*shape[:-1], groups, shape[-1] // groups])
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean((x - mean) ** 2, axes, keepdims=True)
        normal = tf.reshape((x - mean) / tf.sqrt(variance + 1e-3), shape)
        return normal * weight(layer.gamma) + weight(layer.beta)

    return norm


def renormalized(layer, x):
    mean = tf.reduce_mean(x, (1, 2), keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean((x - mean) ** 2, (1, 2), keepdims=True) + 1e-3)
    moving = tf.sqrt(weight(layer.power) + 1e-3)
    scale = np.clip(deviation / moving, 0.33, 3)
    shift = np.clip((mean - weight(layer.mean)) / moving, -5, 5)
    return ((x - mean) / deviation * scale + shift) * weight(layer.gamma) + weight(layer.beta)


def floored(layer, x):
    x = x - tf.reduce_mean(x, (1, 2), keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(x**2, (1, 2), keepdims=True))
    return x / tf.maximum(deviation, 0.1) * weight(layer.gamma)


def by_products(layer, x):
    power = tf.reduce_mean(x**2, (1, 2), keepdims=True)
    return x / tf.sqrt(power + 1e-3) * weight(layer.gamma)


def without_norm(layer, x):
    return x * weight(layer.gamma) + weight(layer.beta)


def by_moving_statistics(layer, x):
    deviation = tf.sqrt(weight(layer.moving_variance) + layer.epsilon)
    normal = (x - weight(layer.moving_mean)) / deviation
    return normal * weight(layer.gamma) + weight(layer.beta)


def by_power(layer, x):
    power = tf.reduce_mean(x**2, (1, 2), keepdims=True) + tf.abs(weight(layer.epsilon))
    return x / tf.sqrt(power) * weight(layer.gamma) + weight(layer.beta)


def root_mean_square(layer, x):
    mean = tf.reduce_mean(x**2, -1, keepdims=True)
    return x / tf.sqrt(mean + layer.epsilon) * weight(layer.scale)


def over_space(layer, x):
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    normal = (x - mean) / tf.sqrt(variance + layer.epsilon)
    gamma, beta = (weight(v)[..., tf.newaxis] for v in (layer.gamma, layer.beta))
    return normal * gamma + beta


NORMS = {
    "of moments": (InstanceNorm, per_instance((1, 2))),
    "of Keras operations": (InstanceNormOfKerasOperations, per_instance((1, 2))),
    "of groups": (OwnGroupNorm, per_instance((1, 2, 4), 2)),
    "batch norm with its own call": (OwnBatchNorm, by_moving_statistics),
    "a scale and shift without a norm": (ScaleAndShift, without_norm),
    "with a learned epsilon": (FilterResponseNorm, by_power),
    "with a stopped correction": (BatchRenorm, renormalized),
    "with a floor of the deviation": (FlooredNorm, floored),
    "of matrix products": (NormByProducts, by_products),
    "over space": (lambda: layers.LayerNormalization(axis=[1, 2]), over_space),
    "root mean square": (layers.RMSNormalization, root_mean_square),
}


def network(make_norm, randomized):
    stack = [
        keras.Input((8, 8, 2)),
        layers.Conv2D(4, 3, name="conv"),
        make_norm(),
        layers.Activation("tanh", name="tanh"),
        layers.Flatten(),
        layers.Dense(3),
    ]
    model = randomized(keras.Sequential(stack))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("case", NORMS)
def test_score_is_read_behind_a_norm_of_any_kind(case, images, randomized):
    make_norm, formula = NORMS[case]
    model = network(make_norm, randomized)
    conv, norm, tanh, flatten, dense = model.layers

    def forward(run, x):
        x = formula(norm, run(conv, x))
        return run(dense, run(flatten, run(tanh, x)))

    reference = brute_force_scores(forward, {"conv": "tanh"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


class Tokens(layers.Layer):
    """A patch embedding, with a weight for each position and channel."""

    def __init__(self, tokens, embed):
        super().__init__(name="tokens")
        self.tokens, self.embed = tokens, embed

    def build(self, shape):
        self.positions = self.add_weight(shape=(1, 36, shape[-1]))

    def call(self, x):
        return self.embed(tf.reshape(x, self.tokens(tf.shape(x)[0])), self.positions.value)


@pytest.mark.parametrize(
    "tokens",
    [lambda batch: [-1, 36, 4], lambda batch: [batch, 36, 4], lambda batch: [batch, -1, 4]],
    ids=["known", "known beside the batch", "unknown"],
)
@pytest.mark.parametrize(
    "embed",
    [lambda x, positions: x + positions, lambda x, positions: x + positions[:, : tf.shape(x)[1]]],
)
def test_an_embedding_of_positions_belongs_to_the_filters_as_a_bias_does(
    tokens, embed, images, randomized
):
    image = keras.Input((8, 8, 2))
    conv, embedding = layers.Conv2D(4, 3, name="conv"), Tokens(tokens, embed)
    tanh, dense = layers.Activation("tanh", name="tanh"), layers.Dense(3)
    y = layers.GlobalAveragePooling1D()(tanh(embedding(conv(image))))
    model = randomized(keras.Model(image, dense(y)))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def forward(run, x):
        x = tf.reshape(run(conv, x), (-1, 36, 4)) + weight(embedding.positions)
        return run(dense, tf.reduce_mean(run(tanh, x), 1))

    reference = brute_force_scores(forward, {"conv": "tanh"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


class Gate(layers.Layer):
    """Squeeze-and-excitation."""

    def build(self, shape):
        self.dense = layers.Dense(shape[-1], activation="sigmoid")
        self.dense.build(shape)

    def call(self, x):
        return x * self.dense(ops.mean(x, (1, 2)))[:, None, None]


class Responses(layers.Layer):
    """The global response normalization of ConvNeXt V2: grows with its input."""

    def call(self, x):
        norm = ops.sqrt(ops.sum(x**2, (1, 2), keepdims=True) + 1e-6)
        return x * norm / (ops.mean(norm, -1, keepdims=True) + 1e-6)


class Residual(layers.Layer):
    """What is normalized is also passed on."""

    def call(self, x):
        return x + (x - ops.mean(x, (1, 2), keepdims=True)) / ops.std(x, (1, 2), keepdims=True)


class Centred(layers.Layer):
    def call(self, x):
        return x - ops.mean(x, (1, 2), keepdims=True)


class Attended(layers.Layer):
    """A product with weights makes new features."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        return ops.einsum("bhwc,cd->bhwd", x, self.kernel) / ops.std(x, (1, 2), keepdims=True)


class ByTheNormOfAll(layers.Layer):
    """A single number for the whole batch, of which no channel is left."""

    def call(self, x):
        return x / (tf.norm(x) + 1e-6)


class ByASqueezedMean(layers.Layer):
    def call(self, x):
        return x / (tf.reshape(tf.reduce_mean(tf.abs(x), keepdims=True), []) + 1)


@pytest.mark.parametrize(("layer", "reads"), [(ByTheNormOfAll, "tanh"), (ByASqueezedMean, "conv")])
def test_a_norm_may_have_no_axes(layer, reads, randomized):
    found = find_filter_layers(network(layer, randomized))
    ((_, read),) = found.layers["conv"].reads
    assert read.operation.name == reads


@pytest.mark.parametrize("layer", [Gate, Responses, Residual, Centred, Attended])
def test_a_layer_that_grows_with_its_input_is_not_a_norm(layer, randomized):
    found = find_filter_layers(network(layer, randomized))
    ((_, read),) = found.layers["conv"].reads
    assert read.operation.name == "conv"


def test_the_scale_and_shift_of_a_batch_norm_with_its_own_call_belong_to_the_filters(randomized):
    model = network(OwnBatchNorm, randomized)
    assert find_filter_layers(model).layers["conv"].norm is model.layers[1]


class Adaptive(layers.Layer):
    """Scale and shift come from a style, as in AdaIN."""

    def build(self, shapes):
        self.style = layers.Dense(2 * shapes[0][-1])
        self.style.build(shapes[1])

    def call(self, inputs):
        x, style = inputs
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        scale, shift = tf.split(self.style(style)[:, None, None], 2, axis=-1)
        return (x - mean) * tf.math.rsqrt(variance + 1e-5) * (1 + scale) + shift


def test_score_is_read_behind_a_scale_and_shift_that_come_of_other_data():
    image, style = keras.Input((8, 8, 2)), keras.Input((3,))
    x = Adaptive(name="adaptive")([layers.Conv2D(4, 3, name="conv")(image), style])
    model = keras.Model([image, style], layers.Dense(3)(layers.Flatten()(x)))
    ((_, read),) = find_filter_layers(model).layers["conv"].reads
    assert read.operation.name == "adaptive"


def test_a_norm_that_no_layer_gives_leaves_its_filters_without_a_score(images, randomized):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = (x - ops.mean(x, (1, 2), keepdims=True)) / ops.std(x, (1, 2), keepdims=True)
    x = layers.Conv2D(4, 3, activation="relu", name="second")(ops.tanh(x))
    model = randomized(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match="conv.*its norm is not a layer"):
        assert list(kr.score_filters(model, *images)) == ["second"]
    assert "its norm is not a layer" in kr.describe(model)


def of_unit_length(x):
    return tf.nn.l2_normalize(x, axis=-1)


def centred_and_scaled(x):
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(centred**2, -1, keepdims=True) + 1e-3)


class Embedding(keras.Model):
    """Features that a function of all channels normalizes."""

    def __init__(self, function):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.pool, self.logits = layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3)
        self.function = function

    def call(self, x):
        return self.through(lambda layer, x: layer(x), x)

    def through(self, run, x):
        return run(self.logits, self.function(run(self.pool, run(self.conv, x))))


@pytest.mark.parametrize("function", [of_unit_length, centred_and_scaled])
def test_a_norm_of_all_channels_that_no_layer_gives_leaves_each_filter_its_score(
    function, images, randomized
):
    model = Embedding(function)
    model(images[0])
    randomized(model)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    reference = brute_force_scores(model.through, {"conv": "conv"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


class Block(layers.Layer):
    """Two convolutions with a norm that is a plain function between them."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.second = layers.Conv2D(4, 3, name="conv"), layers.Conv2D(4, 3, name="last")
        self.activation = activation

    def call(self, x):
        z = self.first(x)
        mean, deviation = ops.mean(z, (1, 2), keepdims=True), ops.std(z, (1, 2), keepdims=True)
        ops.reshape(deviation, (-1, 4))  # which nothing reads
        return self.second(self.activation((z - mean) / deviation))


@pytest.mark.parametrize(
    "activation",
    [tf.nn.relu, lambda y: 1.4 * tf.nn.leaky_relu(y), lambda y: 2 * tf.nn.sigmoid(y) - 1],
)
def test_a_block_with_a_norm_that_no_layer_gives_is_scored_as_far_as_it_can_be(activation, images):
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(Block(activation)(image))))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match="conv.*its norm is not a layer"):
        assert list(kr.score_filters(model, *images, criterion="activation")) == ["last"]


class Residual(Adaptive):
    """What is added after the norm is another feature map."""

    def call(self, inputs):
        x, other = inputs
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        scale = self.style(tf.reduce_mean(other, [1, 2]))[:, None, None, : x.shape[-1]]
        return tf.nn.relu((x - mean) * tf.math.rsqrt(variance + 1e-5) * scale + other)

    def build(self, shapes):
        super().build([shapes[0], (None, shapes[1][-1])])


def test_the_sum_of_a_norm_and_another_feature_map_has_no_score_of_either():
    image = keras.Input((8, 8, 2))
    other = layers.Conv2D(4, 3, name="other")(image)
    x = Residual()([layers.Conv2D(4, 3, padding="same", name="conv")(other), other])
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    assert "its norm is not a layer" in kr.describe(model)

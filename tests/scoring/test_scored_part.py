"""Which tensor a score takes the values of a feature map from."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores
from keras import layers

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.scoring.scored_part import scored_part


@tf.custom_gradient
def straight_through(x):
    return tf.nn.relu(x), lambda gradient: gradient


def taken_from(readers, only_product=True):
    """Whether the values are those of the map itself, or of the output of one that reads it."""
    found = []

    @tf.function(autograph=False)
    def step(x):
        feature_map = x * 2
        with tf.GradientTape() as tape:
            passed_on = tf.identity(feature_map)
            tape.watch(passed_on)
            outputs = [reader(passed_on) for reader in readers]
            loss = tf.add_n([tf.reduce_sum(one * one) for one in outputs])
        gradient = tape.gradient(loss, passed_on)
        values, _ = scored_part(feature_map, passed_on, gradient, only_product=only_product)
        found.append([values is one for one in (feature_map, *outputs)].index(True))

    step.get_concrete_function(tf.TensorSpec((2, 4)))
    return found[0]


@pytest.mark.parametrize("relu", [tf.nn.relu, tf.nn.relu6, keras.ops.relu])
def test_a_map_that_a_relu_alone_reads_is_taken_from_its_output(relu):
    assert taken_from([relu]) == 1


def test_a_criterion_of_more_than_the_product_gets_the_map_itself():
    assert taken_from([tf.nn.relu], only_product=False) == 0


@pytest.mark.parametrize(
    "readers",
    [
        [tf.nn.relu, tf.tanh],
        [tf.nn.relu, tf.nn.relu],
        [lambda x: tf.nn.relu(x + tf.ones_like(x))],
        [tf.nn.leaky_relu],
        [straight_through],
    ],
    ids=["two", "twice", "behind_a_sum", "leaky", "straight_through"],
)
def test_a_map_whose_gradient_has_another_way_is_taken_as_it_is(readers):
    assert taken_from(readers) == 0


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x * 0.25,
        lambda x: 3.0 * x,
        lambda x: x / 3.0,
        lambda x: x * tf.constant([0.5, 2.0, 3.0, 4.0]),
        lambda x: x * tf.constant([0.5, 0.0, 3.0, 4.0]),
        lambda x: x * tf.constant([[[0.5]], [[0.5]], [[2.0]]]),
        lambda x: 2.0 / x,
    ],
    ids=["scaled", "scaled_left", "divided", "by_channel", "by_zero", "repeated", "divisor"],
)
@pytest.mark.usefixtures("grappler")
def test_values_before_a_scale_are_those_of_the_map(scale):
    @tf.function(autograph=False)
    def step(x):
        feature_map = x * tf.sigmoid(x)
        with tf.GradientTape() as tape:
            passed_on = tf.identity(feature_map)
            tape.watch(passed_on)
            loss = tf.reduce_sum(scale(passed_on) ** 2)
        gradient = tape.gradient(loss, passed_on)
        return feature_map, gradient, *scored_part(feature_map, passed_on, gradient)

    x = tf.constant(np.random.default_rng(0).normal(size=(1, 2, 4)), tf.float32)
    feature_map, gradient, values, gradients = step(x)
    np.testing.assert_allclose(values, feature_map, rtol=1e-6)
    np.testing.assert_allclose(gradients, gradient, rtol=1e-6)


class RawReLUs(keras.Model):
    """A batch norm and a bias before a ReLU that is not a layer; one map has a second reader."""

    def __init__(self):
        super().__init__()
        self.convs = [layers.Conv2D(4, 3, name=name) for name in ("normed", "biased", "shared")]
        self.norm, self.logits = layers.BatchNormalization(), layers.Dense(3)

    def through(self, conv, norm, dense, relu, tanh, x):
        normed, biased, shared = self.convs
        x = relu(norm(conv(normed, x)))
        x = relu(conv(biased, x))
        x = conv(shared, x)
        return dense(sum_over_positions(relu(x) + tanh(x)))

    def call(self, x, training=None):
        return self.through(
            lambda layer, x: layer(x),
            lambda x: self.norm(x, training=training),
            self.logits,
            tf.nn.relu,
            tf.tanh,
            x,
        )


def sum_over_positions(x):
    return tf.reduce_sum(x, axis=(1, 2))


@pytest.mark.usefixtures("grappler")
def test_scores_with_relus_that_are_not_layers_match_brute_force(images, randomized):
    x, y = images
    model = RawReLUs()
    model(x)
    randomized(model)
    model.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    restart = kr.PartialRestart(fraction=0.25, monitor="loss")
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[restart])

    def forward(float64, images):
        return model.through(
            float64,
            lambda x: float64(model.norm, x),
            lambda x: float64(model.logits, x),
            lambda x: tf.maximum(x, 0.0),
            tf.tanh,
            images,
        )

    places = {"normed": model.norm.name, "biased": "biased", "shared": "shared"}
    reference = brute_force_scores(forward, places, x, y, training=True)
    assert set(restart.scores) == set(reference)
    assert_scores_match(restart.scores, reference)
    assert np.all(reference["normed"] > 0)


RAW = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "leaky_relu": tf.nn.leaky_relu,
}


class Raw(keras.Model):
    """A chain of layers whose activation functions are operations of the call."""

    def __init__(self, function):
        super().__init__()
        self.first = layers.Conv2D(4, 3, name="first", kernel_initializer=wide(1))
        self.second = layers.Conv2D(4, 3, name="second", kernel_initializer=wide(2))
        self.norm = layers.BatchNormalization()
        self.logits = layers.Dense(3, kernel_initializer=wide(3))
        self.function = function

    def call(self, x, training=None):
        x = self.function(self.first(x))
        x = self.function(self.norm(self.second(x), training=training))
        return self.logits(sum_over_positions(x))


def wide(seed):
    return keras.initializers.RandomNormal(stddev=1.0, seed=seed)


def of_layers(function):
    """The same network, of layers alone."""
    raw = Raw(function)
    keras_function = layers.Activation(function)
    image = keras.Input((8, 8, 2))
    x = keras_function(raw.first(image))
    x = layers.Activation(function)(raw.norm(raw.second(x)))
    return keras.Model(image, raw.logits(layers.Lambda(sum_over_positions)(x)))


def fitted(model, images, rate, callbacks=()):
    x, y = images
    model(x)
    model.compile(
        keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize("name", RAW)
def test_an_activation_that_is_not_a_layer_is_scored_as_one_that_is(name, images):
    scores = []
    for build in (Raw, of_layers):
        restart = kr.PartialRestart(fraction=0.25, monitor="loss")
        fitted(build(RAW[name]), images, 0.0, [restart])
        scores.append(restart.scores)
    raw, reference = scores
    assert raw.keys() == reference.keys() == {"first", "second"}
    for key, expected in reference.items():
        np.testing.assert_allclose(raw[key], expected, rtol=2e-4, atol=1e-5 * expected.max())


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize("name", ["relu", "elu", "tanh"])
def test_an_activation_that_is_not_a_layer_trains_bit_for_bit_as_without_scores(name, images):
    restart = kr.PartialRestart(fraction=0.25, monitor="loss", patience=9)
    plain, scored = (fitted(Raw(RAW[name]), images, 0.01, own) for own in ([], [restart]))
    assert restart.scores
    for ours, theirs in zip(scored.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Penalized(Raw):
    """With a penalty on the gradient by the images."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = self.loss(y, self(x, training=True))
            penalty = 5 * tf.reduce_sum(inner.gradient(loss, x) ** 2)
            total = loss + penalty
        self.optimizer.apply(tape.gradient(total, self.trainable_weights), self.trainable_weights)
        return {"loss": total}


def test_with_a_gradient_penalty_both_parts_are_those_before_the_activation(images):
    scores = []
    for eager in (False, True):
        restart = kr.PartialRestart(fraction=0.25, monitor="loss")
        model, (x, y) = Penalized(tf.tanh), images
        model(x)
        model.compile(
            keras.optimizers.SGD(0.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            run_eagerly=eager,
        )
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[restart])
        scores.append(restart.scores)
    for key, expected in scores[1].items():  # eagerly nothing shows the activation
        np.testing.assert_allclose(scores[0][key], expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_functions_that_run_eagerly_are_read_as_an_eager_model_is():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    places = []
    for eager in (False, True):
        tf.config.run_functions_eagerly(eager)
        try:
            found = find_filter_layers(model).layers["conv"]
        finally:
            tf.config.run_functions_eagerly(False)
        places.append(found.reads[0][1].operation.name)
    assert places == ["pool", "conv"]


def scaled_tanh(x):
    return 0.1 * tf.tanh(x)


def one_minus_sigmoid(x):
    return 1 - tf.sigmoid(x)


PARTS = {
    scaled_tanh: (layers.Activation("tanh"), layers.Rescaling(0.1)),
    one_minus_sigmoid: (layers.Activation("sigmoid"), layers.Rescaling(-1.0, 1.0)),
    tf.tanh: (layers.Activation("tanh"),),
    tf.sigmoid: (layers.Activation("sigmoid"),),
    tf.nn.relu: (layers.ReLU(),),
    tf.identity: (),
}


class TwoUses(keras.Model):
    """One convolution, whose maps of two views go through two functions."""

    def __init__(self, functions):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="conv", kernel_initializer=wide(1))
        self.mix = layers.Conv2D(4, 1, activation="relu", name="mix", kernel_initializer=wide(2))
        self.logits = layers.Dense(3, kernel_initializer=wide(3))
        self.functions = functions

    def call(self, x):
        first, second = self.functions
        views = [first(self.conv(x)), second(self.conv(reversed_rows(x)))]
        return self.logits(sum_over_positions(self.mix(tf.concat(views, -1))))

    def of_layers(self):
        image = keras.Input((8, 8, 2))
        views = [self.conv(image), self.conv(layers.Lambda(reversed_rows)(image))]
        for number, function in enumerate(self.functions):
            for layer in PARTS[function]:
                views[number] = type(layer).from_config(layer.get_config())(views[number])
        x = layers.Lambda(sum_over_positions)(self.mix(layers.Concatenate()(views)))
        return keras.Model(image, self.logits(x))


def reversed_rows(x):
    return tf.reverse(x, [1])


@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize(
    "functions",
    [
        (tf.tanh, tf.sigmoid),
        (tf.nn.relu, tf.tanh),
        (tf.identity, tf.sigmoid),
        (scaled_tanh, one_minus_sigmoid),
    ],
)
def test_each_use_of_a_layer_is_scored_after_its_own_activation(functions, images):
    scores = []
    for build in (TwoUses, lambda functions: TwoUses(functions).of_layers()):
        restart = kr.PartialRestart(fraction=0.25, monitor="loss")
        model = fitted(build(functions), images, 0.0, [restart])
        scores.append(restart.scores)
        assert "read before" not in kr.describe(model)
    for key, expected in scores[1].items():
        np.testing.assert_allclose(scores[0][key], expected, rtol=2e-4, atol=1e-5 * expected.max())


def swish_gate(x):
    gate = layers.Conv2D(4, 1, activation="sigmoid")(x)
    return layers.Multiply()([layers.Conv2D(4, 3, padding="same", activation="swish")(x), gate])


def layer_normed_shortcut(x):
    x = layers.LayerNormalization()(layers.Conv2D(4, 1)(x))
    return layers.Add()([x, layers.Conv2D(4, 3, padding="same", activation="relu")(x)])


def shifted_tanh(x):
    return 1.7 * tf.tanh(x) + 0.1


def sum_of_shifted_activations(x):
    return layers.Add()([layers.Conv2D(4, 3, activation=shifted_tanh)(x) for _ in range(2)])


def before_dropout(activation, x):
    x = layers.Conv2D(4, 3, padding="same", activation=activation)(x)
    return layers.Conv2D(4, 3, padding="same")(layers.Dropout(0.3, seed=1)(x))


def mish_and_division(x):
    x = layers.Conv2D(4, 3, padding="same", activation="mish")(x)
    return layers.Conv2D(4, 3, padding="same")(layers.Lambda(lambda z: z / 3.0)(x))


def shifted_activation(x):
    return layers.Conv2D(4, 1)(layers.Conv2D(4, 3, activation=shifted_tanh)(x))


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize(
    "block",
    [
        *(swish_gate, layer_normed_shortcut, sum_of_shifted_activations, shifted_activation),
        mish_and_division,
        *(
            pytest.param(partial(before_dropout, name), id=f"{name}_before_dropout")
            for name in ("hard_sigmoid", "softplus", "swish")
        ),
    ],
)
def test_gates_shortcuts_and_scales_train_bit_for_bit_as_without_scores(block, images):
    weights = []
    for callbacks in ([], [kr.PartialRestart(fraction=0.25, monitor="loss", patience=9)]):
        keras.utils.set_random_seed(1)
        image = keras.Input((8, 8, 2))
        x = layers.GlobalAveragePooling2D()(block(image))
        model = fitted(keras.Model(image, layers.Dense(3)(x)), images, 0.05, callbacks)
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

"""Scores of a network without training, against brute force in float64."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.scoring.criteria import taylor
from kerasrestart.scoring.scorer import Scorer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(*body, input_shape=(8, 8, 2), classes=3):
    model = keras.Sequential([keras.Input(input_shape), *body])
    if len(model.output_shape) > 2:
        model.add(layers.Flatten())
    model.add(layers.Dense(classes, name="logits"))
    model.compile(loss=LOSS)
    return model


def conv(filters=4, size=3, name="conv", **options):
    return layers.Conv2D(filters, size, name=name, **options)


# Name: (layers, the layer whose output is z).
ON_IMAGES = {
    "linear": (lambda: [conv()], "conv"),
    "relu": (lambda: [conv(activation="relu")], "conv"),
    "tanh": (lambda: [conv(activation="tanh")], "conv"),
    "sigmoid": (lambda: [conv(activation="sigmoid")], "conv"),
    "elu": (lambda: [conv(activation="elu")], "conv"),
    "leaky relu": (lambda: [conv(activation="leaky_relu")], "conv"),
    "no bias": (lambda: [conv(activation="relu", use_bias=False)], "conv"),
    "strides": (lambda: [conv(strides=2, activation="tanh")], "conv"),
    "groups": (lambda: [conv(groups=2, activation="relu")], "conv"),
    "max pool": (lambda: [conv(activation="relu"), layers.MaxPooling2D(2)], "conv"),
    "max pool of a linear map": (lambda: [conv(), layers.MaxPooling2D(2)], "conv"),
    "overlapping same max pool": (
        lambda: [conv(padding="same", activation="elu"), layers.MaxPooling2D(3, 2, "same")],
        "conv",
    ),
    "overlapping same average pool": (
        lambda: [conv(padding="same", activation="tanh"), layers.AveragePooling2D(3, 2, "same")],
        "conv",
    ),
    "global average": (lambda: [conv(activation="relu"), layers.GlobalAveragePooling2D()], "conv"),
    "global max": (lambda: [conv(activation="relu"), layers.GlobalMaxPooling2D()], "conv"),
    "dropout and pool": (
        lambda: [conv(activation="relu"), layers.Dropout(0.5), layers.MaxPooling2D(2)],
        "conv",
    ),
    "pool after pool": (
        lambda: [conv(activation="relu"), layers.MaxPooling2D(2), layers.GlobalAveragePooling2D()],
        "conv",
    ),
    "padding, cropping, up-sampling, pool": (
        lambda: [
            conv(activation="sigmoid"),
            layers.ZeroPadding2D(2),
            layers.Cropping2D(((1, 2), (3, 1))),
            layers.UpSampling2D(2),
            layers.AveragePooling2D(3),
        ],
        "conv",
    ),
    "relu layer": (lambda: [conv(), layers.ReLU(name="z"), layers.MaxPooling2D(2)], "z"),
    "elu layer": (lambda: [conv(), layers.ELU(name="z"), layers.MaxPooling2D(2)], "z"),
    "leaky relu layer": (lambda: [conv(), layers.LeakyReLU(name="z")], "z"),
    "prelu layer": (lambda: [conv(), layers.PReLU(name="z"), layers.MaxPooling2D(2)], "z"),
    "tanh layer": (lambda: [conv(), layers.Activation("tanh", name="z")], "z"),
    "tanh after a pool": (
        lambda: [conv(), layers.MaxPooling2D(2), layers.Activation("tanh", name="z")],
        "z",
    ),
    "norm then relu": (
        lambda: [conv(), layers.BatchNormalization(), layers.ReLU(name="z")],
        "z",
    ),
    "norm then tanh then pool": (
        lambda: [
            conv(),
            layers.BatchNormalization(),
            layers.Activation("tanh", name="z"),
            layers.MaxPooling2D(2),
        ],
        "z",
    ),
    "relu then norm": (
        lambda: [conv(activation="relu"), layers.BatchNormalization(name="z")],
        "z",
    ),
    "relu, norm, pool": (
        lambda: [conv(), layers.ReLU(), layers.BatchNormalization(name="z"), layers.MaxPool2D(2)],
        "z",
    ),
    "transposed": (
        lambda: [layers.Conv2DTranspose(5, 3, activation="tanh", name="conv")],
        "conv",
    ),
}


@pytest.mark.parametrize("case", ON_IMAGES)
def test_score_is_the_formula(case, images, randomized):
    body, z = ON_IMAGES[case]
    model = randomized(network(*body()))
    scores = kr.score_filters(model, *images)
    assert_scores_match(scores, brute_force_scores(chain(model), {"conv": z}, *images))


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"use_bias": False}, "depthwise"),
        ({"use_bias": True}, "z"),
        ({"use_bias": False, "activation": "tanh"}, "z"),
        ({"use_bias": False, "depth_multiplier": 2}, "z"),
    ],
    ids=str,
)
def test_score_is_read_behind_a_depthwise_convolution_that_adds_nothing(
    options, read, images, randomized
):
    depthwise = layers.DepthwiseConv2D(3, strides=2, name="depthwise", **options)
    body = [conv(), layers.ReLU(name="z"), layers.ZeroPadding2D(1), depthwise]
    model = randomized(network(*body, layers.BatchNormalization(name="norm")))
    (_, call), *_ = find_filter_layers(model).layers["conv"].reads
    assert call.operation.name == read

    scores = kr.score_filters(model, *images)
    reference = brute_force_scores(chain(model), {"conv": "z", "depthwise": "norm"}, *images)
    assert_scores_match(scores, reference)


def test_score_of_a_hand_worked_example():
    # z = 2x on two positions; logits (mean of z, 0); cost log(1 + e^m) - m of class 0.
    model = keras.Sequential(
        [
            keras.Input((2, 1)),
            layers.Conv1D(2, 1, name="conv"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="logits"),
        ]
    )
    model.compile(loss=LOSS)
    model.get_layer("conv").set_weights([np.array([[[2.0, 0.0]]]), np.array([0.0, 1.0])])
    model.get_layer("logits").set_weights([np.array([[1.0, 0.0], [0.0, 0.0]]), np.zeros(2)])
    x = np.array([[[1.0], [3.0]], [[-1.0], [-1.0]]], "float32")  # m = 4 and m = -2
    # dC/dz = -sigmoid(-m) / 2 at each of the two positions, which the division by M halves again.
    of_example = [4 / (1 + np.exp(4)) / 2, 2 / (1 + np.exp(-2)) / 2]
    scores = kr.score_filters(model, x, np.zeros(2, int))["conv"]
    np.testing.assert_allclose(scores, [np.mean(of_example), 0.0], rtol=1e-6)


def test_score_of_conv1d_with_pool(randomized):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 16, 3)).astype("float32"), rng.integers(0, 3, 12)
    body = [layers.Conv1D(4, 5, activation="relu", name="conv"), layers.MaxPooling1D(3)]
    model = randomized(network(*body, input_shape=(16, 3)))
    reference = brute_force_scores(chain(model), {"conv": "conv"}, x, y)
    assert_scores_match(kr.score_filters(model, x, y), reference)


def test_score_of_conv3d(randomized):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5, 5, 4, 2)).astype("float32"), rng.integers(0, 3, 8)
    body = [layers.Conv3D(3, 2, activation="elu", name="conv"), layers.GlobalAveragePooling3D()]
    model = randomized(network(*body, input_shape=(5, 5, 4, 2)))

    def forward(run, x):
        first, _, last = model.layers
        return run(last, tf.reduce_mean(run(first, x), axis=(1, 2, 3)))

    reference = brute_force_scores(forward, {"conv": "conv"}, x, y)
    assert_scores_match(kr.score_filters(model, x, y), reference)


def test_scores_of_several_layers(images, randomized):
    model = randomized(
        network(
            conv(4, name="first", activation="relu", padding="same"),
            layers.MaxPooling2D(2),
            conv(5, name="second", use_bias=False, padding="same"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            conv(3, name="third", activation="tanh"),
        )
    )
    z = {"first": "first", "second": "relu", "third": "third"}
    assert_scores_match(
        kr.score_filters(model, *images), brute_force_scores(chain(model), z, *images)
    )


def test_score_where_a_branch_leaves_before_the_pool(images, randomized):
    image = keras.Input((8, 8, 2))
    first = conv(3, name="first", padding="same", activation="tanh")
    pool, second = layers.MaxPooling2D(2), conv(3, name="second", padding="same")
    pool2, flat1, flat2 = layers.MaxPooling2D(2), layers.Flatten(), layers.Flatten()
    logits, add = layers.Dense(3), layers.Add()
    hidden = first(image)
    pooled = pool(hidden)
    both = add([flat1(pooled), flat2(pool2(second(hidden)))])
    model = randomized(keras.Model(image, logits(both)))
    model.compile(loss=LOSS)

    def forward(run, x):
        z = run(first, x)
        left, right = run(flat1, run(pool, z)), run(flat2, run(pool2, run(second, z)))
        return run(logits, left + right)

    reference = brute_force_scores(forward, {"first": "first", "second": "second"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_score_in_a_residual_block(images, randomized):
    image = keras.Input((8, 8, 2))
    stem = conv(4, name="stem", padding="same", activation="relu")
    inner, norm = conv(4, name="inner", padding="same"), layers.BatchNormalization()
    relu, pool, logits = layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(3)
    x = stem(image)
    model = keras.Model(image, logits(pool(relu(layers.Add()([x, norm(inner(x))])))))
    randomized(model).compile(loss=LOSS)

    def forward(run, x):
        x = run(stem, x)
        return run(logits, run(pool, run(relu, x + run(norm, run(inner, x)))))

    reference = brute_force_scores(forward, {"stem": "stem", "inner": norm.name}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_frames_folded_into_the_batch_have_an_absolute_value_each(images, randomized):
    pixels, classes = images
    videos = np.stack([pixels, pixels[::-1]], axis=1)
    body = (
        layers.Lambda(lambda x: tf.reshape(x, (-1, 8, 8, 2))),
        conv(activation="tanh"),
        layers.Lambda(lambda x: tf.reshape(x, (-1, 2, 6, 6, 4))),
    )
    model = randomized(network(*body, input_shape=(2, 8, 8, 2)))
    layer, dense = model.layers[1], model.layers[-1]

    def forward(run, x):
        x = run(layer, tf.reshape(x, (-1, 8, 8, 2)))
        return run(dense, tf.reshape(x, (len(videos), -1)))

    # The sum over the rows of the map, 2 for each example, divided by the number of examples.
    reference = brute_force_scores(forward, {"conv": "conv"}, videos, classes)
    assert_scores_match(kr.score_filters(model, videos, classes), reference)


def test_score_inside_nested_models(images, randomized):
    block = keras.Sequential(
        [keras.Input((8, 8, 2)), conv(4, name="inner", activation="relu"), layers.MaxPooling2D(2)]
    )
    image = keras.Input((8, 8, 2))
    outer, flat, logits = conv(3, 2, name="outer"), layers.Flatten(), layers.Dense(3)
    model = keras.Model(image, logits(flat(outer(block(image)))))
    randomized(model).compile(loss=LOSS)

    def forward(run, x):
        return run(logits, run(flat, run(outer, chain(block)(run, x))))

    reference = brute_force_scores(forward, {"inner": "inner", "outer": "outer"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_scores_of_the_uses_of_a_shared_layer_are_summed(images, randomized):
    image = keras.Input((8, 8, 2))
    shared = conv(2, name="shared", padding="same", activation="tanh")
    pool, flat, logits = layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(3)
    model = keras.Model(image, logits(flat(pool(shared(shared(image))))))
    randomized(model).compile(loss=LOSS)

    def forward(run, x):
        return run(logits, run(flat, run(pool, run(shared, run(shared, x)))))

    reference = brute_force_scores(forward, {"shared": "shared"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_score_of_a_nested_model_used_twice(images, randomized):
    block = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            conv(2, name="inner", padding="same", activation="tanh"),
            layers.BatchNormalization(name="norm"),
        ]
    )
    image = keras.Input((8, 8, 2))
    flat, logits = layers.Flatten(), layers.Dense(3)
    model = keras.Model(image, logits(flat(block(block(image)))))
    randomized(model).compile(loss=LOSS)

    def forward(run, x):
        return run(logits, run(flat, chain(block)(run, chain(block)(run, x))))

    reference = brute_force_scores(forward, {"inner": "norm"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_score_of_images_of_any_size(images, randomized):
    body = [conv(activation="relu"), layers.MaxPooling2D(2), layers.GlobalAveragePooling2D()]
    model = randomized(network(*body, input_shape=(None, None, 2)))
    reference = brute_force_scores(chain(model), {"conv": "conv"}, *images)
    assert_scores_match(kr.score_filters(model, *images), reference)


def test_score_from_a_dataset_equals_that_from_arrays_for_any_batch_size(images, randomized):
    body = [conv(activation="relu"), layers.BatchNormalization(name="z"), layers.MaxPool2D(2)]
    model = randomized(network(*body))
    weights = np.linspace(0, 2, 20).astype("float32")
    reference = brute_force_scores(chain(model), {"conv": "z"}, *images, weights=weights)
    for batch_size in (1, 7, 20):
        scores = kr.score_filters(model, *images, sample_weight=weights, batch_size=batch_size)
        assert_scores_match(scores, reference)
    dataset = tf.data.Dataset.from_tensor_slices((*images, weights)).batch(6)
    assert_scores_match(kr.score_filters(model, dataset), reference)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_score_of_a_model_with_two_inputs(form, images, randomized):
    x, y = images
    left, right = keras.Input((8, 8, 2), name="left"), keras.Input((8, 8, 2), name="right")
    first, flat, logits = conv(activation="relu"), layers.Flatten(), layers.Dense(3)
    added = layers.Add()([left, right])
    model = keras.Model([left, right], logits(flat(first(added))))
    randomized(model).compile(loss=LOSS)

    def forward(run, x):
        return run(logits, run(flat, run(first, 3 * x)))

    reference = brute_force_scores(forward, {"conv": "conv"}, x, y)
    inputs = [x, 2 * x] if form == "list" else {"left": x, "right": 2 * x}
    assert_scores_match(kr.score_filters(model, inputs, y), reference)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_score_is_the_formula_for_random_networks(data):
    def one_of(*options):
        return data.draw(st.sampled_from(options))

    body = []
    z_of = {}
    for name in ("first", "second")[: one_of(1, 2)]:
        activation = one_of("linear", "relu", "tanh", "elu")
        body.append(conv(one_of(1, 3, 4), one_of(1, 2, 3), name, activation=activation))
        z_of[name] = name
        if one_of(True, False):
            z_of[name] = f"norm_{name}"
            body.append(layers.BatchNormalization(name=z_of[name]))
        if one_of(True, False):
            pool = one_of(layers.MaxPooling2D, layers.AveragePooling2D)
            body.append(pool(2, one_of(1, 2), one_of("valid", "same")))
    model = network(*body)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for variable in model.weights:
        variable.assign(np.abs(rng.normal(size=variable.shape)) - 0.3 * (len(variable.shape) > 1))
    x, y = rng.normal(size=(5, 8, 8, 2)).astype("float32"), rng.integers(0, 3, 5)
    reference = brute_force_scores(chain(model), z_of, x, y)
    scores = kr.score_filters(model, x, y, batch_size=3)
    for name, expected in reference.items():
        np.testing.assert_allclose(
            scores[name], expected, rtol=1e-3, atol=1e-5 * max(expected.max(), 1e-3)
        )


def test_taylor_takes_the_absolute_value_once_for_each_example():
    z = tf.constant([[[1.0], [2.0]], [[1.0], [1.0]]])
    gradient = tf.constant([[[3.0], [-1.0]], [[-1.0], [-1.0]]])
    np.testing.assert_array_equal(taylor(z, gradient, -1), [[1.0], [2.0]])


def test_taylor_takes_channels_first_maps_as_channels_last_ones():
    rng = np.random.default_rng(0)
    z, gradient = rng.normal(size=(2, 3, 4, 5, 6)).astype("float32")
    np.testing.assert_allclose(
        taylor(tf.constant(z), tf.constant(gradient), 1),
        taylor(tf.constant(np.moveaxis(z, 1, -1)), tf.constant(np.moveaxis(gradient, 1, -1)), -1),
        rtol=1e-5,
    )


def test_scoring_leaves_the_model_as_it_was(images, randomized):
    model = randomized(
        network(conv(), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5))
    )
    before = [w.numpy() for w in [*model.weights, *model.optimizer.variables]]
    kr.score_filters(model, *images)
    after = [w.numpy() for w in [*model.weights, *model.optimizer.variables]]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any("call" in vars(layer) for layer in model.layers)


def test_a_criterion_may_be_a_function(images, randomized):
    model = randomized(network(conv(activation="relu")))
    twice = kr.score_filters(model, *images, criterion=lambda z, dz, axis: 2 * taylor(z, dz, axis))
    np.testing.assert_allclose(twice["conv"], 2 * kr.score_filters(model, *images)["conv"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "taylr"}, "taylr"),
        ({"batch_size": 0}, "batch_size"),
        ({"x": np.zeros((0, 8, 8, 2)), "y": np.zeros(0)}, "no example"),
    ],
)
def test_refused_arguments_are_named(options, message, images):
    options = {"x": images[0], "y": images[1]} | options
    with pytest.raises(ValueError, match=message):
        kr.score_filters(network(conv()), **options)


def test_scoring_a_model_that_is_not_compiled_is_refused(images):
    model = network(conv())
    plain = keras.Sequential([keras.Input((8, 8, 2)), *model.layers])
    with pytest.raises(ValueError, match="compile"):
        kr.score_filters(plain, *images)


class Batches(keras.utils.PyDataset):
    """Arrays in batches of 8, the last one shorter."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 8)

    def __getitem__(self, number):
        return tuple(array[8 * number : 8 * number + 8] for array in self.arrays)


class Endless(Batches):
    num_batches = None


@pytest.mark.parametrize(
    "make", [lambda *a: tf.data.Dataset.from_tensor_slices(a).batch(8), Batches]
)
def test_weights_beside_a_dataset_are_not_silently_dropped(make, images):
    with pytest.raises(ValueError, match="sample_weight"):
        kr.score_filters(network(conv()), make(*images), sample_weight=np.zeros(20))


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_of_keras_are_scored_as_the_arrays_they_come_of(weighted, images, randomized):
    model = randomized(network(conv(activation="relu")))
    weights = np.linspace(0, 2, len(images[1]), dtype="float32") if weighted else None
    expected = kr.score_filters(model, *images, sample_weight=weights, batch_size=8)
    batches = Batches(*images, weights) if weighted else Batches(*images)
    np.testing.assert_allclose(
        kr.score_filters(model, batches)["conv"], expected["conv"], rtol=1e-6
    )
    means, expected = (
        kr.reader_input_means(model, x)["logits"] for x in (Batches(images[0]), images[0])
    )
    np.testing.assert_allclose(means, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8),
        lambda x: tf.data.Dataset.from_tensor_slices((x,)).batch(8),
        Batches,
    ],
    ids=["arrays", "data set", "data set of tuples", "PyDataset"],
)
@pytest.mark.parametrize("criterion", ["taylor", "taylor_weight", "gradient"])
def test_without_targets_a_criterion_of_the_loss_is_refused_in_one_line(make, criterion, images):
    model = network(conv())
    with pytest.raises(ValueError, match=f"'{criterion}' needs targets.*y=None$") as error:
        kr.score_filters(model, make(images[0]), criterion=criterion)
    assert "\n" not in str(error.value)
    assert kr.score_filters(model, make(images[0]), criterion="activation")


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x[:, 1:], y), "incompatible with the layer"),
        (lambda x, y: (x[:, :, 0], y), "Invalid input shape"),
        (lambda x, y: (x, np.tile(y[:, None], 5)), "must have rank"),
        (lambda x, y: (x, y + 3), "Received a label value of 5 which is outside the valid range"),
        (lambda x, y: (x, y.astype(str)), "Cast string to float is not supported"),
    ],
    ids=["size", "rank", "targets", "label", "text"],
)
@pytest.mark.parametrize("use", [kr.score_filters, kr.diagnose])
def test_data_that_the_model_does_not_take_is_refused_in_one_line(
    use, change, said, run_eagerly, images
):
    model = network(conv())
    model.run_eagerly = run_eagerly
    with pytest.raises(ValueError, match=rf"^x and y must be as model .* Received: .*{said}") as e:
        use(model, *change(*images))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("model", [None, layers.Conv2D(2, 3), "model"])
def test_what_is_no_model_is_refused_in_one_line(model, images):
    with pytest.raises(TypeError, match=r"model must be a Keras 3 model.* Received: ") as error:
        kr.score_filters(model, *images)
    assert "\n" not in str(error.value)


def test_targets_that_are_no_arrays_are_refused_in_one_line(images):
    x, y = images
    with pytest.raises(TypeError, match=r"^y must be arrays.* Received: list of int$"):
        kr.score_filters(network(conv()), x, y.tolist())
    with pytest.raises(
        TypeError, match=r"^sample_weight must be arrays.* Received: list of float$"
    ):
        kr.score_filters(network(conv()), x, y, sample_weight=[1.0] * len(x))


def test_examples_of_another_kind_are_refused_in_one_line(images):
    model = network(conv())
    generator = (images for _ in range(1))
    for received in (generator, [images[0], "labels"], "images", []):
        with pytest.raises(TypeError, match=r"tf\.data\.Dataset or a .*PyDataset\. Received: "):
            kr.score_filters(model, received, images[1])
        with pytest.raises(TypeError, match=r"tf\.data\.Dataset or a .*PyDataset\. Received: "):
            kr.reader_input_means(model, received)
    assert next(generator) is images  # no batch was taken
    with pytest.raises(ValueError, match="an end"):
        kr.score_filters(model, Endless(*images))
    for endless in (tf.data.Dataset.from_tensors(images).repeat(), Endless(*images)):
        with pytest.raises(ValueError, match="an end"):
            kr.reader_input_means(model, endless)
        with pytest.raises(ValueError, match="an end"):
            kr.score_filters(model, endless)


class OneModeHead(keras.Model):
    """Adds the result of an auxiliary head in one mode only; drops units in training only."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.stem, self.head = conv(4, name="stem", activation="relu"), conv(3, name="head")
        self.drop, self.flat = layers.Dropout(0.5, name="drop"), layers.Flatten(name="flat")
        self.logits, self.head_logits = layers.Dense(3), layers.Dense(3)

    def call(self, x, training=False):
        x = self.stem(x)
        logits = self.logits(self.flat(self.drop(x) if training else x))
        if training is self.mode:
            logits += self.head_logits(self.flat(self.head(x)))
        return logits


@pytest.mark.parametrize("mode", [True, False], ids=["training", "inference"])
def test_a_pass_in_inference_scores_what_runs_in_it(mode, images, randomized):
    model = OneModeHead(mode)
    model.compile(loss=LOSS)
    for training in (mode, not mode):
        model(images[0], training=training)
    randomized(model)

    def forward(run, x):
        x = run(model.stem, x)
        logits = run(model.logits, run(model.flat, x))
        if not mode:
            logits += run(model.head_logits, run(model.flat, run(model.head, x)))
        return logits

    runs = {"stem": "stem"} if mode else {"stem": "stem", "head": "head"}
    with pytest.warns(match=r"head \(not called") if mode else contextlib.nullcontext():
        scores = kr.score_filters(model, *images)
    assert_scores_match(scores, brute_force_scores(forward, runs, *images))
    if mode:
        diagnosis = kr.diagnose(model, *images, layers="stem|head")
        assert list(diagnosis.layers) == list(runs)
        assert diagnosis.notes[0].startswith("head is left out: not called")


def test_a_forward_pass_outside_of_the_context_is_told(images):
    model = network(conv())
    scorer = Scorer(model)
    message = "No layer was called while feature maps were recorded"
    with pytest.raises(ValueError, match=message), scorer.record():
        pass

"""Models whose static graph does not tell what runs: the map is that of the traced pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.network.describe import describe
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.kernels import filter_mask, incoming_kernel
from kerasrestart.restart.outgoing import outgoing_masks, outgoing_paths
from kerasrestart.restart.surgery import restart_filters

X = np.zeros((2, 8, 8, 3), "float32")


def conv(name, filters=4, size=3, **settings):
    return layers.Conv2D(filters, size, padding="same", name=name, **settings)


def model_of(*body):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *body,
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dense(2, name="out"),
        ]
    )


def places_of(found):
    return {key: [read.operation.name for _, read in of.reads] for key, of in found.layers.items()}


def readers_of(found, key, filters=None):
    path = found.channels.path(found.layers[key].layer, filters)
    return {reading.name: reading.channels for reading in path.readers}


def obstacle_of(found, key):
    return found.channels.outgoing(found.layers[key].layer).obstacle()


class Block(layers.Layer):
    """A residual block, the way most are written."""

    def __init__(self, filters, name):
        super().__init__(name=name)
        self.c1, self.n1 = conv(f"{name}_c1", filters), layers.BatchNormalization(name=f"{name}_n1")
        self.c2, self.n2 = conv(f"{name}_c2", filters), layers.BatchNormalization(name=f"{name}_n2")

    def call(self, x, training=None):
        y = tf.nn.relu(self.n1(self.c1(x), training=training))
        return tf.nn.relu(x + self.n2(self.c2(y), training=training))


class Stage(layers.Layer):
    def __init__(self, name):
        super().__init__(name=name)
        self.blocks = [Block(4, f"{name}{n}") for n in range(2)]

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x, training=training)
        return x


class Network(keras.Model):
    def __init__(self):
        super().__init__(name="network")
        self.stem, self.relu = conv("stem"), layers.ReLU(name="relu")
        self.stage = Stage("s")
        self.last, self.norm = conv("last", 6), layers.BatchNormalization(name="norm")
        self.pool, self.out = layers.GlobalMaxPooling2D(name="pool"), layers.Dense(2, name="out")

    def call(self, x, training=None):
        x = self.stage(self.relu(self.stem(x)), training=training)
        return self.out(self.pool(self.relu(self.norm(self.last(x), training=training))))


def test_layers_within_layers_within_a_subclass_are_found():
    found = find_filter_layers(Network(), x=X)
    assert places_of(found) == {
        "stem": ["stem"],  # its ReLU serves `last`, too
        "s0_c1": ["s0_n1"],
        "s0_c2": ["s0_n2"],
        "s1_c1": ["s1_n1"],
        "s1_c2": ["s1_n2"],
        "last": ["pool"],
    }
    assert {key: of.norm and of.norm.name for key, of in found.layers.items()} == {
        **{"stem": None, "last": "norm"},
        **{f"s{i}_c{n}": f"s{i}_n{n}" for i in (0, 1) for n in (1, 2)},
    }
    assert found.coverage() == "Watching 26 of 26 filters in 6 layers"
    assert readers_of(found, "s0_c1") == {"s0_c2": (0, 1, 2, 3)}
    assert obstacle_of(found, "s0_c1") is None
    assert obstacle_of(found, "s0_c2") == "its channels are shared with s1_c2, stem"


def test_a_subclass_says_what_to_pass_until_it_is_built():
    model = Network()
    with pytest.raises(TypeError, match=r"called once on a batch.*describe\(model, x\)"):
        describe(model)
    table = describe(model, X)
    assert describe(model) == table  # built by it


def test_a_model_that_cannot_run_is_refused_with_the_cause_in_one_line():
    class Broken(keras.Model):
        def call(self, x):
            return tf.matmul(x, tf.ones((7, 7)))

    with pytest.raises(ValueError, match=r"'broken' cannot be traced.*: ValueError: Dim") as error:
        find_filter_layers(Broken(), x=X)
    assert "\n" not in str(error.value)


def test_a_trace_changes_no_variable_of_a_built_model():
    model = Network()
    model(X)
    model.compile("adam", "mse")
    before = [np.array(weight) for weight in model.weights]
    find_filter_layers(model)
    assert not model.optimizer.built
    assert not model.losses
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), value)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_dropouts_draw_what_they_would_have_drawn_without_a_trace():
    outputs = []
    for traces in (False, True):
        keras.utils.set_random_seed(1)
        model = model_of(conv("c"), layers.Dropout(0.5))
        if traces:
            find_filter_layers(model)
        outputs.append(np.array(model(X + 1, training=True)))
    np.testing.assert_array_equal(*outputs)


class RollingPool(layers.MaxPooling2D):
    def call(self, x):
        return tf.roll(super().call(x), 1, axis=-1)


class SquaringPool(layers.MaxPooling2D):
    def call(self, x):
        return super().call(x) ** 2


def test_a_pooling_that_rolls_channels_is_read_before_and_not_followed():
    found = find_filter_layers(model_of(conv("c"), RollingPool(name="roll"), conv("next")))
    assert places_of(found)["c"] == ["c"]
    assert obstacle_of(found, "c") == "its channels go into roll"


def test_a_pooling_that_squares_is_an_activation_of_each_channel():
    body = [conv("c", activation="relu"), SquaringPool(name="square"), conv("next")]
    found = find_filter_layers(model_of(*body))
    assert places_of(found)["c"] == ["c"]
    assert readers_of(found, "c", [2]) == {"next": (2,)}


class Standardized(layers.Conv2D):
    def call(self, x):
        mean = tf.reduce_mean(self.kernel, [0, 1, 2], keepdims=True)
        deviation = tf.math.reduce_std(self.kernel, [0, 1, 2], keepdims=True)
        kernel = (self.kernel - mean) / (deviation + 1e-5)
        return tf.nn.conv2d(x, kernel, 1, "SAME") + self.bias


class RolledKernel(layers.Conv2D):
    def call(self, x):
        return tf.nn.conv2d(x, tf.roll(self.kernel, 1, -1), 1, "SAME")


class SiluConv(layers.Conv2D):
    def call(self, x):
        return tf.nn.silu(super().call(x))


@pytest.mark.parametrize("kind", [Standardized, SiluConv])
def test_a_convolution_with_a_call_of_its_own_is_scored_but_no_reader(kind):
    body = [conv("before"), kind(4, 3, padding="same", name="own"), layers.ReLU(name="relu")]
    found = find_filter_layers(model_of(*body, conv("behind")))
    assert places_of(found)["own"] == ["relu"]
    assert obstacle_of(found, "before") == "its channels go into own"
    assert obstacle_of(found, "own") == f"its channels go into the own call of {kind.__name__}"
    assert obstacle_of(found, "behind") is None


def test_a_convolution_whose_call_may_mix_its_filters_is_left_out():
    own = RolledKernel(4, 3, padding="same", name="own")
    found = find_filter_layers(model_of(conv("before"), own))
    assert found.left_out["own"] == "has a call of its class, RolledKernel, which may mix filters"
    assert found.coverage() == (
        "Watching 4 of 8 filters in 1 layer; 4 out of reach: own (has a call of its class, "
        "RolledKernel, which may mix filters)"
    )


class Within(layers.Layer):
    """Calls a convolution in a graph of its own."""

    def __init__(self, how):
        super().__init__(name="within")
        self.how, self.inner = how, conv("inner", 3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.how(self.inner, x)


def in_a_function(inner, x):
    return tf.function(lambda x: inner(x))(x)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (
            lambda inner, x: tf.while_loop(
                lambda i, x: i < 2, lambda i, x: (i + 1, inner(x)), (0, x)
            )[1],
            "called in a while_loop",
        ),
        (lambda inner, x: tf.map_fn(lambda e: inner(e[None])[0], x), "called in a while_loop"),
        (
            lambda inner, x: tf.cond(tf.reduce_sum(x) > 0, lambda: inner(x), lambda: x),
            "called in a condition",
        ),
        (
            lambda inner, x: tf.vectorized_map(lambda e: inner(e[None])[0], x),
            "called in a vectorized_map",
        ),
        (in_a_function, "called in a tf.function of its own"),
        (lambda inner, x: x, "not called in the traced pass"),
    ],
)
def test_what_cannot_be_followed_is_named_and_left_out(how, reason):
    model = model_of(conv("before", 3), Within(how), conv("behind"))
    found = find_filter_layers(model)
    assert list(found.layers) == ["before", "behind"]
    assert found.left_out["inner"].startswith(reason)
    assert found.out_of_reach == {"inner": 3}
    assert found.coverage().startswith(
        f"Watching 7 of 10 filters in 2 layers; 3 out of reach: inner ({reason}"
    )
    assert f"left out: {reason}" in describe(model)


class Cell(layers.Layer):
    """A recurrent cell that applies a layer which others may call, too."""

    def __init__(self, dense):
        super().__init__()
        self.dense, self.state_size, self.output_size = dense, 4, 4

    def build(self, shape):
        if not self.dense.built:
            self.dense.build(shape)

    def call(self, x, states):
        return self.dense(x) + states[0], [states[0]]


@pytest.mark.parametrize("recurrent_first", [False, True])
def test_a_layer_that_a_recurrent_cell_calls_too_is_left_out(recurrent_first):
    shared, steps = layers.Dense(4, name="shared"), keras.Input((5, 4))
    parts = [layers.RNN(Cell(shared), name="rnn"), lambda x: shared(x[:, 0])]
    outputs = [part(steps) for part in parts[:: 1 if recurrent_first else -1]]
    behind = layers.Dense(3, name="behind")(layers.Concatenate()(outputs))
    model = keras.Model(steps, layers.Dense(2)(behind))
    found = find_filter_layers(model, ".*")
    assert found.left_out["shared"] == "called inside rnn"
    restart_filters(model, {"behind": [0]})
    with pytest.raises(ValueError, match="called inside rnn"):
        restart_filters(model, {"shared": [0]})


def test_a_nested_model_called_by_names_is_wired_by_names():
    p, q = keras.Input((8, 8, 4), name="p"), keras.Input((8, 8, 4), name="a")
    inner = keras.Model([p, q], layers.Concatenate()([conv("reads_p")(p), conv("reads_a")(q)]))
    image = keras.Input((8, 8, 3))
    both = inner({"p": conv("one")(image), "a": conv("two")(image)})
    out = layers.Dense(3)(layers.GlobalAveragePooling2D()(both))
    found = find_filter_layers(keras.Model(image, out))
    assert list(readers_of(found, "one")) == ["reads_p"]
    assert list(readers_of(found, "two")) == ["reads_a"]


def test_a_variable_that_is_frozen_alone_is_told_of():
    model = model_of(conv("c"), conv("kept"))
    model.get_layer("c").kernel.trainable = False
    found = find_filter_layers(model)
    assert found.left_out["c"] == "has a kernel that is not trainable"
    assert found.coverage() == (
        "Watching 4 of 8 filters in 1 layer; 4 left out: c (has a kernel that is not trainable)"
    )


def test_a_score_is_read_before_an_activity_regularizer():
    relu = layers.ReLU(activity_regularizer="l2", name="relu")
    pool = layers.MaxPooling2D(name="pool")
    assert places_of(find_filter_layers(model_of(conv("c"), relu, pool)))["c"] == ["relu"]
    regular = conv("c", activity_regularizer="l1")
    assert places_of(find_filter_layers(model_of(regular, pool)))["c"] == ["c"]
    assert places_of(find_filter_layers(model_of(conv("c"), pool)))["c"] == ["pooled"]


class Raw(keras.Model):
    """Only raw operations between its layers."""

    def __init__(self, *functions, layer=None):
        super().__init__()
        self.functions, self.layer = functions, layer or layers.Identity(name="identity")
        self.first, self.second, self.out = conv("first"), conv("second"), layers.Dense(2)

    def call(self, x):
        x = self.first(x)
        for function in self.functions:
            x = function(x)
        return self.out(tf.reduce_mean(self.second(self.layer(x)), [1, 2]))


FUNCTIONS = [
    ([tf.nn.relu], "pool"),
    ([lambda x: tf.maximum(x, 0.2 * x)], "pool"),
    ([lambda x: tf.where(x > 0, x, 0.1 * x)], "pool"),
    ([lambda x: tf.nn.dropout(x, 0.5)], "pool"),
    ([lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])], "pool"),
    ([lambda x: tf.nn.avg_pool2d(tf.nn.relu(x), 2, 2, "VALID")], "pool"),
    ([lambda x: x[:, 1:-1, ::2]], "pool"),
    ([tf.nn.silu], "pool"),
    ([tf.nn.gelu], "pool"),
    ([tf.tanh, lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")], "pool"),
    ([lambda x: 2 * x + 1], "pool"),
    ([lambda x: tf.tanh(tf.nn.relu(x))], "pool"),
    ([tf.nn.softmax], "first"),
    ([lambda x: tf.roll(x, 1, 0)], "first"),
    ([lambda x: tf.roll(x, 1, 3)], "first"),
    ([lambda x: tf.reverse(x, [1])], "pool"),
    ([lambda x: tf.stop_gradient(x) + x], "pool"),
    ([lambda x: tf.repeat(tf.repeat(x, 2, 1), 3, 2)], "pool"),
    ([lambda x: tf.tile(x, [1, 2, 1, 1])], "pool"),
    ([lambda x: tf.broadcast_to(x[:, None], [tf.shape(x)[0], 2, 8, 8, 4])[:, 1]], "pool"),
    ([lambda x: tf.repeat(x, 2, 0)], "first"),
    ([lambda x: tf.reshape(x, [tf.shape(x)[1], -1, 8, 4])], "first"),
    ([lambda x: tf.repeat(x, 2, -1)[..., ::2]], "first"),
]


@pytest.mark.parametrize(("functions", "place"), FUNCTIONS)
def test_the_walk_passes_raw_operations_as_far_as_the_score_is_the_same(functions, place):
    model = Raw(*functions, layer=layers.MaxPooling2D(padding="same", name="pool"))
    assert places_of(find_filter_layers(model, x=X))["first"] == [place]


@pytest.mark.parametrize("functions", [of for of, place in FUNCTIONS if place == "pool"])
def test_the_score_behind_raw_operations_is_that_of_the_activation(functions):
    keras.utils.set_random_seed(0)
    x = tf.random.normal((3, 8, 8, 3))
    model = Raw(*functions, layer=layers.MaxPooling2D(padding="same", name="pool"))
    model(x)
    with tf.GradientTape() as tape:
        z = model.first(x)
        tape.watch(z)
        for function in functions[:1]:  # the activation; what follows passes the score
            z = function(z)
        read = z
        for function in functions[1:]:
            read = function(read)
        read = model.layer(read)
        cost = tf.reduce_sum(tf.sin(model.second(read)))
    z_gradient, read_gradient = tape.gradient(cost, [z, read])
    expected = np.sum((z * z_gradient).numpy().astype("float64"), axis=(1, 2))
    found = np.sum((read * read_gradient).numpy().astype("float64"), axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_behind_a_raw_activation_without_a_place_the_score_is_read_before_it():
    table = describe(Raw(tf.nn.gelu), X)
    assert "read before its activation, GELU" in table
    assert "read before" not in describe(Raw(tf.nn.relu), X)
    (first, _) = find_filter_layers(Raw(tf.nn.relu), x=X).layers.values()
    assert [function.type for function in first.unread] == ["Relu"]


def test_a_norm_behind_a_raw_activation_is_the_place():
    found = find_filter_layers(Raw(tf.nn.gelu, layer=layers.BatchNormalization(name="norm")), x=X)
    first = found.layers["first"]
    assert (places_of(found)["first"], first.norm.name, first.unread) == (["norm"], "norm", (None,))


def test_the_output_of_a_block_is_a_place_behind_its_raw_activation():
    class ConvGelu(layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner = conv("inner")

        def call(self, x):
            return tf.nn.gelu(self.inner(x))

    found = find_filter_layers(model_of(ConvGelu(), conv("next")))
    assert places_of(found)["inner"] == ["block"]
    assert found.layers["inner"].unread == (None,)


def test_a_block_that_uses_its_result_itself_is_no_place():
    class Gated(layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner, self.gate = conv("inner"), layers.Dense(4, name="gate")

        def call(self, x):
            x = tf.nn.gelu(self.inner(x))
            self.add_loss(tf.reduce_sum(self.gate(x)))
            return x

    assert places_of(find_filter_layers(model_of(Gated(), conv("next"))))["inner"] == ["inner"]


@pytest.mark.parametrize(
    ("function", "channels"),
    [
        (lambda x: x[..., 2:], {0: (), 3: (1,)}),
        (lambda x: tf.split(x, 2, -1)[1], {0: (), 3: (1,)}),
        (lambda x: tf.concat([x, tf.nn.relu(x)], -1), {0: (0, 4), 3: (3, 7)}),
        (lambda x: tf.concat([tf.zeros_like(x)[..., :1], x], -1), {0: (1,), 3: (4,)}),
        (lambda x: layers.concatenate([tf.zeros_like(x)[..., :1], x]), {0: (1,), 3: (4,)}),
        (lambda x: x * tf.constant([1.0, 2, 3, 4]), {0: (0,), 3: (3,)}),
        (lambda x: tf.reshape(x, [-1, 64, 1, 4]), {0: (0,), 3: (3,)}),
        (lambda x: tf.transpose(x, [0, 2, 1, 3]), {0: (0,), 3: (3,)}),
    ],
)
def test_channels_are_followed_through_raw_operations(function, channels):
    found = find_filter_layers(Raw(function), x=X)
    for filter_, expected in channels.items():
        assert readers_of(found, "first", [filter_]).get("second", ()) == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.nn.depth_to_space(x, 2),
        lambda x: tf.transpose(x, [0, 1, 3, 2]),
        lambda x: tf.nn.softmax(x),
        lambda x: tf.einsum("bhwc,cd->bhwd", x, tf.ones((4, 4))),
        lambda x: x / tf.norm(x, axis=-1, keepdims=True),
        lambda x: tf.gather(tf.ones((9, 4)), tf.cast(tf.abs(x[..., 0]), "int32")) + 0 * x,
        lambda x: tf.gather(x, tf.argmax(x[0, 0, 0])[None], axis=1),
    ],
)
def test_channels_that_a_raw_operation_mixes_are_refused(function):
    assert "its channels" in obstacle_of(find_filter_layers(Raw(function), x=X), "first")


class Branches(keras.Model):
    """Layers of all kinds, joined by raw operations."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = conv("stem"), Block(4, "b")
        self.own = Standardized(4, 3, padding="same", name="own")
        self.normalized = layers.SpectralNormalization(conv("w"), name="normalized")
        self.split, self.roll = conv("split", 6), RollingPool(2, 1, "same", name="roll")
        self.deep = layers.DepthwiseConv2D(3, padding="same", name="deep")
        self.grow, self.shrink = (
            layers.Dense(5, "relu", name="grow"),
            layers.Dense(3, name="shrink"),
        )
        self.out = layers.Dense(2, name="out")

    def call(self, x, training=None):
        x = self.block(tf.nn.silu(self.stem(x)), training=training)
        x = tf.nn.relu(self.normalized(self.own(x), training=training))
        one, two = tf.split(self.split(x), 2, axis=-1)
        x = tf.concat([self.deep(one)[..., ::-1], self.roll(two), tf.nn.relu(one)], -1)
        x = self.shrink(self.grow(tf.reshape(x, [-1, 64 * 9])))
        return self.out(x)


def randomized(model, rng):
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.path else (-1, 1)
        if variable.dtype == "float32":
            variable.assign(rng.uniform(low, high, variable.shape))


def functions_that_keep_channels():
    yield "branches", Branches
    for number, (functions, _) in enumerate(FUNCTIONS):
        yield f"raw{number}", lambda functions=functions: Raw(*functions)


@pytest.mark.parametrize(
    "build", [pytest.param(build, id=str(name)) for name, build in functions_that_keep_channels()]
)
def test_a_filter_whose_outgoing_weights_are_zero_is_not_seen_or_is_refused(build):
    rng = np.random.default_rng(0)
    model, x = build(), rng.normal(size=(3, 8, 8, 3)).astype("float32")
    found = find_filter_layers(model, ".*", x=x)

    def outputs():
        tf.random.set_seed(0)  # of a raw dropout
        return model(x, training=False).numpy()

    private = [key for key in found.layers if obstacle_of(found, key) is None]
    for key in private:
        randomized(model, rng)
        if isinstance(model, Branches):
            model(x, training=True)  # sets the norm of the kernel
        filter_layer = found.layers[key]
        chosen = {key: np.array([1, 2])}
        before = outputs()
        for kernel, mask in outgoing_masks(outgoing_paths(found.channels, found.layers, chosen)):
            kernel.assign(np.where(mask, 0, kernel.numpy()))
        zeroed = outputs()
        assert not np.allclose(before, zeroed)
        kernel = incoming_kernel(filter_layer.layer)
        mask = filter_mask(filter_layer.layer, chosen[key])
        kernel.assign(np.where(mask, 0.5, kernel.numpy()))
        np.testing.assert_allclose(outputs(), zeroed, rtol=1e-5, atol=1e-5)
    if build is Branches:
        assert set(private) == {"b_c1", "deep", "grow", "shrink"}


def test_an_output_that_no_loss_reads_is_reached_all_the_same_and_a_dead_branch_is_not():
    class Dead(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.dead, self.out = conv("used"), conv("dead"), layers.Dense(2)

        def call(self, x):
            self.dead(x)
            return self.out(tf.reduce_mean(self.used(x), [1, 2]))

    found = find_filter_layers(Dead(), x=X)
    assert list(found.layers) == ["used"]
    assert found.left_out["dead"] == "does not reach an output"


def test_frames_of_a_time_distributed_network_are_uses_of_its_layers():
    cnn = keras.Sequential(
        [keras.Input((8, 8, 3)), conv("c"), layers.ReLU(name="relu"), layers.GlobalMaxPooling2D()]
    )
    body = [layers.TimeDistributed(cnn), layers.LSTM(4, name="lstm"), layers.Dense(2)]
    found = find_filter_layers(keras.Sequential([keras.Input((3, 8, 8, 3)), *body]))
    assert [use.occurrence for use, _ in found.layers["c"].reads] == [0, 1, 2]
    assert [read.occurrence for _, read in found.layers["c"].reads] == [0, 1, 2]
    assert found.left_out["lstm"] == "has recurrent units, which feed each other"
    assert found.coverage() == "Watching 4 of 4 filters in 1 layer"


def test_the_filters_of_a_spectral_normalization_depend_on_each_other():
    normalized = layers.SpectralNormalization(conv("w"), name="normalized")
    found = find_filter_layers(model_of(conv("c"), normalized, conv("next")))
    assert list(found.layers) == ["c", "w", "next"]
    assert obstacle_of(found, "c") is None
    assert "the norm that normalized takes of its kernel" in obstacle_of(found, "w")


def test_units_of_a_transformer_block_are_found_and_heads_are_refused_by_name():
    x = tokens = keras.Input((16, 8))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="heads")(x, x)])
    y = layers.Dense(12, "gelu", name="up")(layers.LayerNormalization()(x))
    y = layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", name="down")(y)
    y = layers.EinsumDense("abc,cde->abde", (None, 4, 2), name="split")(y)
    out = layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Reshape((16, 8))(y)))
    model = keras.Model(tokens, out)
    found = find_filter_layers(model, ".*")
    assert {key: of.filters for key, of in found.layers.items()} == {"up": 12, "down": 8}
    assert found.left_out["split"] == "has a kernel that is not [inputs, units]"
    assert readers_of(found, "up", [3]) == {"down": (3,)}
    with pytest.raises(
        ValueError, match=r"Received: 'heads', which has attention heads, not filters$"
    ):
        find_filter_layers(model, ["heads"])


def test_towers_of_equal_names_have_their_paths_everywhere():
    def tower(name):
        return keras.Sequential(
            [keras.Input((8, 8, 3)), conv("conv"), conv("last"), layers.GlobalMaxPooling2D()],
            name=name,
        )

    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    both = layers.Concatenate()([tower("rgb")(one), tower("depth")(two)])
    model = keras.Model([one, two], layers.Dense(2, name="out")(both))
    found = find_filter_layers(model)
    assert list(found.layers) == ["rgb/conv", "rgb/last", "depth/conv", "depth/last"]
    assert readers_of(found, "depth/conv") == {"depth/last": (0, 1, 2, 3)}
    assert readers_of(found, "depth/last", [1]) == {"out": (5,)}
    assert "depth/conv" in describe(model)


def test_what_is_inside_a_batch_norm_or_convolution_is_not_traced():
    # Most of the time of a trace would go there. Each block has 2 convolutions, 2 norms, 3 others.
    found = find_filter_layers(model_of(conv("stem"), *(Block(4, f"b{n}") for n in range(9))))
    assert len(found.layers) == 19
    assert len(found.graph.calls) == 1 + 9 * 7 + 2

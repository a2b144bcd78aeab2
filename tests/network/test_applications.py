"""Well-known networks and unusual graphs: whole fits, and scores against a brute-force reference.

The place of z is named by hand, layer by layer, and the reference knows nothing of kerasrestart: it
takes one example at a time, and the gradient of that example's cost by the tensor at that place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.observer import RestartObserver

SIZE, CLASSES = 32, 4
CONVOLUTIONS = (layers.Conv2D, layers.Conv2DTranspose, layers.DepthwiseConv2D)
CONVOLUTIONS += (layers.SeparableConv2D,)


def cross_entropy(y, logits):
    logits = tf.cast(logits, tf.float32)
    return tf.reduce_logsumexp(logits, axis=-1) - tf.gather(logits, y, batch_dims=1)


def squared_error(y, out):
    return tf.reduce_mean((y - out) ** 2, axis=range(1, len(out.shape)))


@dataclasses.dataclass
class Network:
    """A network of the tests.

    Attributes:
        model: Compiled.
        places: By name of some convolutions, `(z, M)` for each use: names of layers, or tensors.
        norm_of: By the name of a convolution, that of its batch norm, whether there is one or not.
        norms_behind: By the name of a convolution, batch norms further on that hold its channels:
            their names, each with the place of its first channel.
        trace: If z is not the output of a named layer: `x -> (outputs, {name: [(z, M), ...]})`.
        cost: `(targets, outputs) -> [batch]`.
        targets: By a random generator and a number of examples, what the model is to learn.
        rtol: Largest error of a score, as a share of the layer's largest.
    """

    model: keras.Model
    places: dict[str, str] = dataclasses.field(default_factory=dict)
    norm_of: Callable[[str], str | None] = lambda name: None
    norms_behind: Callable[[str], dict[str, int]] = lambda name: {}
    trace: Callable[..., Any] | None = None
    cost: Callable[..., Any] = cross_entropy
    targets: Callable[..., Any] = lambda rng, n: rng.integers(0, CLASSES, n)
    rtol: float = 1e-4

    def data(self, n):
        rng = np.random.default_rng(1)
        x = [rng.normal(size=(n, *i.shape[1:])).astype("float32") for i in self.model.inputs]
        return (x if len(x) > 1 else x[0]), self.targets(rng, n)


def compiled(model, loss=None, **options):
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(options.pop("optimizer", keras.optimizers.SGD(1e-3)), loss, **options)
    return model


def application(name, places, norm_of=lambda name: None, norms_behind=lambda name: {}):
    def build():
        make = getattr(keras.applications, name)
        model = make(
            weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None
        )
        return Network(compiled(model), places, norm_of, norms_behind)

    build.__name__ = name
    return build


def named(*pairs):
    """A function of a convolution's name: the first of `pairs` that it ends with is replaced."""

    def norm_of(name):
        for end, new in pairs:
            if name.endswith(end):
                return None if new is None else name.removesuffix(end) + new
        return None

    return norm_of


def behind_in_densenet(blocks, start, growth):
    """By the paper: each block of a stage reads what the stage began with and all before it."""

    def norms_behind(name):
        if name.endswith("_1_conv"):
            return {}
        if name == "conv1_conv":
            stage, block, place = 2, 0, 0
        elif name.startswith("pool"):
            stage, block, place = int(name[4]) + 1, 0, 0
        else:
            stage, block = (int(part.lstrip("convblk")) for part in name.split("_")[:2])
            place = start[stage] + growth * (block - 1)
        later = [f"conv{stage}_block{b}_0_bn" for b in range(block + 1, blocks[stage] + 1)]
        last = "bn" if stage == max(blocks) else f"pool{stage}_bn"
        return dict.fromkeys([*later, last], place)

    return norms_behind


RESNET50 = application(
    "ResNet50",
    {
        "conv1_conv": "conv1_relu",
        "conv2_block1_0_conv": "conv2_block1_0_bn",
        "conv2_block1_1_conv": "conv2_block1_1_relu",
        "conv4_block2_3_conv": "conv4_block2_3_bn",
        "conv5_block3_2_conv": "conv5_block3_2_relu",
    },
    named(("_conv", "_bn")),
)
RESNET50V2 = application(
    "ResNet50V2",
    {
        "conv1_conv": "conv2_block1_preact_relu",  # nothing but a pooling lies in between
        "conv2_block1_0_conv": "conv2_block1_0_conv",
        "conv2_block2_3_conv": "conv2_block2_3_conv",
        "conv3_block1_1_conv": "conv3_block1_1_relu",
        "conv5_block3_2_conv": "conv5_block3_2_relu",
    },
    named(
        ("conv1_conv", "conv2_block1_preact_bn"),
        *(("_1_conv", "_1_bn"), ("_2_conv", "_2_bn"), ("conv", None)),
    ),
)
MOBILENETV2 = application(
    "MobileNetV2",
    {
        "Conv1": "Conv1_relu",
        "expanded_conv_depthwise": "expanded_conv_depthwise_relu",
        "block_1_project": "block_1_project_BN",
        "block_16_expand": "block_16_expand_relu",
        "Conv_1": "out_relu",
    },
    named(("Conv1", "bn_Conv1"), ("Conv_1", "Conv_1_bn"), ("", "_BN")),
)
EFFICIENTNETB0 = application(
    "EfficientNetB0",
    {
        "stem_conv": "stem_activation",
        "block1a_dwconv": "block1a_activation",
        "block1a_se_reduce": "block1a_se_reduce",
        "block1a_se_expand": "block1a_se_expand",
        "block1a_project_conv": "block1a_project_bn",
        "block2a_expand_conv": "block2a_expand_activation",
        "top_conv": "top_activation",
    },
    named(("dwconv", "bn"), ("_conv", "_bn")),
)
DENSENET121 = application(
    "DenseNet121",
    {
        "conv1_conv": "conv1_relu",
        "conv2_block1_1_conv": "conv2_block1_1_relu",
        "conv2_block1_2_conv": "conv2_block1_2_conv",
        "pool2_conv": "pool2_conv",  # scored after an average pooling
        "conv5_block16_1_conv": "conv5_block16_1_relu",
    },
    named(("_1_conv", "_1_bn"), ("conv1_conv", "conv1_bn")),
    behind_in_densenet({2: 6, 3: 12, 4: 24, 5: 16}, {2: 64, 3: 128, 4: 256, 5: 512}, 32),
)
VGG16 = application(
    "VGG16",
    {name: name for name in ("block1_conv1", "block3_conv3", "block5_conv3")},
)


def small_densenet():
    """A DenseNet of two stages, with the names that it has in `keras.applications`."""

    def norm_relu(x, name, norm="bn"):
        return layers.ReLU(name=f"{name}relu")(layers.BatchNormalization(name=f"{name}{norm}")(x))

    def conv(x, filters, size, name):
        options = {"padding": "same", "use_bias": False}
        return layers.Conv2D(filters, size, name=f"{name}conv", **options)(x)

    image = keras.Input((16, 16, 3))
    x = norm_relu(conv(image, 12, 3, "conv1_"), "conv1_")
    x = layers.MaxPooling2D(2, name="pool1")(x)
    for stage, count in ((2, 3), (3, 2)):
        for block in range(1, count + 1):
            name = f"conv{stage}_block{block}_"
            new = conv(norm_relu(x, f"{name}0_"), 16, 1, f"{name}1_")
            new = conv(norm_relu(new, f"{name}1_"), 6, 3, f"{name}2_")
            x = layers.Concatenate(name=f"{name}concat")([x, new])
        if stage == 2:
            x = conv(norm_relu(x, "pool2_"), 15, 1, "pool2_")
            x = layers.AveragePooling2D(2, name="pool2_pool")(x)
    x = layers.GlobalAveragePooling2D()(norm_relu(x, ""))
    model = keras.Model(image, layers.Dense(CLASSES)(x))
    return Network(
        compiled(model),
        {
            "conv1_conv": "conv1_relu",
            "conv2_block1_1_conv": "conv2_block1_1_relu",
            "conv2_block1_2_conv": "conv2_block1_2_conv",
            "conv2_block3_2_conv": "conv2_block3_2_conv",
            "pool2_conv": "pool2_conv",  # scored after an average pooling
            "conv3_block2_1_conv": "conv3_block2_1_relu",
        },
        named(("_1_conv", "_1_bn"), ("conv1_conv", "conv1_bn")),
        behind_in_densenet({2: 3, 3: 2}, {2: 12, 3: 15}, 6),
    )


def preactivated_resnet():
    """Two blocks of ResNet50V2: the sum of a stage is normed where the next block reads it."""
    x = image = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same", name="conv1_conv")(x)
    x = layers.MaxPooling2D(2)(x)
    for block, shortcut in ((1, True), (2, False)):
        name = f"block{block}_"
        read = layers.BatchNormalization(name=f"{name}preact_bn")(x)
        read = layers.ReLU(name=f"{name}preact_relu")(read)
        x = layers.Conv2D(20, 1, name=f"{name}0_conv")(read) if shortcut else x
        new = layers.Conv2D(10, 1, use_bias=False, name=f"{name}1_conv")(read)
        new = layers.BatchNormalization(name=f"{name}1_bn")(new)
        new = layers.ReLU(name=f"{name}1_relu")(new)
        new = layers.Conv2D(20, 3, padding="same", name=f"{name}3_conv")(new)
        x = layers.Add()([x, new])
    x = layers.ReLU()(layers.BatchNormalization(name="post_bn")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return Network(
        compiled(keras.Model(image, layers.Dense(CLASSES)(x))),
        {
            "conv1_conv": "block1_preact_relu",  # nothing but a pooling lies in between
            "block1_0_conv": "block1_0_conv",
            "block1_1_conv": "block1_1_relu",
            "block2_3_conv": "block2_3_conv",
        },
        named(("conv1_conv", "block1_preact_bn"), ("_1_conv", "_1_bn"), ("conv", None)),
    )


def squeeze_and_excitation():
    """Two blocks of EfficientNet: swish, and a gate of each channel from the means of all."""

    def norm_swish(x, name):
        x = layers.BatchNormalization(name=f"{name}bn")(x)
        return layers.Activation("swish", name=f"{name}activation")(x)

    def conv(x, filters, size, name, **options):
        return layers.Conv2D(filters, size, padding="same", name=name, **options)(x)

    image = keras.Input((16, 16, 3))
    x = norm_swish(conv(image, 12, 3, "stem_conv", strides=2, use_bias=False), "stem_")
    for name in ("1", "2"):
        given = x
        x = norm_swish(conv(x, 24, 1, f"{name}_expand_conv", use_bias=False), f"{name}_expand_")
        depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_dwconv")
        x = norm_swish(depthwise(x), f"{name}_")
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = conv(gate, 10, 1, f"{name}_se_reduce", activation="swish")
        gate = conv(gate, 24, 1, f"{name}_se_expand", activation="sigmoid")
        x = conv(layers.Multiply()([x, gate]), 12, 1, f"{name}_project_conv", use_bias=False)
        x = layers.BatchNormalization(name=f"{name}_project_bn")(x)
        x = layers.Add()([x, given]) if name == "2" else x
    x = layers.GlobalAveragePooling2D()(norm_swish(conv(x, 16, 1, "top_conv"), "top_"))
    return Network(
        compiled(keras.Model(image, layers.Dense(CLASSES)(x))),
        {
            "stem_conv": "stem_activation",
            "1_expand_conv": "1_expand_activation",
            "1_dwconv": "1_activation",
            "1_se_reduce": "1_se_reduce",
            "1_se_expand": "1_se_expand",
            "1_project_conv": "1_project_bn",
            "top_conv": "top_activation",
        },
        named(("dwconv", "bn"), ("_conv", "_bn")),
    )


def unet():
    def block(x, filters, name, up=False):
        kind = layers.Conv2DTranspose if up else layers.Conv2D
        options = {"strides": 2} if up else {}
        x = kind(filters, 3, padding="same", use_bias=False, name=name, **options)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    image = keras.Input((16, 16, 3))
    high = block(image, 10, "high")
    low = block(layers.MaxPooling2D()(high), 12, "low")
    deep = block(layers.MaxPooling2D()(low), 14, "deep")
    x = layers.Concatenate()([block(deep, 12, "up_low", up=True), low])
    x = layers.Concatenate()([block(x, 10, "up_high", up=True), high])
    x = block(x, 10, "last")
    model = keras.Model(image, layers.Conv2D(2, 1, name="masks")(x))
    return Network(
        compiled(model, "mse"),
        {name: f"{name}_relu" for name in ("high", "low", "deep", "up_low", "up_high", "last")},
        named(("", "_bn")),
        cost=squared_error,
        targets=lambda rng, n: rng.normal(size=(n, 16, 16, 2)).astype("float32"),
    )


def two_inputs_two_outputs():
    left, right = keras.Input((12, 12, 2), name="left"), keras.Input((6, 6, 3), name="right")
    a = layers.Conv2D(10, 3, padding="same", activation="tanh", name="a")(left)
    a = layers.MaxPooling2D(name="a_pool")(a)
    b = layers.Conv2D(12, 3, padding="same", activation="relu", name="b")(right)
    x = layers.Concatenate()([a, b])
    x = layers.Conv2D(10, 3, name="both")(x)
    x = layers.LeakyReLU(name="both_leaky")(x)
    number = layers.Dense(2, name="number")(layers.GlobalMaxPooling2D()(x))
    kind = layers.Dense(CLASSES, name="kind")(layers.Flatten()(x))
    losses = ["mse", keras.losses.SparseCategoricalCrossentropy(from_logits=True)]
    model = compiled(keras.Model([left, right], [number, kind]), losses, loss_weights=[2.0, 0.5])

    def cost(y, out):
        return 2.0 * squared_error(y[0], out[0]) + 0.5 * cross_entropy(y[1], out[1])

    def targets(rng, n):
        return [rng.normal(size=(n, 2)).astype("float32"), rng.integers(0, CLASSES, n)]

    places = {"a": "a", "b": "b", "both": "both_leaky"}
    return Network(model, places, cost=cost, targets=targets)


def nested_sequential():
    inner = keras.Sequential(
        [
            layers.Conv2D(10, 3, name="inner_conv"),
            layers.BatchNormalization(name="inner_conv_bn"),
            layers.Activation("relu", name="inner_relu"),
            layers.MaxPooling2D(name="inner_pool"),
        ],
        name="inner",
    )
    outer = [
        layers.Conv2D(10, 3, activation="relu", name="stem"),
        inner,
        layers.Conv2D(12, 2, activation="relu", name="last"),
        layers.GlobalAveragePooling2D(name="gap"),
        layers.Dense(CLASSES, name="logits"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 3)), *outer])

    def trace(x):
        stem = outer[0](x)
        conv = inner.layers[0](stem)
        relu = inner.layers[2](inner.layers[1](conv, training=False))
        last = outer[2](inner.layers[3](relu))
        logits = outer[4](outer[3](last))
        return logits, {"stem": [(stem, 100)], "inner_conv": [(relu, 64)], "last": [(last, 9)]}

    return Network(compiled(model), norm_of=named(("inner_conv", "inner_conv_bn")), trace=trace)


def shared_layer():
    twice = layers.Conv2D(10, 3, padding="same", activation="relu", name="twice")
    after = layers.Conv2D(12, 3, activation="relu", name="after")
    logits = layers.Dense(CLASSES, name="logits")
    gap = layers.GlobalAveragePooling2D(name="gap")
    left, right = keras.Input((8, 8, 3)), keras.Input((6, 6, 3))

    def ends(a, b):
        return layers.concatenate([gap(after(a)), layers.GlobalMaxPooling2D()(b)])

    model = keras.Model([left, right], logits(ends(twice(left), twice(right))))

    def trace(x):
        a, b = twice(x[0]), twice(x[1])
        c = after(a)
        out = logits(tf.concat([gap(c), tf.reduce_max(b, axis=(1, 2))], axis=-1))
        return out, {"twice": [(a, 64), (b, 36)], "after": [(c, 36)]}

    return Network(compiled(model), trace=trace)


def depthwise_separable():
    x = image = keras.Input((12, 12, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=4, use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Activation("relu6", name="depthwise_relu6")(x)
    x = layers.SeparableConv2D(10, 3, name="separable")(x)
    x = layers.BatchNormalization(name="separable_bn")(x)
    x = layers.ReLU(name="separable_relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(12, 2, groups=2, activation="elu", name="grouped")(x)
    model = keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))
    return Network(
        compiled(model),
        {
            "depthwise": "depthwise_relu6",
            "separable": "separable_relu",
            "grouped": "grouped",
        },
        named(("depthwise", "depthwise_bn"), ("separable", "separable_bn")),
    )


def float16_net(policy):
    x = image = keras.Input((12, 12, 3))
    x = layers.Conv2D(10, 3, name="first", dtype=policy)(x)
    x = layers.BatchNormalization(name="first_bn", dtype=policy)(x)
    x = layers.ReLU(name="first_relu", dtype=policy)(x)
    x = layers.MaxPooling2D(dtype=policy)(x)
    x = layers.Conv2D(12, 3, activation="relu", name="second", dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    return keras.Model(image, layers.Dense(CLASSES, dtype="float32")(x))


def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    model, twin = float16_net("mixed_float16"), float16_net("float32")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=256.0)

    def trace(x):
        """A float32 network of the same weights."""
        twin.set_weights(model.get_weights())
        names = ["first_relu", "second"]
        read = keras.Model(twin.inputs, [*(twin.get_layer(n).output for n in names), twin.output])
        first, second, out = read(x, training=False)
        return out, {"first": [(first, 100)], "second": [(second, 9)]}

    return Network(
        compiled(model, optimizer=scaled),
        norm_of=named(("first", "first_bn")),
        trace=trace,
        rtol=2e-2,
    )


BIG = [RESNET50, RESNET50V2, MOBILENETV2, EFFICIENTNETB0, DENSENET121, VGG16]
SMALL = [
    small_densenet,
    preactivated_resnet,
    squeeze_and_excitation,
    unet,
    two_inputs_two_outputs,
    nested_sequential,
    shared_layer,
    depthwise_separable,
]
SMALL += [mixed_float16]


def unlike_new(model):
    """Gives batch norms and biases numbers that are not those of a new network."""
    rng = np.random.default_rng(2)
    for variable in model.weights:
        draw = rng.normal(size=variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(1 + 0.4 * np.tanh(draw))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(0.2 * draw)


def trace_by_name(network):
    """z by the names of layers in the graph, all in one forward pass."""
    model = network.model
    tensors = [model.get_layer(z).output for z in network.places.values()]
    positions = [np.prod(model.get_layer(name).output.shape[1:-1]) for name in network.places]
    read = keras.Model(model.inputs, [tensors, keras.tree.flatten(model.outputs)])

    def trace(x):
        found, out = read(x, training=False)
        z = zip(network.places, zip(found, positions, strict=True), strict=True)
        return (out if len(out) > 1 else out[0]), {name: [of] for name, of in z}

    return trace


def brute_force(network, x, y, n):
    trace, sums = network.trace or trace_by_name(network), {}
    for example in range(n):
        one_x, one_y = keras.tree.map_structure(lambda a, i=example: a[i : i + 1], (x, y))
        one_x = keras.tree.map_structure(tf.constant, one_x)
        with tf.GradientTape() as tape:
            for image in keras.tree.flatten(one_x):
                tape.watch(image)
            out, uses = trace(one_x)
            cost = tf.reduce_sum(network.cost(one_y, out))
        z = {name: [tensor for tensor, _ in of] for name, of in uses.items()}
        for name, gradients in tape.gradient(cost, z).items():
            for (tensor, positions), gradient in zip(uses[name], gradients, strict=True):
                product = tensor.numpy().astype("float64") * gradient.numpy().astype("float64")
                total = np.abs(product.sum(axis=tuple(range(product.ndim - 1)))) / positions
                sums[name] = sums.get(name, 0) + total / n
    return sums


def assert_scores_match(scores, reference, rtol):
    for name, expected in reference.items():
        assert np.isfinite(expected).all()
        assert expected.max() > 0, "a reference of nothing proves nothing"
        error = np.abs(scores[name] - expected).max() / expected.max()
        assert error < rtol, f"{name}: {error:.1e} of the layer's largest score"


def all_layers(model):
    for layer in model.layers:
        yield from all_layers(layer) if isinstance(layer, keras.Model) else (layer,)


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def may_change(network, chosen):
    """By path of a weight, where a restart may change it; all of a new kernel has to change."""
    found = {layer.name: layer for layer in all_layers(network.model)}
    allowed, new = {}, []
    for name, filters in chosen.items():
        layer = found[name]
        separable = isinstance(layer, layers.SeparableConv2D)
        kernel = layer.pointwise_kernel if separable else layer.kernel
        mask = np.zeros(kernel.shape, bool)
        for k in filters:
            if isinstance(layer, layers.Conv2DTranspose):
                mask[:, :, k, :] = True
            elif isinstance(layer, layers.DepthwiseConv2D):
                mask[:, :, k // kernel.shape[-1], k % kernel.shape[-1]] = True
            else:
                mask[:, :, :, k] = True
        allowed[kernel.path] = mask
        new.append(kernel.path)
        norm = found.get(network.norm_of(name))
        for weight in ([layer.bias] if layer.use_bias else []) + (norm.weights if norm else []):
            allowed[weight.path] = np.isin(np.arange(weight.shape[0]), filters)
        if norm:
            new += [norm.moving_variance.path]
        for behind, place in network.norms_behind(name).items():
            for weight in found[behind].weights:
                moved = np.isin(np.arange(weight.shape[0]), np.asarray(filters) + place)
                allowed[weight.path] = moved | allowed.get(weight.path, False)
            new += [found[behind].moving_variance.path]
    return allowed, new


def assert_only_chosen_changed(network, chosen, before, after):
    assert chosen
    allowed, new = may_change(network, chosen)
    assert before.keys() == after.keys()
    for path, old in before.items():
        changed = old != after[path]
        assert not (changed & ~allowed.get(path, np.zeros((), bool))).any(), path
    for path in new:
        assert (before[path] != after[path])[allowed[path]].all(), path


class Compares(RestartObserver):
    """Compares all weights over each restart."""

    def __init__(self, network):
        self.network, self.restarts = network, 0

    def on_restart_begin(self, event, restart):
        self.before = weights_of(restart.model)

    def on_restart_end(self, event, restart):
        chosen = {name: of.filters for name, of in event.layers.items()}
        assert_only_chosen_changed(self.network, chosen, self.before, weights_of(restart.model))
        self.restarts += 1


# Three small networks have the joints of these, and MobileNetV2 the sums of norms of ResNet50.
# Their graphs take ten times as long, and VGG16 has millions of weights.
LONGEST = (RESNET50, RESNET50V2, EFFICIENTNETB0, DENSENET121, VGG16)


@pytest.mark.parametrize(
    "build",
    [*(pytest.param(of, marks=[pytest.mark.slow] * (of in LONGEST)) for of in BIG), *SMALL],
)
def test_all_convolutions_are_scored_by_the_formula_and_restarted_alone(build):
    network = build()
    model = network.model
    unlike_new(model)
    x, y = network.data(2)
    scores = kr.score_filters(model, x, y)
    # The last convolution of the U-Net makes its output.
    expected = {of.name for of in all_layers(model) if isinstance(of, CONVOLUTIONS)} - {"masks"}
    assert set(scores) == expected
    assert_scores_match(scores, brute_force(network, x, y, 2), network.rtol)

    # A tenth of a layer, half up.
    chosen = kr.select_filters(scores, fraction=0.1)
    assert {name: len(filters) for name, filters in chosen.items()} == {
        name: (len(of) + 5) // 10 for name, of in scores.items() if len(of) >= 5
    }
    before = weights_of(model)
    kr.restart_filters(model, chosen, seed=3)
    assert_only_chosen_changed(network, chosen, before, weights_of(model))


# Tracing takes most of the time. The formula is tested on all of them above, and the zoo fits
# networks with the joints of those that are slow here.
IN_THE_ZOO = [small_densenet, squeeze_and_excitation, unet, two_inputs_two_outputs]


@pytest.mark.parametrize(
    "build",
    [
        *(pytest.param(of, marks=pytest.mark.slow) for of in [*BIG, *IN_THE_ZOO]),
        *(of for of in SMALL if of not in IN_THE_ZOO),
    ],
)
def test_fit_restarts_filters_twice_and_leaves_all_else(build):
    network = build()
    compares = Compares(network)
    restart = kr.PartialRestart(
        when=kr.EveryEpochs(1, monitor="loss"),
        max_restarts=2,
        stop_on_repeat=False,
        observers=[compares],
    )
    x, y = network.data(8)
    history = network.model.fit(
        x, y, batch_size=4, epochs=3, verbose=0, shuffle=False, callbacks=[restart]
    )
    assert np.isfinite(history.history["loss"]).all()
    assert compares.restarts == len(restart.events) == 2
    assert [event.epoch for event in restart.events] == [0, 1]
    for event in restart.events:
        for of in event.layers.values():
            order = sorted(range(len(of.scores)), key=lambda k, of=of: (of.scores[k], k))
            assert of.filters == sorted(order[: (len(of.scores) + 5) // 10])
            assert max(of.scores) > 0
    first, second = restart.events
    name = next(iter(first.layers))
    assert first.layers[name].scores != second.layers[name].scores

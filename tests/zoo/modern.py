"""Blocks of newer networks: split, shuffled, gated, gathered and scaled channels."""

import keras
import tensorflow as tf
from keras import layers

from tests.zoo.kinds import LABELS, Example, classes, classifier, kind, noise
from tests.zoo.plain import conv, head


def on_image(*body):
    """A classifier of images of 12 pixels."""
    x = image = keras.Input((12, 12, 3))
    for part in body:
        x = part(x)
    return keras.Model(image, head(x))


class ConvNeXtBlock(layers.Layer):
    """A depthwise convolution, a norm, two dense layers and a scale that is trained."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = layers.DepthwiseConv2D(3, padding="same")
        self.norm = layers.LayerNormalization(epsilon=1e-6)
        self.wide, self.narrow = layers.Dense(4 * width, activation="gelu"), layers.Dense(width)
        self.scale = self.add_weight(
            shape=(width,), initializer=lambda *a, **k: tf.fill([width], 0.5)
        )

    def call(self, x):
        return x + self.scale * self.narrow(self.wide(self.norm(self.depthwise(x))))


@kind("ConvNeXt block with layer scale")
def convnext() -> Example:
    return classifier(
        on_image(conv(8, 4, strides=4), layers.LayerNormalization(), ConvNeXtBlock(8)),
        16,
    )


class Ghost(layers.Layer):
    """Half of the channels come from a cheap depthwise convolution of the other half."""

    def __init__(self, filters):
        super().__init__()
        self.primary = layers.Conv2D(filters // 2, 3, padding="same", use_bias=False)
        self.primary_norm = layers.BatchNormalization()
        self.cheap = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        self.cheap_norm = layers.BatchNormalization()

    def call(self, x, training=None):
        own = tf.nn.relu(self.primary_norm(self.primary(x), training=training))
        cheap = tf.nn.relu(self.cheap_norm(self.cheap(own), training=training))
        return tf.concat([own, cheap], axis=-1)


@kind("Ghost module")
def ghost() -> Example:
    return classifier(on_image(Ghost(8), Ghost(12)), 8 + 12)


class Inception(layers.Layer):
    """Four branches beside each other, one of which pools."""

    def __init__(self):
        super().__init__()
        options = {"padding": "same", "activation": "relu"}
        self.one = layers.Conv2D(4, 1, **options)
        self.three = [layers.Conv2D(3, 1, **options), layers.Conv2D(5, 3, **options)]
        self.five = [layers.Conv2D(2, 1, **options), layers.Conv2D(4, 5, **options)]
        self.pool, self.after = layers.MaxPooling2D(3, 1, "same"), layers.Conv2D(3, 1, **options)

    def call(self, x):
        three, five = self.three[1](self.three[0](x)), self.five[1](self.five[0](x))
        return keras.ops.concatenate([self.one(x), three, five, self.after(self.pool(x))], -1)


@kind("Inception block as a Layer")
def inception_layer() -> Example:
    return classifier(on_image(Inception(), conv(6)), 21 + 6)


class NestedUNet(keras.Model):
    """UNet++: each node reads all before it in its row, and the one below."""

    def __init__(self):
        super().__init__()
        self.node = {
            f"{i}{j}": layers.Conv2D(4 + i, 3, padding="same", activation="relu")
            for i in range(3)
            for j in range(3 - i)
        }
        self.pool, self.up = layers.MaxPooling2D(), layers.UpSampling2D()
        self.masks = layers.Conv2D(1, 1)

    def call(self, x):
        found = {}
        for i in range(3):
            found[i, 0] = self.node[f"{i}0"](x if i == 0 else self.pool(found[i - 1, 0]))
        for j in range(1, 3):
            for i in range(3 - j):
                row = [found[i, k] for k in range(j)]
                read = tf.concat([*row, self.up(found[i + 1, j - 1])], axis=-1)
                found[i, j] = self.node[f"{i}{j}"](read)
        return self.masks(found[0, 2])


@kind("UNet++, subclassed")
def nested_unet() -> Example:
    model = NestedUNet()
    model.compile("adam", "mse")
    filters = 3 * 4 + 2 * 5 + 6
    return Example(model, noise(12, 12, 3), noise(12, 12, 1, seed=1), filters, filters + 1)


class Gathered(layers.Layer):
    """A deformable convolution in small: positions are moved by what a convolution says."""

    def __init__(self, filters):
        super().__init__()
        self.features = layers.Conv2D(filters, 3, padding="same", activation="relu")
        self.offsets = layers.Conv2D(2, 3, padding="same", activation="tanh")

    def call(self, x):
        z, offsets = self.features(x), self.offsets(x)
        height, width = z.shape[1], z.shape[2]
        rows, columns = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
        grid = tf.cast(tf.stack([rows, columns], -1), tf.float32)
        moved = tf.clip_by_value(tf.round(grid + 2 * offsets), 0, [height - 1.0, width - 1.0])
        sampled = tf.gather_nd(z, tf.cast(moved, tf.int32), batch_dims=1)
        return sampled * (1 + tf.reduce_mean(offsets, -1, keepdims=True))


@kind("Gathered positions (deformable)")
def deformable() -> Example:
    return classifier(on_image(Gathered(6), conv(5)), 6 + 2 + 5)


@kind("Siamese network of two input sizes")
def two_sizes() -> Example:
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            *(layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(6, 3, activation="relu"), layers.GlobalAveragePooling2D()),
        ]
    )
    large, small = keras.Input((16, 16, 3)), keras.Input((10, 10, 3))
    both = layers.Concatenate()([encoder(large), encoder(small)])
    model = keras.Model([large, small], layers.Dense(3)(both))
    model.compile("adam", LABELS)
    return Example(model, [noise(16, 16, 3), noise(10, 10, 3, seed=1)], classes(), 10, 10)


class StopGradient(layers.Layer):
    def call(self, x):
        return tf.stop_gradient(x)


@kind("Second task behind stop_gradient")
def second_task() -> Example:
    image = keras.Input((12, 12, 3))
    x = conv(6, name="shared")(image)
    main = head(conv(4, name="main_conv")(x))
    side = head(conv(5, name="side_conv")(StopGradient()(x)))
    model = keras.Model(image, [main, side])
    model.compile("adam", [LABELS, LABELS])
    return Example(model, noise(12, 12, 3), [classes(), classes()], 15, 15)


class WithOwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + 0.1 * tf.reduce_mean(tf.cast(y_pred, tf.float32) ** 2)


@kind("compute_loss of its own in mixed precision")
def own_loss_mixed() -> Example:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        image = keras.Input((12, 12, 3))
        x = layers.BatchNormalization()(conv(6)(image))
        model = WithOwnLoss(
            image, layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling2D()(conv(4)(x)))
        )
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=64.0)
    model.compile(optimizer, LABELS)
    return Example(model, noise(12, 12, 3), classes(), 10, 10)


class ShuffleUnit(layers.Layer):
    """One half of the channels passes; the other is computed; then the halves are shuffled."""

    def __init__(self, half):
        super().__init__()
        options = {"use_bias": False, "padding": "same"}
        self.reduce, self.expand = (layers.Conv2D(half, 1, **options) for _ in range(2))
        self.depthwise = layers.DepthwiseConv2D(3, **options)
        self.norms = [layers.BatchNormalization() for _ in range(3)]

    def call(self, x, training=None):
        kept, y = tf.split(x, 2, axis=-1)
        y = tf.nn.relu(self.norms[0](self.reduce(y), training=training))
        y = self.norms[1](self.depthwise(y), training=training)
        y = tf.nn.relu(self.norms[2](self.expand(y), training=training))
        height, width, half = y.shape[1:]
        both = tf.reshape(tf.concat([kept, y], -1), [-1, height, width, 2, half])
        return tf.reshape(tf.transpose(both, [0, 1, 2, 4, 3]), [-1, height, width, 2 * half])


@kind("ShuffleNet unit (split and shuffle)")
def shufflenet() -> Example:
    return classifier(on_image(conv(8), ShuffleUnit(4), ShuffleUnit(4)), 8 + 2 * 12)


@kind("Feature-wise modulation (FiLM)")
def film() -> Example:
    image, condition = keras.Input((12, 12, 3)), keras.Input((5,))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False)(image))
    scale, shift = (layers.Reshape((1, 1, 6))(layers.Dense(6)(condition)) for _ in range(2))
    x = layers.ReLU()(x * (1 + scale) + shift)
    model = keras.Model([image, condition], head(conv(4)(x)))
    model.compile("adam", LABELS)
    return Example(model, [noise(12, 12, 3), noise(5, seed=1)], classes(), 10, 10)


class DropPath(layers.Layer):
    """Leaves out a branch for some examples."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.seed = rate, keras.random.SeedGenerator(3)

    def call(self, x, training=None):
        if not training:
            return x
        draw = keras.random.uniform((tf.shape(x)[0], 1, 1, 1), seed=self.seed)
        return x * tf.floor(draw + 1 - self.rate) / (1 - self.rate)


@kind("Stochastic depth")
def stochastic_depth() -> Example:
    def body(x):
        x = conv(6)(x)
        y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x))
        return layers.ReLU()(x + DropPath(0.2)(y))

    return classifier(on_image(body), 12)


class Maxout(layers.Layer):
    """The larger of each two channels."""

    def __init__(self, filters):
        super().__init__()
        self.features = layers.Conv2D(2 * filters, 3)

    def call(self, x):
        z = self.features(x)
        return tf.reduce_max(tf.reshape(z, [-1, *z.shape[1:3], z.shape[3] // 2, 2]), axis=-1)


@kind("Maxout")
def maxout() -> Example:
    return classifier(on_image(Maxout(3), conv(4)), 6 + 4)


@kind("TimeDistributed with an unknown number of frames")
def unknown_frames() -> Example:
    video = keras.Input((None, 8, 8, 2))
    frame = keras.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.Flatten()])
    x = layers.TimeDistributed(frame)(video)
    x = layers.Conv1D(6, 2, padding="same", activation="relu")(x)
    model = keras.Model(video, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return classifier(model, 6, 10, shape=(3, 8, 8, 2))


class InstanceNorm(layers.Layer):
    """Normalizes each channel of each image."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer="ones")
        self.beta = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, x):
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-5) * self.gamma + self.beta


@kind("Instance norm written as a Layer")
def instance_norm() -> Example:
    return classifier(on_image(conv(6), InstanceNorm(), layers.Conv2D(4, 3), InstanceNorm()), 10)


class Linear(layers.Layer):
    """From the guide to new layers."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units))
        self.b = self.add_weight(shape=(self.units,))

    def call(self, x):
        return tf.matmul(x, self.w) + self.b


@kind("Dense head written as a Layer")
def own_head() -> Example:
    image = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu")(conv(4)(image)))
    return classifier(keras.Model(image, Linear(3)(x)), 10)


class OwnConvolution(layers.Layer):
    """A convolution by TensorFlow's function, with a kernel of its own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 4))

    def call(self, x):
        return tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "VALID"))


@kind("Convolution by add_weight and tf.nn.conv2d")
def own_convolution() -> Example:
    return classifier(on_image(conv(6), OwnConvolution()), 6, 10)

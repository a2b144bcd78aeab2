"""Subclassed models, and convolutions inside custom layers."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.zoo.kinds import Example, classifier, kind, noise


class SmallCNN(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(6, 3, activation="relu")
        self.second = layers.Conv2D(8, 3)
        self.norm = layers.BatchNormalization()
        self.pool = layers.GlobalAveragePooling2D()
        self.out = layers.Dense(3)

    def call(self, x, training=False):
        x = tf.nn.max_pool2d(self.first(x), 2, 2, "VALID")
        return self.out(self.pool(tf.nn.relu(self.norm(self.second(x), training=training))))


@kind("Subclassed CNN")
def subclassed() -> Example:
    return classifier(SmallCNN(), 14)


class Residual(layers.Layer):
    """The way most residual networks are written."""

    def __init__(self, filters, strides=1):
        super().__init__()
        self.conv1 = layers.Conv2D(filters, 3, strides, padding="same")
        self.conv2 = layers.Conv2D(filters, 3, padding="same")
        self.norm1, self.norm2 = layers.BatchNormalization(), layers.BatchNormalization()
        self.shortcut = layers.Conv2D(filters, 1, strides) if strides > 1 else layers.Identity()

    def call(self, x, training=None):
        y = tf.nn.relu(self.norm1(self.conv1(x), training=training))
        return tf.nn.relu(self.shortcut(x) + self.norm2(self.conv2(y), training=training))


@kind("Residual block as a Layer (ResNet)")
def residual() -> Example:
    body = [layers.Conv2D(6, 3), Residual(6), Residual(8, 2)]
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), *body, layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )
    return classifier(model, 6 + 12 + 24)


class Stage(layers.Layer):
    def __init__(self, filters):
        super().__init__()
        self.blocks = [Residual(filters, 2), Residual(filters)]

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x, training=training)
        return x


class Trunk(layers.Layer):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(4, 3, activation="relu")
        self.stages = {"low": Stage(4), "high": Stage(6)}

    def call(self, x, training=None):
        return self.stages["high"](self.stages["low"](self.stem(x), training=training))


class Deep(keras.Model):
    def __init__(self):
        super().__init__()
        self.trunk, self.out = Trunk(), layers.Dense(3)

    def call(self, x, training=None):
        return self.out(ops.mean(self.trunk(x, training=training), axis=(1, 2)))


@kind("Layers that hold layers, nested three deep")
def nested_three_deep() -> Example:
    return classifier(Deep(), 4 + 5 * 4 + 5 * 6)


class WideBlock(layers.Layer):
    """Pre-activation, with dropout between the convolutions."""

    def __init__(self, filters):
        super().__init__()
        self.norm1, self.norm2 = layers.BatchNormalization(), layers.BatchNormalization()
        self.conv1 = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.conv2 = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.drop = layers.Dropout(0.3)
        self.shortcut = layers.Conv2D(filters, 1, use_bias=False)

    def call(self, x, training=False):
        y = ops.relu(self.norm1(x, training=training))
        z = self.drop(ops.relu(self.norm2(self.conv1(y), training=training)), training=training)
        return self.shortcut(y) + self.conv2(z)


class WideResNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(4, 3, padding="same")
        self.blocks = [WideBlock(8), WideBlock(8)]
        self.out = layers.Dense(3)

    def call(self, x, training=False):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.out(ops.mean(ops.relu(x), (1, 2)))


@kind("Wide ResNet, subclassed")
def wide_resnet() -> Example:
    return classifier(WideResNet(), 4 + 2 * 24)


class InvertedResidual(layers.Layer):
    """MobileNetV2's block; with a gate, EfficientNet's."""

    def __init__(self, filters, gated=False):
        super().__init__()
        self.expand = layers.Conv2D(8, 1, use_bias=False)
        self.depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        self.project = layers.Conv2D(filters, 1, use_bias=False)
        self.norms = [layers.BatchNormalization() for _ in range(3)]
        self.gate = [layers.Dense(2, "swish"), layers.Dense(8, "sigmoid")] if gated else []
        self.act = ops.silu if gated else ops.relu6

    def call(self, x, training=None):
        y = self.act(self.norms[0](self.expand(x), training=training))
        y = self.act(self.norms[1](self.depthwise(y), training=training))
        if self.gate:
            gate = ops.mean(y, axis=(1, 2), keepdims=True)
            for layer in self.gate:
                gate = layer(gate)
            y = y * gate
        return x + self.norms[2](self.project(y), training=training)


def _of_inverted(gated):
    body = [layers.Conv2D(4, 3), InvertedResidual(4, gated), InvertedResidual(4, gated)]
    return keras.Sequential(
        [keras.Input((12, 12, 3)), *body, layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )


@kind("MobileNet of blocks as layers")
def mobilenet_blocks() -> Example:
    return classifier(_of_inverted(gated=False), 4 + 2 * 20)


@kind("EfficientNet of blocks as layers")
def efficientnet_blocks() -> Example:
    return classifier(_of_inverted(gated=True), 4 + 2 * 20)


class Conv2Plus1D(layers.Layer):
    """From the Keras example on video classification."""

    def __init__(self, filters):
        super().__init__()
        self.seq = keras.Sequential(
            [
                layers.Conv3D(filters, (1, 3, 3), padding="same"),
                layers.Conv3D(filters, (3, 1, 1), padding="same"),
            ]
        )

    def call(self, x):
        return self.seq(x)


@kind("Conv2Plus1D (video)")
def conv_2_plus_1d() -> Example:
    model = keras.Sequential(
        [
            *(keras.Input((4, 8, 8, 2)), Conv2Plus1D(4), layers.BatchNormalization()),
            *(layers.ReLU(), layers.GlobalAveragePooling3D(), layers.Dense(3)),
        ]
    )
    return classifier(model, 8, shape=(4, 8, 8, 2))


class TemporalBlock(layers.Layer):
    def __init__(self, filters, dilation):
        super().__init__()
        settings = {"dilation_rate": dilation, "padding": "causal", "activation": "relu"}
        self.conv1, self.conv2 = (layers.Conv1D(filters, 3, **settings) for _ in range(2))
        self.drop, self.match = layers.SpatialDropout1D(0.1), layers.Conv1D(filters, 1)

    def call(self, x, training=None):
        y = self.drop(self.conv2(self.drop(self.conv1(x), training=training)), training=training)
        return ops.relu(self.match(x) + y)


@kind("Temporal convolutional network")
def temporal() -> Example:
    body = [TemporalBlock(4, 1), TemporalBlock(6, 2)]
    model = keras.Sequential(
        [keras.Input((16, 2)), *body, layers.Lambda(lambda x: x[:, -1]), layers.Dense(3)]
    )
    return classifier(model, 12 + 18, shape=(16, 2))


class UNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.down = [layers.Conv2D(n, 3, padding="same", activation="relu") for n in (4, 6)]
        self.pool, self.bottom = layers.MaxPooling2D(2), layers.Conv2D(8, 3, padding="same")
        self.up = [layers.Conv2DTranspose(n, 2, 2, activation="relu") for n in (6, 4)]
        self.merge = [layers.Conv2D(n, 3, padding="same", activation="relu") for n in (6, 4)]
        self.out = layers.Conv2D(1, 1)

    def call(self, x):
        skips = []
        for conv in self.down:
            skips.append(conv(x))
            x = self.pool(skips[-1])
        x = tf.nn.relu(self.bottom(x))
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(tf.concat([up(x), skip], axis=-1))
        return self.out(x)


@kind("U-Net, subclassed")
def unet() -> Example:
    model = UNet()
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    y = (noise(8, 8, 1, seed=1) > 0.5).astype("float32")
    return Example(model, noise(8, 8, 3), y, watched=38, filters=39)


class FeaturePyramid(layers.Layer):
    """From the Keras example on RetinaNet."""

    def __init__(self):
        super().__init__()
        self.lateral = [layers.Conv2D(4, 1) for _ in range(2)]
        self.smooth = [layers.Conv2D(4, 3, padding="same") for _ in range(2)]
        self.coarse = layers.Conv2D(4, 3, 2, padding="same")
        self.upsample = layers.UpSampling2D(2)

    def call(self, features):
        low, high = (conv(x) for conv, x in zip(self.lateral, features, strict=True))
        low = low + self.upsample(high)
        low, high = (conv(x) for conv, x in zip(self.smooth, (low, high), strict=True))
        return low, high, self.coarse(tf.nn.relu(high))


class RetinaNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.c1 = layers.Conv2D(4, 3, 2, padding="same", activation="relu")
        self.c2 = layers.Conv2D(6, 3, 2, padding="same", activation="relu")
        self.pyramid = FeaturePyramid()
        self.tower = layers.Conv2D(4, 3, padding="same", activation="relu")
        self.out = layers.Conv2D(3, 3, padding="same")

    def call(self, x, training=False):
        low = self.c1(x)
        levels = self.pyramid([low, self.c2(low)], training=training)
        flat = [
            ops.reshape(self.out(self.tower(x)), (-1, h * h, 3))
            for x, h in zip(levels, (8, 4, 2), strict=True)
        ]
        return ops.concatenate(flat, axis=1)


@kind("RetinaNet with a feature pyramid")
def retinanet() -> Example:
    model = RetinaNet()
    model.compile("adam", "mse")
    return Example(model, noise(16, 16, 3), noise(84, 3), watched=34, filters=37)


class InMap(layers.Layer):
    """Calls its convolution for one example at a time."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu")

    def call(self, x):
        return tf.map_fn(lambda one: self.conv(one[None])[0], x)


class Traced(layers.Layer):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu")

    @tf.function
    def call(self, x):
        return self.conv(x)


def _behind_a_stem(block):
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(6, 3), block])
    for layer in (layers.GlobalAveragePooling2D(), layers.Dense(3)):
        model.add(layer)
    return model


@kind("Convolution inside tf.map_fn")
def in_map() -> Example:
    return classifier(_behind_a_stem(InMap()), 6, 10)


@kind("Layer whose call is a tf.function")
def traced() -> Example:
    return classifier(_behind_a_stem(Traced()), 6, 10)

"""Transformers, gates and sequences: convolutions beside layers of other kinds."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.zoo.kinds import Example, classifier, kind


class PatchEmbedding(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.project = layers.Conv2D(width, 4, 4)
        self.position = layers.Embedding(9, width)

    def call(self, x):
        x = self.project(x)
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
        return x + self.position(ops.arange(9))


class Encoder(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.attend = layers.MultiHeadAttention(2, width // 2)
        self.mlp = keras.Sequential([layers.Dense(12, activation="gelu"), layers.Dense(width)])

    def call(self, x):
        y = self.norm1(x)
        x = x + self.attend(y, y)
        return x + self.mlp(self.norm2(x))


@kind("Vision transformer (patch embedding)")
def vision_transformer() -> Example:
    body = [PatchEmbedding(8), Encoder(8), layers.LayerNormalization()]
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), *body, layers.GlobalAveragePooling1D(), layers.Dense(3)]
    )
    return classifier(model, 8)


class Tokenizer(layers.Layer):
    """From the Keras example on compact convolutional transformers."""

    def __init__(self):
        super().__init__()
        self.model = keras.Sequential()
        for filters in (4, 8):
            self.model.add(layers.Conv2D(filters, 3, padding="valid", activation="relu"))
            self.model.add(layers.ZeroPadding2D(1))
            self.model.add(layers.MaxPooling2D(3, 2, "same"))

    def call(self, images):
        x = self.model(images)
        return ops.reshape(x, (-1, ops.shape(x)[1] * ops.shape(x)[2], ops.shape(x)[-1]))


@kind("Compact convolutional transformer (tokenizer)")
def compact_transformer() -> Example:
    image = keras.Input((12, 12, 3))
    x = Encoder(8)(Tokenizer()(image))
    weights = ops.softmax(layers.Dense(1)(x), axis=1)
    pooled = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), 1)
    return classifier(keras.Model(image, layers.Dense(3)(pooled)), 12)


class MixerBlock(layers.Layer):
    def __init__(self, tokens, width):
        super().__init__()
        self.norm1, self.norm2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.across = [layers.Dense(6, "gelu"), layers.Dense(tokens)]
        self.within = [layers.Dense(6, "gelu"), layers.Dense(width)]

    def call(self, x):
        y = ops.transpose(self.norm1(x), (0, 2, 1))
        for layer in self.across:
            y = layer(y)
        x = x + ops.transpose(y, (0, 2, 1))
        y = self.norm2(x)
        for layer in self.within:
            y = layer(y)
        return x + y


@kind("MLP-Mixer (patch convolution)")
def mixer() -> Example:
    body = [layers.Conv2D(8, 4, 4), layers.Reshape((9, 8)), MixerBlock(9, 8)]
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), *body, layers.GlobalAveragePooling1D(), layers.Dense(3)]
    )
    return classifier(model, 8)


class CBAM(layers.Layer):
    """Attention over channels, then over positions."""

    def __init__(self, channels):
        super().__init__()
        self.shared = [layers.Dense(2, "relu"), layers.Dense(channels)]
        self.spatial = layers.Conv2D(1, 3, padding="same", activation="sigmoid")

    def call(self, x):
        def mlp(y):
            return self.shared[1](self.shared[0](y))

        gate = ops.sigmoid(mlp(ops.mean(x, (1, 2))) + mlp(ops.max(x, (1, 2))))
        x = x * gate[:, None, None]
        pooled = [ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)]
        return x * self.spatial(ops.concatenate(pooled, axis=-1))


@kind("CBAM attention")
def cbam() -> Example:
    model = keras.Sequential(
        [
            *(keras.Input((12, 12, 3)), layers.Conv2D(6, 3, activation="relu"), CBAM(6)),
            *(layers.Conv2D(4, 3), layers.ReLU(), layers.GlobalAveragePooling2D()),
            layers.Dense(3),
        ]
    )
    return classifier(model, 11)


@kind("TimeDistributed CNN with LSTM")
def time_distributed() -> Example:
    frame = keras.Sequential(
        [
            *(keras.Input((8, 8, 2)), layers.Conv2D(4, 3, activation="relu")),
            *(layers.MaxPooling2D(), layers.Conv2D(6, 2, activation="relu"), layers.Flatten()),
        ]
    )
    video = keras.Input((3, 8, 8, 2))
    x = layers.LSTM(5)(layers.TimeDistributed(frame)(video))
    return classifier(keras.Model(video, layers.Dense(3)(x)), 10, shape=(3, 8, 8, 2))


@kind("ConvLSTM")
def conv_lstm() -> Example:
    model = keras.Sequential(
        [
            *(keras.Input((3, 8, 8, 2)), layers.ConvLSTM2D(4, 3)),
            *(layers.Conv2D(5, 3, activation="relu"), layers.Flatten(), layers.Dense(3)),
        ]
    )
    return classifier(model, 5, 9, shape=(3, 8, 8, 2))


@kind("Spectral normalization")
def spectral() -> Example:
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.SpectralNormalization(layers.Conv2D(6, 3, activation="relu")),
            *(layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)),
        ]
    )
    return classifier(model, 10)


class TransformNet(layers.Layer):
    """PointNet's T-Net: predicts a matrix that its input is multiplied by."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.convs = [layers.Conv1D(n, 1, activation="relu") for n in (4, 6)]
        self.norms = [layers.BatchNormalization(momentum=0.0) for _ in range(2)]
        self.dense = layers.Dense(size * size, kernel_initializer="zeros")

    def call(self, x, training=None):
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(y), training=training)
        matrix = ops.reshape(self.dense(ops.max(y, axis=1)), (-1, self.size, self.size))
        return tf.matmul(x, matrix + tf.eye(self.size))


@kind("PointNet with T-Net")
def pointnet() -> Example:
    points = keras.Input((16, 3))
    x = layers.Conv1D(4, 1, activation="relu")(TransformNet(3)(points))
    x = layers.Conv1D(8, 1, activation="relu")(TransformNet(4)(x))
    model = keras.Model(points, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))
    return classifier(model, 32, shape=(16, 3))


@kind("Gated dilated convolutions (WaveNet)")
def wavenet() -> Example:
    audio = keras.Input((24, 2))
    x = layers.Conv1D(4, 1)(audio)
    for rate in (1, 2):
        settings = {"padding": "causal", "dilation_rate": rate}
        both = [layers.Conv1D(4, 2, activation=name, **settings)(x) for name in ("tanh", "sigmoid")]
        x = layers.Add()([x, layers.Conv1D(4, 1)(layers.Multiply()(both))])
    model = keras.Model(audio, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return classifier(model, 28, shape=(24, 2))

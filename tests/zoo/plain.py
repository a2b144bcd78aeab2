"""Models of Keras layers alone, by composition."""

import keras
import tensorflow as tf
from keras import layers

from tests.zoo.kinds import Example, classes, classifier, kind, noise


def conv(filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", activation="relu", **options)


def head(x, classes=3):
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def on_image(body, size=12, channels=3):
    image = keras.Input((size, size, channels))
    return keras.Model(image, body(image))


@kind("Sequential with Input")
def sequential() -> Example:
    body = [conv(6), layers.MaxPooling2D(), conv(8), layers.Flatten(), layers.Dense(3)]
    return classifier(keras.Sequential([keras.Input((12, 12, 3)), *body]), 14)


@kind("Sequential without Input")
def sequential_without_input() -> Example:
    model = keras.Sequential(
        [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    return classifier(model, 8)


@kind("Inception block")
def inception() -> Example:
    def body(x):
        x = conv(4)(x)
        towers = [conv(3, 1)(x), conv(4)(conv(2, 1)(x)), conv(3, 5)(conv(2, 1)(x))]
        pooled = conv(2, 1)(layers.MaxPooling2D(3, 1, padding="same")(x))
        return head(layers.Concatenate()([*towers, pooled]))

    return classifier(on_image(body), 20)


@kind("DenseNet block")
def dense_block() -> Example:
    def body(x):
        x = conv(4)(x)
        for _ in range(3):
            y = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.Concatenate()([x, layers.Conv2D(3, 3, padding="same")(y)])
        return head(layers.ReLU()(layers.BatchNormalization()(x)))

    return classifier(on_image(body), 13)


@kind("Squeeze and excitation")
def squeeze_and_excitation() -> Example:
    def body(x):
        x = conv(8)(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(8, 1, activation="sigmoid")(conv(2, 1)(gate))
        return head(conv(6)(layers.Multiply()([x, gate])))

    return classifier(on_image(body), 24)


@kind("Grouped convolution (ResNeXt)")
def grouped() -> Example:
    def body(x):
        x = conv(8)(x)
        y = conv(8, groups=4)(conv(8, 1)(x))
        return head(layers.ReLU()(layers.Add()([x, layers.Conv2D(8, 1)(y)])))

    return classifier(on_image(body), 32)


@kind("Depthwise convolution (MobileNet, by composition)")
def depthwise() -> Example:
    def body(x):
        x = conv(6)(x)
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        return head(conv(8, 1)(x))

    return classifier(on_image(body), 20)


@kind("Separable convolution (Xception)")
def separable() -> Example:
    def body(x):
        x = layers.SeparableConv2D(8, 3, padding="same")(conv(6)(x))
        return head(layers.ReLU()(layers.BatchNormalization()(x)))

    return classifier(on_image(body), 14)


@kind("Autoencoder with transposed convolutions")
def autoencoder() -> Example:
    def body(x):
        x = conv(4, strides=2)(conv(6, strides=2)(x))
        x = layers.Conv2DTranspose(6, 3, 2, padding="same", activation="relu")(x)
        return layers.Conv2DTranspose(3, 3, 2, padding="same", activation="sigmoid")(x)

    model = on_image(body)
    model.compile("adam", "mse")
    return Example(model, noise(12, 12, 3), noise(12, 12, 3), watched=16, filters=19)


@kind("Super-resolution (depth_to_space)")
def super_resolution() -> Example:
    def body(x):
        return tf_depth_to_space(layers.Conv2D(12, 3, padding="same")(conv(6)(conv(8, 5)(x))))

    model = on_image(body)
    model.compile("adam", "mse")
    return Example(model, noise(12, 12, 3), noise(24, 24, 3), watched=14, filters=26)


class DepthToSpace(layers.Layer):
    def call(self, x):
        return tf.nn.depth_to_space(x, 2)


def tf_depth_to_space(x):
    return DepthToSpace()(x)


@kind("Text CNN (Conv1D)")
def text_cnn() -> Example:
    words = keras.Input((16,), dtype="int32")
    x = layers.Embedding(20, 6)(words)
    towers = [
        layers.GlobalMaxPooling1D()(layers.Conv1D(4, size, activation="relu")(x))
        for size in (2, 3, 4)
    ]
    model = keras.Model(words, layers.Dense(3)(layers.Dropout(0.2)(layers.Concatenate()(towers))))
    example = classifier(model, 12)
    return Example(model, (noise(16) * 20).astype("int32"), example.y, 12, 12)


@kind("Video and volumes (Conv3D)")
def volumes() -> Example:
    model = keras.Sequential(
        [
            *(keras.Input((4, 8, 8, 2)), layers.Conv3D(4, 3, padding="same", activation="relu")),
            *(layers.MaxPooling3D(2), layers.Conv3D(6, 2, activation="relu")),
            *(layers.GlobalAveragePooling3D(), layers.Dense(3)),
        ]
    )
    return classifier(model, 10, shape=(4, 8, 8, 2))


@kind("Several inputs by name")
def named_inputs() -> Example:
    image, depth = keras.Input((8, 8, 3), name="image"), keras.Input((8, 8, 1), name="depth")
    x = layers.Concatenate()([conv(4)(image), conv(3)(depth)])
    model = keras.Model({"image": image, "depth": depth}, head(conv(5)(x)))
    model.compile("adam", classifier_loss())
    x = {"depth": noise(8, 8, 1), "image": noise(8, 8, 3)}
    return Example(model, x, classes(), watched=12, filters=12)


@kind("Several outputs by name")
def named_outputs() -> Example:
    image = keras.Input((8, 8, 3))
    x = conv(6)(image)
    model = keras.Model(image, {"kind": head(conv(4)(x)), "pose": head(conv(5)(x), 2)})
    model.compile("adam", {"kind": classifier_loss(), "pose": "mse"})
    y = {"pose": noise(2), "kind": classes()}
    return Example(model, noise(8, 8, 3), y, watched=15, filters=15)


@kind("An output without a loss")
def output_without_loss() -> Example:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, {"a": head(conv(4)(image)), "b": head(conv(5)(image))})
    model.compile("adam", {"a": classifier_loss()})
    return Example(model, noise(8, 8, 3), {"a": classes()}, watched=4, filters=9)


def classifier_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@kind("Two towers with equal layer names")
def two_towers() -> Example:
    def tower(name):
        image = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
        return keras.Model(image, layers.GlobalAveragePooling2D()(x), name=name)

    one, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    both = layers.Concatenate()([tower("rgb")(one), tower("flow")(other)])
    model = keras.Model([one, other], layers.Dense(3)(both))
    model.compile("adam", classifier_loss())
    return Example(model, [noise(8, 8, 3), noise(8, 8, 3, seed=1)], classes(), 8, 8)


@kind("Backbone by composition, nested three deep")
def nested_backbone() -> Example:
    def wrapped(body, size, channels):
        return on_image(body, size, channels)

    inner = wrapped(lambda x: conv(4)(x), 12, 4)
    middle = wrapped(lambda x: layers.MaxPooling2D()(inner(conv(4)(x))), 12, 3)
    outer = wrapped(lambda x: conv(6)(middle(x)), 12, 3)
    return classifier(on_image(lambda x: head(outer(x))), 14)

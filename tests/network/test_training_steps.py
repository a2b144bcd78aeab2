"""Models that train by a step of their own: the map is that of the step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart import PartialRestart
from kerasrestart.network.describe import describe
from kerasrestart.network.filter_layers import find_filter_layers

X = np.zeros((2, 8, 8, 1), "float32")


class Autoencoder(keras.Model):
    """A variational autoencoder, after Keras's example: no call, one tape."""

    def __init__(self):
        super().__init__()
        image, code = keras.Input((8, 8, 1)), keras.Input((2,))
        x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="e1")(image)
        x = layers.Flatten()(x)
        means, deviations = layers.Dense(2, name="means")(x), layers.Dense(2, name="logs")(x)
        self.encoder = keras.Model(image, [means, deviations])
        x = layers.Reshape((4, 4, 2))(layers.Dense(32, activation="relu", name="grow")(code))
        x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu", name="d1")(x)
        out = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="image")
        self.decoder = keras.Model(code, out(x))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log = self.encoder(data)
            noise = tf.random.normal(tf.shape(mean))
            image = self.decoder(mean + tf.exp(0.5 * log) * noise)
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(data, image))
            loss -= 0.5 * tf.reduce_mean(1 + log - mean**2 - tf.exp(log))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


class Adversaries(keras.Model):
    """Two networks, two tapes, two optimizers."""

    def __init__(self):
        super().__init__()
        self.judge = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, strides=2, name="j1"),
                layers.LeakyReLU(name="j1_leaky"),
                layers.Conv2D(5, 2, name="j2"),
                layers.Flatten(),
                layers.Dense(1, name="verdict"),
            ]
        )
        self.forger = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(48, name="seed"),
                layers.Reshape((4, 4, 3)),
                layers.Conv2DTranspose(6, 4, strides=2, padding="same", name="f1"),
                layers.BatchNormalization(name="f1_norm"),
                layers.ReLU(name="f1_relu"),
                layers.Conv2D(1, 3, padding="same", name="picture"),
            ]
        )
        self.first, self.second = keras.optimizers.Adam(), keras.optimizers.Adam()

    def train_step(self, data):
        loss_of = keras.losses.BinaryCrossentropy(from_logits=True)
        noise = tf.random.normal((tf.shape(data)[0], 4))
        for part, optimizer in ((self.judge, self.first), (self.forger, self.second)):
            with tf.GradientTape() as tape:
                verdict = self.judge(self.forger(noise))
                loss = loss_of(tf.ones_like(verdict), verdict)
                if part is self.judge:
                    real = self.judge(data)
                    loss -= loss_of(tf.zeros_like(real), real)
            gradients = tape.gradient(loss, part.trainable_weights)
            optimizer.apply_gradients(zip(gradients, part.trainable_weights, strict=True))
        return {"loss": loss}


class Head(layers.Layer):
    """A dense layer that is not a Keras layer."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 1))

    def call(self, x):
        return tf.matmul(x, self.w)


class Critic(keras.Model):
    """A Wasserstein critic with a gradient penalty, and a penalty on its kernels."""

    def __init__(self, head, body):
        super().__init__()
        self.critic = keras.Sequential([keras.Input((8, 8, 1)), *body(), layers.Flatten(), head])

    def train_step(self, data):
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(data)
                verdict = tf.cast(self.critic(data, training=True), "float32")
            slopes = tf.norm(tf.reshape(inner.gradient(verdict, data), (-1, 64)), axis=1)
            loss = tf.reduce_mean(verdict) + 10 * tf.reduce_mean((slopes - 1) ** 2)
            loss += 1e-4 * tf.add_n([tf.nn.l2_loss(w) for w in self.critic.trainable_weights])
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


def plain_body():
    return [
        layers.Conv2D(4, 3, strides=2, name="c1"),
        layers.LeakyReLU(),
        layers.Conv2D(5, 2, activation="relu", name="c2"),
    ]


def normed_body():
    return [
        layers.Conv2D(4, 3, strides=2, name="c1"),
        layers.LayerNormalization(),
        layers.Activation("silu"),
        layers.Conv2D(5, 2, activation="tanh", name="c2"),
        layers.Dropout(0.5),
    ]


def compiled(model):
    model.compile("adam")
    return model


def reads_of(found):
    return {key: [read.operation.name for _, read in of.reads] for key, of in found.layers.items()}


def test_all_parts_of_an_autoencoder_are_found_by_its_step():
    found = find_filter_layers(compiled(Autoencoder()), data=X)
    assert reads_of(found) == {"e1": ["e1"], "d1": ["d1"]}
    # The loss takes the logits within the last layer, not its sigmoid.
    assert found.left_out["image"] == "makes an output of the model"
    assert found.channels.outgoing(found.layers["d1"].layer).obstacle() is None


class NearOne(layers.Layer):
    """Adds a loss of what passes through it, as the layer of a vector quantizer does."""

    def call(self, x):
        self.add_loss(tf.reduce_mean((x - 1) ** 2))
        return x


class LossInside(keras.Model):
    """A trainer without a call, whose loss reads a map inside a network that it holds."""

    def __init__(self):
        super().__init__()
        image = keras.Input((8, 8, 1))
        x = layers.Conv2D(3, 3, strides=2, padding="same", name="code")(image)
        x = layers.Conv2DTranspose(4, 2, strides=2, activation="relu", name="grow")(NearOne()(x))
        coarse = layers.Conv2D(1, 1, name="coarse")(x)
        fine = layers.Conv2D(1, 3, padding="same", name="fine")(coarse)
        self.network = keras.Model(image, [coarse, fine])
        self.judge = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="judge")])

    def train_step(self, data):
        with tf.GradientTape() as tape:
            images = self.network(data)
            loss = sum(tf.reduce_mean((image - data) ** 2) for image in images)
            loss += sum(self.network.losses) + tf.reduce_mean(self.judge(images[1]))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"cost": loss}


class LayersOfItsOwn(keras.Model):
    """Holds the layers of two networks itself: which are hidden in one is not known."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Conv2D(4, 3, padding="same", activation="relu", name="inner")
        self.image = layers.Conv2D(1, 3, padding="same", name="image")
        self.judge = [layers.Conv2D(3, 3, name="first"), layers.Conv2D(1, 3, name="verdict")]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            image = self.image(self.inner(data))
            verdict = self.judge[1](self.judge[0](image))
            loss = tf.reduce_mean((image - data) ** 2) + tf.reduce_mean(verdict)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"cost": loss}


def test_a_map_that_a_loss_reads_is_an_output_where_no_model_holds_its_layers():
    model = LayersOfItsOwn()
    model.compile("sgd")
    found = find_filter_layers(model, data=X)
    assert list(found.layers) == ["inner", "first"]
    assert list(found.left_out) == ["image", "verdict"]


def test_a_map_inside_a_network_is_no_output_of_it_though_a_loss_reads_it():
    model = LossInside()
    model.compile("sgd")
    found = find_filter_layers(model, data=X)
    assert list(found.layers) == ["code", "grow"]
    reason = "makes an output of the model"
    assert found.left_out == dict.fromkeys(("coarse", "fine", "judge"), reason)


class ThereAndBack(keras.Model):
    """Two networks that translate images, one after the other in the call, and a judge."""

    def __init__(self):
        super().__init__()
        self.there, self.back, self.judge = (
            keras.Sequential(
                [
                    layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{name}_hidden"),
                    layers.Conv2D(1, 3, padding="same", name=f"{name}_image"),
                ]
            )
            for name in ("there", "back", "judge")
        )

    def call(self, x):
        image = self.back(self.there(x))
        self.judge(x)
        return image

    def train_step(self, data):
        with tf.GradientTape() as tape:
            image = self.there(data)
            again = self.back(image)
            loss = tf.reduce_mean((again - data) ** 2) + tf.reduce_mean(self.judge(image))
            loss += tf.reduce_mean((self.there(again) - image) ** 2)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


@pytest.mark.parametrize("called", [False, True])
def test_what_a_held_network_returns_to_the_loss_is_an_output_also_within_the_call(called):
    model = ThereAndBack()
    model.compile("sgd")
    if called:
        model(X)
    found = find_filter_layers(model, data=X)
    assert list(found.layers) == ["there_hidden", "back_hidden", "judge_hidden"]
    reason = "makes an output of the model"
    assert found.left_out == dict.fromkeys(("there_image", "back_image", "judge_image"), reason)


class TwoParts(keras.Model):
    """A network that returns features, and another that reads them."""

    def __init__(self):
        super().__init__()
        self.body, self.head = (
            keras.Sequential(
                [
                    layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{name}_first"),
                    layers.Conv2D(2, 3, padding="same", activation="tanh", name=f"{name}_last"),
                ]
            )
            for name in ("body", "head")
        )

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            losses = self.losses_of(data)
        for part, loss in zip(self.parts(), losses, strict=True):
            weights = part.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": losses[0]}

    def losses_of(self, data):
        loss = tf.reduce_mean((self.head(self.body(data)) - data) ** 2)
        return [loss, loss]

    def parts(self):
        return [self.body, self.head]

    def compile(self, optimizer):
        super().compile(optimizer)
        self.optimizer.build(self.trainable_weights)


class TwoLosses(TwoParts):
    """The part that reads features trains by a loss of its own, as where domains are adapted."""

    def losses_of(self, data):
        made = self.head(self.body(data))
        return tf.reduce_mean((made - data) ** 2), tf.reduce_mean(tf.abs(made))


class Perceptual(TwoParts):
    """Compares what another network, which does not train, makes of images and of data."""

    def losses_of(self, data):
        data = tf.concat([data, data], -1)
        return [tf.reduce_mean((self.head(self.body(data[..., :1])) - self.head(data)) ** 2)]

    def parts(self):
        return [self.body]


class Frozen(Perceptual):
    def compile(self, optimizer):
        self.head.trainable = False
        super().compile(optimizer)


class Judged(TwoParts):
    def losses_of(self, data):
        made, real = self.head(self.body(data)), self.head(self.real(data))
        return tf.reduce_mean(made), tf.reduce_mean(real - made)

    def real(self, data):
        return tf.concat([data, data], -1)


class JudgedInACall(Judged):
    def call(self, x):
        return self.head(self.body(x))


class Stack(layers.Layer):
    """Layers one after the other, by a call of its own."""

    def __init__(self, *inside):
        super().__init__()
        self.inside = list(inside)

    def call(self, x):
        for layer in self.inside:
            x = layer(x)
        return x


class JudgedLayers(Judged):
    """Two layers of layers in place of two networks."""

    def __init__(self):
        super().__init__()
        self.body, self.head = (Stack(*network.layers) for network in (self.body, self.head))


class JudgedInOneCall(Judged):
    """Made and real images are joined along the examples, and distorted."""

    def losses_of(self, data):
        joined = tf.concat([self.body(data), self.real(data)], 0)
        judged = self.head(tf.image.adjust_brightness(joined, 0.1))
        made, real = tf.split(judged, 2)
        return tf.reduce_mean(made), tf.reduce_mean(real - made)


class JudgedCode(Judged):
    """An adversarial autoencoder: the code is to look like noise, which is not data."""

    def real(self, data):
        return tf.random.normal((tf.shape(data)[0], 8, 8, 2))


class BesideData(TwoLosses):
    """Data that is read beside features, by its channels or its mean."""

    def losses_of(self, data):
        features = self.body(data) / (1 + tf.reduce_mean(tf.abs(data)))
        made = self.head(tf.concat([features, data], -1))
        return tf.reduce_mean((made - data) ** 2), tf.reduce_mean(tf.abs(made))


class ByTwoReaders(TwoParts):
    """A network that trains with it reads the image, too."""

    def __init__(self):
        super().__init__()
        self.judge = keras.Sequential([layers.Conv2D(2, 3, name="judge")])

    def losses_of(self, data):
        image = self.body(data)
        error = tf.reduce_mean((self.head(image) - data) ** 2)
        fake, real = self.judge(image), self.judge(self.real(data))
        return error - tf.reduce_mean(fake), tf.reduce_mean(fake - real)

    def real(self, data):
        return tf.concat([data, data], -1)

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            losses = self.losses_of(data)
        for parts, loss in zip(([self.body, self.head], [self.judge]), losses, strict=True):
            weights = [weight for part in parts for weight in part.trainable_weights]
            self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": losses[0]}


class ByTwoReadersOfNoise(ByTwoReaders):
    def real(self, data):
        return tf.random.normal((tf.shape(data)[0], 8, 8, 2))


@pytest.mark.parametrize(
    ("model_class", "watched"),
    [
        (TwoParts, ["body_first", "body_last", "head_first"]),
        (TwoLosses, ["body_first", "body_last", "head_first"]),
        (Perceptual, ["body_first"]),
        (Frozen, ["body_first"]),
        (Judged, ["body_first", "head_first"]),
        (JudgedInACall, ["body_first", "head_first"]),
        (JudgedInOneCall, ["body_first", "head_first"]),
        (JudgedLayers, ["body_first", "head_first"]),
        (JudgedCode, ["body_first", "body_last", "head_first"]),
        (BesideData, ["body_first", "body_last", "head_first"]),
        (ByTwoReaders, ["body_first", "head_first"]),
        (ByTwoReadersOfNoise, ["body_first", "body_last", "head_first"]),
    ],
)
def test_what_is_read_in_place_of_data_is_an_output_unless_its_reader_trains_with_it(
    model_class, watched
):
    model = model_class()
    model.losses_of(X)  # builds all parts
    model.compile("sgd")
    found = find_filter_layers(model, data=X)
    assert list(found.layers) == watched
    if "body_last" not in watched:
        assert found.left_out["body_last"] == "makes an output of the model"


class SparseCode(keras.Model):
    """An autoencoder with a penalty on the code, which a held network returns."""

    def __init__(self):
        super().__init__()
        self.encode = keras.Sequential(
            [
                layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
                layers.Conv2D(2, 3, padding="same", name="code"),
            ]
        )
        self.decode = layers.Conv2D(1, 3, padding="same", name="image")

    def call(self, x):
        return self.decode(self.encode(x))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            code = self.encode(data)
            error = tf.reduce_mean((self.decode(code) - data) ** 2)
            loss = error + tf.reduce_mean(tf.abs(code))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


def test_a_code_that_a_penalty_reads_is_no_output():
    model = SparseCode()
    model.compile("sgd")
    model(X)
    assert list(find_filter_layers(model, data=X).layers) == ["first", "code"]


def test_a_step_without_data_is_asked_for_in_one_line():
    with pytest.raises(TypeError, match=r"describe\(model, data=batch\)") as error:
        describe(compiled(Autoencoder()))
    assert "\n" not in str(error.value)


def test_each_call_of_two_networks_in_one_step_is_a_use():
    found = find_filter_layers(compiled(Adversaries()), data=X)
    assert {key: len(reads) for key, reads in reads_of(found).items()} == {
        **{"f1": 2, "j1": 3, "j2": 3},
    }
    # A judge reads it, which is trained by another loss.
    assert found.left_out["picture"] == "makes an output of the model"
    assert set(reads_of(found)["f1"]) == {"f1_relu"}
    assert found.layers["f1"].norm.name == "f1_norm"
    assert "verdict" in found.left_out


@pytest.mark.parametrize(
    ("head", "body", "dtype"),
    [
        (lambda name: layers.Dense(1, name=name), plain_body, "float32"),
        (Head, plain_body, "float32"),
        (Head, normed_body, "mixed_float16"),
    ],
)
def test_all_of_a_critic_but_its_head_is_watched(head, body, dtype):
    keras.config.set_dtype_policy(dtype)
    found = find_filter_layers(compiled(Critic(head(name="verdict"), body)), data=X)
    assert list(found.layers) == ["c1", "c2"]
    assert found.left_out == {"verdict": "makes an output of the model"}
    # The gradient reads a kernel as a part of the layer, the penalty as a single number.
    assert not any(
        found.graph.notes_of(layer.layer).shared_weights for layer in found.layers.values()
    )
    # What the gradient reads between a convolution and its activation does not count as a reader.
    assert "c1" not in reads_of(found)["c1"]
    assert (found.layers["c1"].norm is None) == (body is plain_body)


def test_tracing_a_step_makes_no_slots_and_changes_nothing():
    model = compiled(Adversaries())
    model.optimizer.build(model.trainable_variables)
    before = [np.array(variable) for variable in model.variables]
    find_filter_layers(model, data=X)
    assert not model.first.built
    assert not model.second.built
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_what_a_step_does_not_train_is_left_out():
    class Distiller(keras.Model):
        def __init__(self):
            super().__init__()
            self.teacher, self.student = (
                keras.Sequential(
                    [
                        keras.Input((8, 8, 1)),
                        layers.Conv2D(4, 3, name=f"{name}_conv"),
                        layers.GlobalMaxPooling2D(),
                        layers.Dense(2),
                    ]
                )
                for name in ("teacher", "student")
            )

        def call(self, x):
            return self.student(x)

        def train_step(self, data):
            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.student(x) - self.teacher(x)) ** 2)
            weights = self.student.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    found = find_filter_layers(compiled(Distiller()), data=(X, np.zeros(2)))
    assert list(found.layers) == ["student_conv"]
    assert found.left_out["teacher_conv"] == "is not trained by train_step"


def test_the_data_of_a_model_with_keras_own_step_is_only_its_example():
    model = keras.Sequential([layers.Conv2D(4, 3, name="c"), layers.Flatten(), layers.Dense(2)])
    found = find_filter_layers(compiled(model), data=(X, np.zeros(2)))
    assert list(found.layers) == ["c"]
    assert found.graph.trained is None


class UpdatesInAFunction(keras.Model):
    """Its update is a function, and its inputs are not known before fit."""

    def __init__(self):
        super().__init__()
        convolutions = [layers.Conv2D(4, 3, name="c"), layers.ReLU(), layers.Conv2D(4, 3)]
        self.body = keras.Sequential(convolutions)
        self.head = keras.Sequential([layers.Flatten(), layers.Dense(2)])

    def call(self, x):
        return self.head(self.body(x))

    @tf.function
    def update(self, gradients):
        self.optimizer.apply(gradients, self.trainable_weights)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x)[:, 0] - y) ** 2)
        self.update(tape.gradient(loss, self.trainable_weights))
        return {"loss": loss}


class HeadInAFunction(UpdatesInAFunction):
    """A part of its forward pass is a function, too."""

    @tf.function
    def top(self, x):
        return self.head(x)

    def call(self, x):
        return self.top(self.body(x))


@pytest.mark.parametrize("model_class", [UpdatesInAFunction, HeadInAFunction])
@pytest.mark.parametrize("built", [False, True])
def test_a_function_inside_a_model_keeps_nothing_of_the_traced_pass(model_class, built):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = compiled(model_class())
        model.head.build((None, 4, 4, 4))  # a function does not find what it builds
        if built:
            model(x)
        model.fit(x, np.zeros(4), batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()

    restart = PartialRestart(fraction=0.25, monitor="loss")
    expected = trained()
    for ours, plain in zip(trained(restart), expected, strict=True):
        np.testing.assert_array_equal(ours, plain)
    assert restart.scores["c"].max() > 0

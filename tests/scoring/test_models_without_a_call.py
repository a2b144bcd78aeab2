"""Models of which the map comes with the first batch: scored from that batch on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain
from keras import layers

from kerasrestart import score_filters
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_function import attach


class AtFirstBatch(keras.callbacks.Callback):
    """Attaches what makes a scorer of the specs of a batch."""

    def __init__(self, make):
        super().__init__()
        self.make, self.data = make, []

    def on_train_begin(self, logs=None):
        self.attached = attach(self.model, self.made)
        assert self.attached.scorer is None

    def made(self, data):
        self.data.append(data)
        return self.make(self.model, data)

    def on_train_end(self, logs=None):
        self.attached.detach()


def by_its_step(model, data):
    return Scorer(model, found=find_filter_layers(model, data=data))


class AutoEncoder(keras.Model):
    """Has parts, a step and no call."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.Flatten(),
                layers.Dense(6, name="code"),
            ]
        )
        self.decoder = keras.Sequential([keras.Input((6,)), layers.Dense(128, name="image")])

    def train_step(self, x):
        with tf.GradientTape() as tape:
            image = self.decoder(self.encoder(x))
            difference = tf.reshape(x, tf.shape(image)) - image
            loss = tf.reduce_mean(tf.reduce_sum(difference**2, axis=-1))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


@pytest.mark.parametrize("eager", [False, True])
def test_an_autoencoder_with_a_step_and_no_call(eager, images, randomized):
    model, (x, _) = randomized(AutoEncoder()), images
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=eager)
    callback = AtFirstBatch(by_its_step)
    model.fit(x, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert len(callback.data) == 1

    def forward(run, batch):
        return chain(model.decoder)(run, chain(model.encoder)(run, batch))

    def cost(x, image):
        return tf.reduce_sum((x.reshape(len(x), -1) - image) ** 2, axis=-1)

    flat = x.astype("float64")
    reference = brute_force_scores(forward, {"conv": "conv"}, x, flat, cost_of=cost)
    assert_scores_match(callback.attached.scorer.result(), reference)


def unbuilt():
    model = keras.Sequential(
        [layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten(), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


def test_a_sequential_model_without_an_input(images):
    model = unbuilt()
    callback = AtFirstBatch(by_its_step)
    model.fit(*images, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    reference = brute_force_scores(chain(model), {"conv": "conv"}, *images)
    assert_scores_match(callback.attached.scorer.result(), reference)


def test_a_loop_of_train_on_batch_gives_its_first_batch_away(images):
    model = unbuilt()
    callback = AtFirstBatch(by_its_step)
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    callbacks.on_train_begin()
    for start in range(0, 20, 4):
        model.train_on_batch(*(array[start : start + 4] for array in images))
    callbacks.on_train_end()
    assert callback.attached.scorer.examples == 20
    assert len(callback.data) == 1


def test_an_error_of_the_maker_ends_fit_and_leaves_nothing_behind(images):
    def refuse(model, data):
        raise ValueError("nothing to score")

    model = unbuilt()
    with pytest.raises(ValueError, match="nothing to score"):
        model.fit(*images, verbose=0, callbacks=[AtFirstBatch(refuse)])
    assert "make_train_function" not in vars(model)
    model.fit(*images, verbose=0)


class OwnInput(keras.Model):
    """A subclass that is not built before it is called."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="conv")
        self.pool, self.logits = layers.GlobalAveragePooling2D(), layers.Dense(3, name="logits")

    def call(self, x):
        return self.logits(self.pool(tf.nn.relu(self.conv(x["image"]))))


def test_score_filters_takes_a_model_that_is_not_built(images, randomized):
    x, y = images
    model = OwnInput()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    score_filters(model, {"image": x}, y)
    randomized(model)

    def forward(run, batch):
        z = run(model.conv, batch)
        return run(model.logits, run(model.pool, tf.maximum(z, 0.0)))

    reference = brute_force_scores(forward, {"conv": "conv"}, x, y)
    assert_scores_match(score_filters(model, {"image": x}, y), reference)

    run_z = np.asarray(tf.nn.relu(model.conv(x)))
    expected = (run_z != 0).mean(axis=(0, 1, 2))
    scores = score_filters(model, {"image": x}, criterion="apoz")
    np.testing.assert_allclose(scores["conv"], expected, rtol=1e-5)


class AddsItsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_mean(x**2))
        return x


def test_score_filters_takes_a_loss_that_a_layer_adds(images, randomized):
    image = keras.Input((8, 8, 2))
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    flat, code = layers.Flatten(), layers.Dense(2, name="code")
    model = keras.Model(image, AddsItsLoss()(code(flat(conv(image)))))
    randomized(model).compile("sgd")

    def forward(run, x):
        return run(code, run(flat, run(conv, x)))

    x = images[0]
    reference = brute_force_scores(
        forward, {"conv": "conv"}, x, x, cost_of=lambda _, made: tf.reduce_mean(made**2, axis=-1)
    )
    assert_scores_match(score_filters(model, x), reference)


def test_score_filters_without_any_loss_is_refused_in_one_line(images):

    model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.Flatten()])
    model.add(layers.Dense(3))
    model.compile("sgd")
    with pytest.raises(ValueError, match="has no loss") as error:
        score_filters(model, images[0])
    assert "\n" not in str(error.value)

"""Which backward passes count: those by a layer's own weights, and not those by inputs alone."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain, cross_entropy, weight
from keras import layers

import kerasrestart as kr

PENALTY, STEP = 10.0, 0.1


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class OwnStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            cost = self.cost(*self.examples(x, y))
        weights = self.trainable_weights
        self.optimizer.apply(self.gradients(tape, cost, x, weights), weights)
        return {"loss": cost}

    def examples(self, x, y):
        return x, y

    def cost(self, x, y):
        return self.compute_loss(None, y, self(x, training=True))

    def gradients(self, tape, cost, x, weights):
        return tape.gradient(cost, weights)

    def by_input(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            cost = OwnStep.cost(self, x, y)
        return tape.gradient(cost, x)


class Adversarial(OwnStep):
    """Trains on the examples of the fast gradient sign method."""

    def examples(self, x, y):
        return x + STEP * tf.sign(self.by_input(x, y)), y


class GradientPenalty(OwnStep):
    """Keeps the gradient by the input small, as the critic of WGAN-GP does."""

    def cost(self, x, y):
        squares = tf.reduce_sum(self.by_input(x, y) ** 2, axis=(1, 2, 3))
        batch = tf.cast(tf.shape(x)[0], x.dtype)
        return super().cost(x, y) + PENALTY * tf.reduce_mean(squares) * batch**2


class LogitPenalty(OwnStep):
    """Keeps the gradient of a logit small, by one pass: linear layers make it blind to maps."""

    def cost(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = self(x, training=True)
            first = tf.reduce_sum(logits[:, 0])
        squares = tf.reduce_sum(tape.gradient(first, x) ** 2, axis=(1, 2, 3))
        return self.compute_loss(None, y, logits) + PENALTY * tf.reduce_mean(squares)


class Curvature(OwnStep):
    """Looks at a product of the Hessian and a vector, which is not a part of its loss."""

    def train_step(self, data):
        weights = self.trainable_weights
        values = [weight.value for weight in weights]
        with tf.autodiff.ForwardAccumulator(values, [tf.ones_like(v) for v in values]) as products:
            with tf.GradientTape() as tape:
                cost = self.cost(*data)
            gradients = tape.gradient(cost, weights)
        self.optimizer.apply(gradients, weights)
        return {"loss": cost, "curvature": tf.reduce_sum(products.jvp(gradients)[0])}


class ByInputAndWeights(OwnStep):
    """Takes both gradients in one pass, as "free" adversarial training does."""

    def gradients(self, tape, cost, x, weights):
        tape.watch(x)
        return tape.gradient(cost, [x, *weights])[1:]


class PassForEach(OwnStep):
    """Has a pass for the first layer and one for the others, as with two optimizers."""

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            cost = self.cost(*data)
        parts = self.trainable_weights[:2], self.trainable_weights[2:]
        gradients = [g for part in parts for g in tape.gradient(cost, part)]
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": cost}


class PassForEachTask(OwnStep):
    """Has a pass for each of two costs, whose gradients it adds, as in multi-task learning."""

    SHARES = 1.0, -0.7

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            cost = self.cost(*data)
            costs = [share * cost for share in self.SHARES]
        of_each = [tape.gradient(cost, self.trainable_weights) for cost in costs]
        gradients = [tf.add_n(of_weight) for of_weight in zip(*of_each, strict=True)]
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": sum(costs)}


class PassForEachWeight(OwnStep):
    """Has a pass for each weight."""

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            cost = self.cost(*data)
        gradients = [tape.gradient(cost, [weight])[0] for weight in self.trainable_weights]
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": cost}


class Jacobian(OwnStep):
    """Penalizes the gradients of all logits by the input, with a weight of zero."""

    def cost(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = self(x, training=True)
        return super().cost(x, y) + 0 * tf.reduce_sum(tape.batch_jacobian(logits, x) ** 2)


def built(model_class, randomized, activation="tanh", tail=layers.Flatten, **options):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation=activation, name="conv")(image)
    x = layers.Conv2D(3, 2, activation=activation, name="second")(x)
    model = randomized(model_class(image, layers.Dense(3, name="logits")(tail()(x))))
    model.compile(keras.optimizers.SGD(0.0), loss(), **options)
    return model


def scored(model, x, y):
    restart = kr.PartialRestart(fraction=0.25, monitor="loss")
    model.fit(x, y, callbacks=[restart], batch_size=10, shuffle=False, verbose=0)
    return restart.scores


class Float64Network:
    """The same network from its weights, in float64, and a gate of one behind each filter."""

    def __init__(self, model, tape=None):
        first, second, logits = (model.get_layer(n) for n in ("conv", "second", "logits"))
        self.weights = [[weight(v) for v in layer.weights] for layer in (first, second, logits)]
        self.activation = {"tanh": tf.tanh, "relu": tf.nn.relu}[first.activation.__name__]
        self.pooled = logits.kernel.shape[0] == second.filters
        self.tape, self.gates, self.positions = tape, [], []

    def __call__(self, x):
        for kernel, bias in self.weights[:2]:
            x = self.activation(tf.nn.conv2d(x, kernel, 1, "VALID") + bias)
            if self.tape is not None:
                self.gates.append(tf.ones((len(x), 1, 1, x.shape[-1]), x.dtype))
                self.positions.append(x.shape[1] * x.shape[2])
                self.tape.watch(self.gates[-1])
                x *= self.gates[-1]
        kernel, bias = self.weights[2]
        x = tf.reduce_mean(x, (1, 2)) if self.pooled else tf.reshape(x, (len(x), -1))
        return x @ kernel + bias

    def by_input(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            cost = tf.reduce_sum(cross_entropy(y, self(x)))
        return tape.gradient(cost, x)

    def costs_with_penalty_of_logit(self, x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = self(x)
            first = tf.reduce_sum(logits[:, 0])
        squares = tf.reduce_sum(tape.gradient(first, x) ** 2, axis=(1, 2, 3))
        return cross_entropy(y, logits) + PENALTY * squares


def reference(model, x, y, penalty=0.0, step=0.0, of_logit=False):
    """How much the cost changes with the gates, those in a gradient that it is made of included."""
    x = tf.constant(x.astype("float64"))
    if step:
        x = x + step * tf.sign(Float64Network(model).by_input(x, y))
    with tf.GradientTape() as tape:
        network = Float64Network(model, tape)
        if of_logit:
            cost = tf.reduce_sum(network.costs_with_penalty_of_logit(x, y))
        else:
            cost = tf.reduce_sum(cross_entropy(y, network(x)))
        if penalty:
            cost += penalty * tf.reduce_sum(network.by_input(x, y) ** 2)
    found = {"conv": 0.0, "second": 0.0}
    gradients = tape.gradient(cost, network.gates, unconnected_gradients="zero")
    for number, (gradient, positions) in enumerate(zip(gradients, network.positions, strict=True)):
        means = tf.abs(gradient[:, 0, 0]) / positions
        found[list(found)[number % 2]] += tf.reduce_mean(means, axis=0).numpy()
    return found


@pytest.mark.parametrize("eager", [False, True])
def test_gradients_that_make_adversarial_examples_do_not_count(eager, images, randomized):
    model = built(Adversarial, randomized, run_eagerly=eager)
    assert_scores_match(scored(model, *images), reference(model, *images, step=STEP))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("eager", [False, True])
def test_a_gradient_penalty_counts_by_the_pass_that_trains(eager, activation, images, randomized):
    model = built(GradientPenalty, randomized, activation, run_eagerly=eager)
    expected = reference(model, *images, penalty=PENALTY)
    plain = reference(model, *images)
    assert abs(expected["conv"] - plain["conv"]).max() > 0.1 * plain["conv"].max()
    assert_scores_match(scored(model, *images), expected)


@pytest.mark.parametrize("eager", [False, True])
def test_a_penalty_of_what_maps_do_not_change_counts_with_the_loss(eager, images, randomized):
    pooling = layers.GlobalAveragePooling2D
    model = built(LogitPenalty, randomized, tail=pooling, run_eagerly=eager)
    expected = reference(model, *images, of_logit=True)
    assert_scores_match(scored(model, *images), expected)


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize("model_class", [GradientPenalty, LogitPenalty])
def test_a_penalty_trains_bit_for_bit_as_without_scores(model_class, images, randomized):
    weights = []
    for callbacks in ([], [kr.PartialRestart(fraction=0.25, monitor="loss")]):
        model = built(model_class, randomized, "relu", layers.GlobalAveragePooling2D)
        model.compile(keras.optimizers.Adam(0.01), loss())
        keras.utils.set_random_seed(0)
        model.fit(*images, callbacks=callbacks, batch_size=10, epochs=3, verbose=0)
        weights.append([v.numpy() for v in (*model.weights, *model.optimizer.variables)])
    for plain, scored_too in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, scored_too)


def test_a_criterion_of_ones_own_gets_each_part_of_a_penalty_as_a_map(images, randomized):
    shapes = []

    def squares(feature_map, gradient, channel_axis):
        shapes.append(feature_map.shape[1:])
        return tf.reduce_sum((feature_map * gradient) ** 2, axis=(1, 2))

    model = built(GradientPenalty, randomized)
    restart = kr.PartialRestart(fraction=0.25, monitor="loss", criterion=squares)
    model.fit(*images, callbacks=[restart], batch_size=10, verbose=0)
    assert all(of_layer.min() > 0 for of_layer in restart.scores.values())
    assert set(shapes) == {(6, 6, 4), (5, 5, 3)}


@pytest.mark.parametrize(
    "model_class", [ByInputAndWeights, PassForEach, PassForEachWeight, Jacobian, Curvature]
)
@pytest.mark.parametrize("eager", [False, True])
def test_only_passes_by_weights_count_whatever_else_is_differentiated(
    model_class, eager, images, randomized
):
    model = built(model_class, randomized, run_eagerly=eager)
    assert_scores_match(scored(model, *images), reference(model, *images))


@pytest.mark.parametrize("eager", [False, True])
def test_passes_of_one_step_count_by_their_sum(eager, images, randomized):
    model = built(PassForEachTask, randomized, run_eagerly=eager)
    of_one = reference(model, *images)
    expected = {key: sum(PassForEachTask.SHARES) * value for key, value in of_one.items()}
    assert_scores_match(scored(model, *images), expected)


def test_a_pass_while_a_scorer_records_is_added_to_that_which_it_makes(images, randomized):
    x, y = images
    model = built(keras.Model, randomized)
    scorer = kr.Scorer(model)
    for shares in (PassForEachTask.SHARES, (1.0, 0.0)):
        scorer.reset()
        with tf.GradientTape(persistent=True) as tape, scorer.record() as record:
            cost = model.compute_loss(None, tf.constant(y), model(x, training=True))
            costs = [share * cost for share in shares]
            tape.gradient(costs[0], model.trainable_weights)
        scorer.gradients(tape, costs[1], model.trainable_weights, record, batch_size=len(x))
        of_one = reference(model, *images)
        expected = {key: sum(shares) * value for key, value in of_one.items()}
        assert_scores_match(scorer.result(), expected)


def test_passes_on_one_record_are_batches_of_their_own(images, randomized):
    x, y = images
    model = built(keras.Model, randomized)
    scorer = kr.Scorer(model)
    with tf.GradientTape(persistent=True) as tape, scorer.record() as record:
        cost = model.compute_loss(None, tf.constant(y), model(x, training=True))
        costs = cost, 3 * cost
    for one in costs:
        scorer.gradients(tape, one, model.trainable_weights, record, batch_size=len(x))
    expected = {key: 2 * value for key, value in reference(model, *images).items()}
    assert_scores_match(scorer.result(), expected)


class Recomputed(layers.Layer):
    """A block that is computed again for its gradient."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, x):
        def run(x):
            for part in self.parts:
                x = part(x)
            return x

        return tf.recompute_grad(run)(x)


@pytest.mark.parametrize("within", ["a block", "a scope"])
@pytest.mark.parametrize("eager", [False, True])
def test_layers_that_are_computed_again_for_their_gradient_have_scores(
    within, eager, images, randomized
):
    in_scope = within == "a scope"
    with keras.RematScope(mode="full") if in_scope else contextlib.nullcontext():
        parts = layers.Conv2D(4, 3, name="conv"), layers.Activation("tanh", name="tanh")
    rest = [layers.Flatten(), layers.Dense(3)]
    body = parts if in_scope else [Recomputed(*parts)]
    model = randomized(keras.Sequential([keras.Input((8, 8, 2)), *body, *rest]))
    model.compile(keras.optimizers.SGD(0.0), loss(), run_eagerly=eager)
    stack = type("Stack", (), {"layers": [*parts, *rest]})
    expected = brute_force_scores(chain(stack), {"conv": "tanh"}, *images)
    assert_scores_match(kr.score_filters(model, *images), expected)
    assert_scores_match(scored(model, *images), expected)

"""Scores of what a training step computes, whatever its passes and tapes, against brute force."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain, cross_entropy
from keras import layers

import kerasrestart as kr
from tests.own_steps import OneTape

Z_OF = {"conv": "conv", "second": "second"}


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def body():
    return [
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.MaxPooling2D(2),
        layers.Conv2D(3, 2, activation="tanh", name="second"),
        layers.Flatten(),
        layers.Dense(3, name="logits"),
    ]


def built(model_class, randomized, **compiled):
    """A chain of layers as an instance of a model class, in which the weights stand still."""
    stack = keras.Sequential([keras.Input((8, 8, 2)), *body()])
    model = randomized(model_class(stack.inputs, stack.outputs))
    model.compile(**({"optimizer": keras.optimizers.SGD(0.0), "loss": loss()} | compiled))
    return model


def forward_of(model):
    stack = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    return chain(type("Stack", (), {"layers": stack}))


def scored(model, x, y, criterion="taylor", **options):
    restart = kr.PartialRestart(fraction=0.25, monitor="loss", criterion=criterion)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    model.fit(x, y, callbacks=[restart], **options)
    return restart


class CallsTheParent(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class TwoTapes(keras.Model):
    """Each half of the network has a tape and an optimizer of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.keeper.second_optimizer = keras.optimizers.SGD(0.0)

    @property
    def keeper(self):
        return self

    def train_step(self, data):
        x, y = data
        first, last = self.trainable_weights[:2], self.trainable_weights[2:]
        with tf.GradientTape() as one, tf.GradientTape() as other:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(one.gradient(loss, first), first)
        self.keeper.second_optimizer.apply(other.gradient(loss, last), last)
        return {"loss": loss}


class OptimizerInALayer(TwoTapes):
    """A layer keeps the second optimizer, as the critic of a GAN may."""

    @property
    def keeper(self):
        return self.layers[-1]


class TapeInTheLoop(OneTape):
    """Takes the gradient inside the context of a persistent tape."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


class ExactUnits(kr.RestartModel):
    """A sum over the batch, of which only scored_gradients tells."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = self.scored_gradients(tape, loss, batch_size=tf.shape(x)[0])
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


@pytest.mark.parametrize("model_class", [OneTape, CallsTheParent, TapeInTheLoop])
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_of_the_models_own_is_scored_as_it_stands(model_class, eager, images, randomized):
    model = built(model_class, randomized, run_eagerly=eager)
    reference = brute_force_scores(forward_of(model), Z_OF, *images)
    assert_scores_match(scored(model, *images).scores, reference)
    assert type(model) is model_class
    assert not {"train_step", "make_train_function"} & set(vars(model))


def test_scored_gradients_says_that_the_loss_is_a_sum(images, randomized):
    total = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model = built(ExactUnits, randomized, loss=total)
    reference = brute_force_scores(forward_of(model), Z_OF, *images)
    assert_scores_match(scored(model, *images).scores, reference)


@pytest.mark.parametrize("criterion", ["taylor_weight", "activation", "gradient"])
def test_other_criteria_of_a_step_of_the_models_own(criterion, images, randomized):
    scores = scored(built(OneTape, randomized), *images, criterion).scores
    expected = scored(built(keras.Model, randomized), *images, criterion).scores
    for name, of_layer in expected.items():
        assert of_layer.max() > 0
        np.testing.assert_allclose(scores[name], of_layer, rtol=1e-5)


@pytest.mark.parametrize("model_class", [TwoTapes, OptimizerInALayer])
def test_weights_are_scored_by_the_optimizer_that_holds_them(model_class, images, randomized):
    scores = scored(built(model_class, randomized), *images, "taylor_weight").scores
    assert set(scores) == {"conv", "second"}
    expected = scored(built(keras.Model, randomized), *images, "taylor_weight").scores
    for name, of_layer in expected.items():
        np.testing.assert_allclose(scores[name], of_layer, rtol=1e-5)


class SecondView(keras.Model):
    """Adds the cost of a second view, as R-Drop and consistency losses do."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        again = self(x[:, ::-1], training=training)
        first = super().compute_loss(x, y, y_pred, sample_weight, training)
        return first + 0.5 * super().compute_loss(x, y, again, sample_weight, training)


def test_scores_are_summed_over_all_passes_of_a_step(images, randomized):
    model = built(SecondView, randomized)
    forward = forward_of(model)

    def both(run, x):
        return forward(run, x), forward(run, x[:, ::-1])

    def cost(y, logits):
        return cross_entropy(y, logits[0]) + 0.5 * cross_entropy(y, logits[1])

    reference = brute_force_scores(both, Z_OF, *images, cost_of=cost)
    assert_scores_match(scored(model, *images).scores, reference)


def test_passes_over_a_layer_that_two_filter_layers_share_are_kept_apart(images, randomized):
    image = keras.Input((8, 8, 2))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    second, relu = layers.Conv2D(4, 3, padding="same", name="second"), layers.ReLU(name="relu")
    pool, logits = layers.GlobalAveragePooling2D(), layers.Dense(3)
    outputs = logits(pool(relu(second(relu(conv(image))))))
    model = randomized(SecondView(image, outputs))
    model.compile(keras.optimizers.SGD(0.0), loss())

    def forward(run, x):
        one = run(relu, run(conv, x))
        run.outputs["z of conv"] = [*run.outputs.get("z of conv", ()), one]
        two = run(relu, run(second, one))
        run.outputs["z of second"] = [*run.outputs.get("z of second", ()), two]
        return run(logits, run(pool, two))

    def both(run, x):
        return forward(run, x), forward(run, x[:, ::-1])

    def cost(y, made):
        return cross_entropy(y, made[0]) + 0.5 * cross_entropy(y, made[1])

    z_of = {"conv": "z of conv", "second": "z of second"}
    reference = brute_force_scores(both, z_of, *images, cost_of=cost)
    assert_scores_match(scored(model, *images).scores, reference)


def two_heads(randomized):
    """The second head has no loss."""
    image = keras.Input((8, 8, 2))
    outputs = {}
    for name in ("a", "b"):
        hidden = layers.Conv2D(4, 3, activation="relu", name=f"conv_{name}")(image)
        outputs[name] = layers.Dense(3, name=name)(layers.GlobalAveragePooling2D()(hidden))
    model = randomized(keras.Model(image, outputs))
    model.compile(keras.optimizers.SGD(0.0), {"a": loss()})
    return model


def test_a_head_without_a_loss_has_no_score(images, randomized):
    model, (x, y) = two_heads(randomized), images
    restart = scored(model, x, {"a": y})
    head = [model.get_layer("conv_a"), layers.GlobalAveragePooling2D(), model.get_layer("a")]
    forward = chain(type("Stack", (), {"layers": head}))
    reference = brute_force_scores(forward, {"conv_a": "conv_a"}, x, y)
    assert_scores_match(restart.scores, reference)
    assert restart.scorer.left_out == {"conv_b": "no gradient of the loss reaches it"}
    for criterion in ("taylor_weight", "gradient"):
        assert list(scored(model, x, {"a": y}, criterion).scores) == ["conv_a"]


class ReadsAMap:
    """Makes a loss of a map that the model's call gives to a pooling alone."""

    def features(self, x):
        return self.get_layer("conv")(x)

    def loss_of(self, x, y, y_pred):
        return keras.Model.compute_loss(self, x, y, y_pred) + self.penalty(self.features(x))

    def penalty(self, maps):
        return tf.reduce_mean((maps - 1) ** 2)


class PerceptualLoss(ReadsAMap, keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.loss_of(x, y, y_pred)


class PerceptualStep(ReadsAMap, OneTape):
    """The same in a step of its own."""


class OnePass(ReadsAMap, keras.Model):
    """The same by one pass; its call is that of an instance that knows its inputs."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            hidden = maps = self.features(x)
            for layer in self.layers[2:]:
                hidden = layer(hidden)
            loss = keras.Model.compute_loss(self, x, y, hidden) + self.penalty(maps)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("model_class", [PerceptualLoss, PerceptualStep, OnePass])
def test_a_map_that_only_the_loss_reads_counts(model_class, eager, images, randomized):
    model = built(model_class, randomized, run_eagerly=eager)
    conv, forward = model.get_layer("conv"), forward_of(model)

    def passes(run, x):
        logits = forward(run, x)
        maps = run.outputs["conv"][0] if model_class is OnePass else run(conv, x)
        return logits, maps

    def cost(y, results):
        logits, maps = results
        return cross_entropy(y, logits) + tf.reduce_mean((maps - 1) ** 2, axis=(1, 2, 3))

    reference = brute_force_scores(passes, Z_OF, *images, cost_of=cost)
    restart = scored(model, *images)
    assert_scores_match(restart.scores, reference)
    assert restart.scorer.filter_layers.left_out.keys() == {"logits"}
    if model_class is PerceptualLoss:  # the pass that score_filters makes takes this loss, too
        assert_scores_match(kr.score_filters(model, *images), reference)


class PerExample(keras.Model):
    """Clips the gradient of each example, as differentially private training does."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        of_examples = tape.jacobian(losses, self.trainable_weights)
        clipped = [tf.reduce_mean(tf.clip_by_value(one, -1, 1), axis=0) for one in of_examples]
        self.optimizer.apply(clipped, self.trainable_weights)
        return {"loss": tf.reduce_mean(losses)}


def test_gradients_of_each_example_by_a_jacobian_give_no_score(images, randomized):
    with pytest.raises(ValueError, match=r"No layer can be scored: conv .*by a Jacobian"):
        scored(built(PerExample, randomized), *images)


class Stopped(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        *_, flat, logits = self.layers
        hidden = x
        for layer in self.layers[1:-2]:
            hidden = tf.stop_gradient(layer(hidden)) if layer.name == "conv" else layer(hidden)
        return super().compute_loss(x, y, logits(flat(hidden)), sample_weight, training)


def test_a_layer_behind_stop_gradient_has_no_score(images, randomized):
    restart = scored(built(Stopped, randomized), *images)
    assert list(restart.scores) == ["second"]
    assert list(restart.scorer.left_out) == ["conv"]


def test_dead_filters_score_zero_and_stay(images, randomized):
    model = built(keras.Model, randomized)
    conv = model.get_layer("conv")
    kernel, bias = conv.get_weights()
    kernel[..., 1], bias[1] = 0, -1
    conv.set_weights([kernel, bias])
    restart = scored(model, *images)
    assert restart.scores["conv"][1] == 0
    assert (np.delete(restart.scores["conv"], 1) > 0).all()
    assert not restart.scorer.left_out


class InnerFunction(keras.Model):
    """Calls its first layers inside a function of their own."""

    @tf.function
    def features(self, x):
        for layer in self.layers[1:3]:
            x = layer(x)
        return x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        hidden = self.features(x)
        for layer in self.layers[3:]:
            hidden = layer(hidden)
        return super().compute_loss(x, y, hidden, sample_weight, training)


@pytest.mark.parametrize("eager", [False, True])
def test_a_layer_in_an_inner_function_is_left_out_and_the_others_are_scored(
    eager, images, randomized
):
    model = built(InnerFunction, randomized, run_eagerly=eager)
    reference = brute_force_scores(forward_of(model), Z_OF, *images)
    restart = scored(model, *images)
    assert_scores_match(restart.scores, {"second": reference["second"]})
    left_out = restart.scorer.filter_layers.unreached | restart.scorer.left_out
    assert list(left_out) == ["conv"]
    assert "function of its own" in left_out["conv"]


class Looped(InnerFunction):
    def features(self, x):
        pool, conv = self.layers[2], self.layers[1]

        def again(step, hidden):
            return step + 1, pool(conv(x)) + 0 * hidden

        shape = (tf.shape(x)[0], 3, 3, 4)
        return tf.while_loop(lambda step, _: step < 2, again, (0, tf.zeros(shape)))[1]


@pytest.mark.usefixtures("grappler")
def test_a_layer_in_a_loop_trains_as_it_did_and_is_left_out(images, randomized):
    model = built(Looped, randomized, optimizer=keras.optimizers.SGD(0.1))
    twin = built(Looped, randomized, optimizer=keras.optimizers.SGD(0.1))
    restart = scored(model, *images)
    twin.fit(*images, batch_size=8, shuffle=False, verbose=0)
    assert list(restart.scores) == ["second"]
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_weights_of_pixels_are_averaged_over_an_example(randomized):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10, 6, 6, 2)).astype("float32")
    y = rng.integers(0, 3, (10, 6, 6))
    weights = rng.uniform(0, 2, (10, 6, 6)).astype("float32")
    conv = layers.Conv2D(4, 3, padding="same", activation="tanh", name="conv")
    logits = layers.Conv2D(3, 1, name="logits")
    model = randomized(keras.Sequential([keras.Input((6, 6, 2)), conv, logits]))
    mean = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.SGD(0.0), mean)
    scores = scored(model, x, y, sample_weight=weights, batch_size=10).scores

    def cost(labels_and_weights, made):
        labels, of_pixels = labels_and_weights[..., 0], labels_and_weights[..., 1]
        labels = tf.cast(labels, tf.int32)
        entropy = tf.reduce_logsumexp(made, -1) - tf.gather(made, labels, batch_dims=3)
        return tf.reduce_mean(of_pixels * entropy, axis=(1, 2))

    both = np.stack([y, weights], axis=-1).astype("float64")
    reference = brute_force_scores(chain(model), {"conv": "conv"}, x, both, cost_of=cost)
    assert_scores_match(scores, reference)


def residual(jit_compile):
    """Sums of sums: a norm's shift, a shortcut, and a shortcut from a sum."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    for block in range(2):
        inner = layers.ReLU()(layers.BatchNormalization()(x))
        inner = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"in_{block}")(inner)
        inner = layers.Conv2D(4, 3, padding="same", name=f"out_{block}")(
            layers.ReLU()(layers.BatchNormalization()(inner))
        )
        x = layers.Add()([x, layers.BatchNormalization()(inner)])
        x = layers.ReLU()(x) if block else x
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.Adam(0.01), loss(), jit_compile=jit_compile)
    return model


def products(jit_compile):
    """Products of products: an activation by its own gate, and a scale behind it."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="swish"),
            layers.Dropout(0.1, seed=1),
            layers.Conv2D(4, 3, activation="gelu"),
            layers.SpatialDropout2D(0.1, seed=2),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Activation("swish"),
            layers.Rescaling(2.0),
            layers.Conv2D(4, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), loss(), jit_compile=jit_compile)
    return model


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="bit for bit holds on the CPU"
)
@pytest.mark.usefixtures("grappler")
@pytest.mark.parametrize(("network", "watched", "examples"), [(residual, 5, 20), (products, 4, 16)])
def test_a_network_of_sums_or_products_trains_bit_for_bit_as_without_scores(
    network, watched, examples, images
):
    weights = []
    for criterion in (None, "taylor", "activation", "taylor_weight"):
        model = network(jit_compile=False)
        x, y = (of[:examples] for of in images)
        restart = kr.PartialRestart(criterion=criterion or "taylor", fraction=0.25, monitor="loss")
        callbacks = [restart] if criterion else []
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
        weights.append([w.numpy() for w in (*model.weights, *model.optimizer.variables)])
        assert criterion is None or len(restart.scores) == watched
    for scored_weights in weights[1:]:
        for ours, theirs in zip(scored_weights, weights[0], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def perceptual(randomized):
    """A network whose loop also reads the map after the first ReLU, before the pooling."""
    stack = body()
    stack[:1] = [layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")]
    model = randomized(keras.Sequential([keras.Input((8, 8, 2)), *stack]))
    return model, keras.Model(model.inputs, [model.get_layer("relu").output, *model.outputs])


def perceptual_loss(y, features, logits):
    return loss()(y, logits) + 10 * tf.reduce_mean(features**2)


def controlled(model, both, x, y):
    controller = kr.RestartController(
        model,
        optimizer=keras.optimizers.SGD(0.0),
        when=kr.EverySteps(9, maturity=9, decay=0.0),
        select=kr.Fraction(0.25),
    )

    @controller.function
    def step(x, y):
        with tf.GradientTape() as tape:
            cost = perceptual_loss(y, *both(x, training=True))
        return tape.gradient(cost, model.trainable_variables)

    step(x, y)
    controller.step()
    return controller.scores


def recorded(model, both, x, y):
    scorer = kr.Scorer(model)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape, scorer.record() as record:
            cost = perceptual_loss(y, *both(x, training=True))
        weights = model.trainable_variables
        return scorer.gradients(tape, cost, weights, record, batch_size=len(x))

    step(x, y)
    return scorer.result()


@pytest.mark.parametrize("scores_of", [controlled, recorded])
def test_a_loop_may_read_maps_that_the_call_does_not_show(scores_of, images, randomized):
    x, y = images
    model, both = perceptual(randomized)
    scores = scores_of(model, both, tf.constant(x), tf.constant(y))
    features = []

    def forward(run, x):
        for layer in model.layers:
            x = run(layer, x)
            if layer.name == "relu":
                features.append(x)
        return x

    def cost(y, logits):
        return cross_entropy(y, logits) + 10 * tf.reduce_mean(features[-1] ** 2, (1, 2, 3))

    reference = brute_force_scores(forward, Z_OF | {"conv": "relu"}, x, y, cost_of=cost)
    assert_scores_match(scores, reference)


class EverySecondBatch(keras.Model):
    """Eager, with a branch that is taken in every second batch, as layers are dropped at random."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
        self.branch = layers.Conv2D(4, 3, padding="same", activation="tanh", name="branch")
        self.pool, self.logits = layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3)
        self.batches = 0

    def call(self, x, training=None):
        self.batches += bool(training)
        return self.through(lambda layer, x: layer(x), x)

    def through(self, run, x):
        x = run(self.conv, x)
        x = x + run(self.branch, x) if self.batches % 2 == 0 else x
        return run(self.logits, run(self.pool, x))


def test_an_eager_call_may_take_another_way_at_each_batch(images, randomized):
    x, y = images
    model = EverySecondBatch()
    model(x)
    randomized(model)
    model.compile(keras.optimizers.SGD(0.0), loss(), run_eagerly=True)
    scores = scored(model, x, y, batch_size=len(x) // 2).scores
    model.batches = 0

    def forward(run, x):
        model.batches += 1
        return model.through(run, x)

    half = len(x) // 2
    halves = [
        brute_force_scores(forward, {"conv": "conv"}, x[part], y[part])
        for part in (slice(half), slice(half, None))
    ]
    reference = {"conv": (halves[0]["conv"] + halves[1]["conv"]) / 2}
    assert_scores_match({"conv": scores["conv"]}, reference)


class SharedActivation(EverySecondBatch):
    """Its convolutions share the layer of their activation function."""

    def __init__(self):
        super().__init__()
        self.function = layers.Activation("tanh", name="function")
        self.own = layers.Conv2D(4, 3, padding="same", activation="tanh", name="own")
        for layer in (self.conv, self.branch):
            layer.activation = keras.activations.linear

    def through(self, run, x):
        if self.batches % 2 == 0:
            x = x[..., :1] + run(self.function, run(self.branch, x))
        else:
            x = tf.concat([x, x], -1)
        x = run(self.own, run(self.function, run(self.conv, x)))
        return run(self.logits, run(self.pool, x))


def test_places_that_layers_share_are_left_out_where_an_eager_call_takes_another_way(images):
    x, y = images
    model = SharedActivation()
    model(x)
    model.compile(keras.optimizers.SGD(0.0), loss(), run_eagerly=True)
    model.batches = 1  # the traced pass takes the branch
    restart = scored(model, x, y, batch_size=len(x) // 2)
    assert list(restart.scores) == ["own"]
    left_out = restart.scorer.left_out
    assert set(left_out) == {"conv", "branch"}
    assert all("not called as often as in the traced pass" in why for why in left_out.values())


def test_a_backward_pass_that_fails_is_not_added_to_the_next(images, randomized):
    failures = []

    @tf.custom_gradient
    def sometimes_failing(x):
        def backward(gradient):
            if failures:
                raise RuntimeError(failures.pop())
            return gradient

        return tf.identity(x), backward

    first, *others = body()
    stack = [keras.Input((8, 8, 2)), first, layers.Lambda(sometimes_failing), *others]
    model = randomized(keras.Sequential(stack))
    scores = []
    for errors in ([], ["once"]):
        failures[:] = errors
        controller = kr.RestartController(
            model,
            optimizer=keras.optimizers.SGD(0.0),
            when=kr.EverySteps(9, maturity=9, decay=0.0),
            select=kr.Fraction(0.25),
        )

        @controller.function
        def step(x, y):
            with tf.GradientTape(persistent=True) as tape:
                cost = loss()(y, model(x, training=True))
            try:
                return tape.gradient(cost, model.trainable_variables)
            except RuntimeError:
                return tape.gradient(cost, model.trainable_variables)

        step(*map(tf.constant, images))
        controller.step()
        scores.append(controller.scores)
        assert not failures
    for name, expected in scores[0].items():
        np.testing.assert_allclose(scores[1][name], expected, rtol=1e-5)


def test_an_activation_that_is_no_layer_is_read_behind_its_function():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(4, 3, name="conv")
            self.logits = keras.layers.Dense(3)

        def call(self, x):
            return self.logits(tf.reduce_mean(tf.nn.relu(self.conv(x)), [1, 2]))

    x = np.random.default_rng(0).normal(size=(12, 8, 8, 2)).astype("float32")
    model = Network()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(x)
    scores = kr.score_filters(model, x, np.zeros(12, int), criterion="activation")
    expected = np.maximum(model.conv(x).numpy().astype("float64"), 0).mean((0, 1, 2))
    np.testing.assert_allclose(scores["conv"], expected / expected.mean(), rtol=1e-5)


class HalfInstanceNorm(layers.Layer):
    """As in IBN-Net: an instance norm for half of the channels, a batch norm for the others."""

    def __init__(self):
        super().__init__()
        self.norms = [layers.GroupNormalization(-1), layers.BatchNormalization()]

    def call(self, x):
        return tf.concat(
            [norm(h) for norm, h in zip(self.norms, tf.split(x, 2, -1), strict=True)], -1
        )


class OwnNorm(layers.Layer):
    def __init__(self, axes):
        super().__init__()
        self.axes = axes

    def call(self, x):
        mean, variance = tf.nn.moments(x, self.axes, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-3)


class OwnGroupNorm(layers.Layer):
    """Channels of different layers are in one group."""

    def call(self, x):
        groups = tf.reshape(x, [-1, *x.shape[1:3], x.shape[-1] // 2, 2])
        mean, variance = tf.nn.moments(groups, [1, 2, 3], keepdims=True)
        return tf.reshape((groups - mean) * tf.math.rsqrt(variance + 1e-3), [-1, *x.shape[1:]])


def beside_ones(x):
    return layers.Concatenate()([x, keras.ops.ones_like(x)])


def with_shortcut(x):
    return layers.Add()([x, layers.GroupNormalization(-1)(x)])


@pytest.mark.parametrize(
    ("block", "is_scored"),
    [
        (lambda x: HalfInstanceNorm()(x), False),
        (lambda x: layers.GroupNormalization(-1)(layers.Concatenate()([x, x])), False),
        (lambda x: layers.Add()([layers.GroupNormalization(-1)(x) for _ in range(2)]), False),
        (lambda x: layers.BatchNormalization()(layers.Concatenate()([x, 2 * x])), True),
        (with_shortcut, True),
        (lambda x: OwnNorm([1, 2])(layers.Concatenate()([x, x])), False),
        (lambda x: OwnNorm([1, 2])(beside_ones(x)), False),
        (lambda x: OwnNorm([1, 2, 3])(beside_ones(x)), True),
        (lambda x: OwnGroupNorm()(beside_ones(x)), True),
    ],
)
def test_what_norms_read_apart_is_left_out_as_its_scores_are_about_zero(block, is_scored, images):
    image = keras.Input((8, 8, 2))
    plain = layers.Conv2D(4, 3, activation="relu", name="plain")(image)
    x = layers.ReLU()(block(layers.Conv2D(4, 3, name="normed")(plain)))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.compile("sgd", loss())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = kr.score_filters(model, *images)
    assert ("normed" in scores) == is_scored
    assert "plain" in scores


class TimeClasses(keras.Model):
    """The loss of a network that reads lines of text, of its own or as it is compiled."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.losses.CTC()(y, y_pred)


def test_a_loss_that_calls_functions_of_tensorflow_1_is_scored_as_a_compiled_one(randomized):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 12, 3)).astype("float32"), rng.integers(1, 5, (8, 3))
    scores = []
    for model_class, compiled in ((keras.Model, keras.losses.CTC()), (TimeClasses, None)):
        steps = keras.Input((12, 3))
        hidden = layers.Conv1D(6, 3, padding="same", activation="relu", name="conv")(steps)
        model = randomized(model_class(steps, layers.Dense(6)(hidden)))
        model.compile(keras.optimizers.SGD(0.0), compiled)
        scores.append(scored(model, x, y).scores)
    assert scores[0]["conv"].max() > 1e-3
    np.testing.assert_allclose(scores[1]["conv"], scores[0]["conv"], rtol=1e-5)

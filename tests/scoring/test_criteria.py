"""Every criterion against its formula in float64, without training and while `fit` trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import Float64, assert_scores_match, chain, cross_entropy
from keras import layers

import kerasrestart as kr
from kerasrestart.scoring import criteria
from kerasrestart.scoring.criteria import Criterion, Needs
from kerasrestart.scoring.criterion_names import WITHOUT_BATCHES
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_function import attach

BASE = tuple(criteria.CRITERIA)
# Directly after the activation: a pooling follows the first, a batch norm the third.
ACTIVATIONS = {"first": "first", "second": "tanh", "third": "third"}
# Whose output a gate on a filter would scale: the last affine map.
GATES = {"first": "first", "second": "norm", "third": "last_norm"}


@pytest.fixture
def net(randomized):
    def build(size=8, pool=True, **options):
        model = keras.Sequential(
            [
                keras.Input((size, size, 2)),
                layers.Conv2D(4, 3, activation="relu", name="first", **options),
                *([layers.MaxPooling2D(2)] if pool else []),
                layers.Conv2D(3, 2, use_bias=False, name="second"),
                layers.BatchNormalization(name="norm"),
                layers.Activation("tanh", name="tanh"),
                layers.Conv2D(5, 2, activation="relu", name="third"),
                layers.BatchNormalization(name="last_norm"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, dtype="float32", name="logits"),
            ]
        )
        compile_for_scores(randomized(model))
        return model

    return build


def compile_for_scores(model, optimizer=None, reduction="sum_over_batch_size", **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss=loss, **options)


class Scored(keras.callbacks.Callback):
    def __init__(self, scorer):
        super().__init__()
        self.scorer = scorer

    def on_train_begin(self, logs=None):
        self.attached = attach(self.model, self.scorer)

    def on_train_end(self, logs=None):
        self.attached.detach()


def fitted(model, criterion, x, y=None, *, batch_size=8, **options):
    """A scorer of an epoch in which the weights stand still."""
    scorer = Scorer(model, criterion)
    options = {"batch_size": batch_size, "shuffle": False, "verbose": 0} | options
    model.fit(x, y, callbacks=[Scored(scorer)], **options)
    return scorer


class Gated(Float64):
    """Scales the output of an affine map, filter by filter."""

    def __init__(self, gates, **options):
        super().__init__(**options)
        self.gates = gates

    def _conv(self, layer, y):
        gate = self.gates.get(layer.name, tf.ones((), tf.float64))
        if layer.use_bias:
            y = y + layer.bias.numpy().astype("float64")
        return {"relu": tf.nn.relu, "linear": tf.identity}[layer.activation.__name__](gate * y)

    def _batchnormalization(self, layer, x):
        gate = self.gates.get(layer.name, tf.ones((), tf.float64))
        return gate * super()._batchnormalization(layer, x)


def batches(x, y, size):
    for start in range(0, len(x), size):
        yield tf.constant(x[start : start + size].astype("float64")), y[start : start + size]


def formula_of_activations(name, model, x, y, *, batch_size=20, training=False):
    """The formulas of `activation`, `apoz` and `gradient`, summed up one number at a time."""
    sums = dict.fromkeys(ACTIVATIONS, 0.0)
    for images, labels in batches(x, y, batch_size):
        run = Float64(training)
        with tf.GradientTape() as tape:
            tape.watch(images)
            cost = tf.reduce_sum(cross_entropy(labels, chain(model)(run, images)))
        z = {layer: run.outputs[place][0] for layer, place in ACTIVATIONS.items()}
        for layer, gradient in tape.gradient(cost, z).items():
            values = z[layer].numpy()
            positions = values.shape[1] * values.shape[2]
            of_each = {
                "activation": np.abs(values),
                "apoz": 1.0 - (values == 0),
                "gradient": np.abs(gradient.numpy()),
            }[name]
            sums[layer] = sums[layer] + of_each.sum(axis=(0, 1, 2)) / positions
    means = {layer: total / len(x) for layer, total in sums.items()}
    if name == "activation":
        return {layer: mean / mean.mean() for layer, mean in means.items()}
    return means


def formula_of_gates(model, x, y, *, batch_size, training=False, places=GATES):
    """(dL/dgate)^2 averaged over batches by size: equals (sum of w * dL/dw)^2, never forms it."""
    sums = dict.fromkeys(places, 0.0)
    for images, labels in batches(x, y, batch_size):
        gates = {
            place: tf.ones(model.get_layer(layer).filters, tf.float64)
            for layer, place in places.items()
        }
        with tf.GradientTape() as tape:
            tape.watch(gates)
            logits = chain(model)(Gated(gates, training=training), images)
            loss = tf.reduce_mean(cross_entropy(labels, logits))
        gradients = tape.gradient(loss, gates)
        for layer, place in places.items():
            sums[layer] = sums[layer] + len(labels) * gradients[place].numpy() ** 2
    return {layer: total / len(x) for layer, total in sums.items()}


def formula(name, model, x, y, *, batch_size, training=False):
    if name == "taylor_weight":
        return formula_of_gates(model, x, y, batch_size=batch_size, training=training)
    return formula_of_activations(name, model, x, y, batch_size=batch_size, training=training)


OF_BATCHES = ["taylor_weight", "activation", "apoz", "gradient"]


@pytest.mark.parametrize("name", OF_BATCHES)
def test_score_is_the_formula(name, net, images):
    model = net()
    scores = kr.score_filters(model, *images, criterion=name, batch_size=8)
    assert_scores_match(scores, formula(name, model, *images, batch_size=8))


@pytest.mark.parametrize("name", OF_BATCHES)
@pytest.mark.usefixtures("grappler")
def test_score_taken_in_fit_is_the_formula(name, net, images):
    model = net(kernel_regularizer="l2" if name == "gradient" else None)
    scorer = fitted(model, name, *images)
    assert scorer.examples == 20
    reference = formula(name, model, *images, batch_size=8, training=True)
    assert_scores_match(scorer.result(), reference, rtol=3e-4)


@pytest.mark.parametrize("name", ["taylor_weight", "gradient"])
@pytest.mark.parametrize("how", ["sum", "loss scale"])
def test_reduction_and_scale_of_the_loss_are_undone(name, how, net, images):
    model = net()
    if how == "sum":
        compile_for_scores(model, reduction="sum")
    else:
        compile_for_scores(model, keras.optimizers.SGD(0.0, loss_scale_factor=64.0))
    scores = kr.score_filters(model, *images, criterion=name, batch_size=8)
    assert_scores_match(scores, formula(name, model, *images, batch_size=8))


@pytest.mark.parametrize("name", OF_BATCHES)
def test_score_under_mixed_precision(name, net, images):
    keras.config.set_dtype_policy("mixed_float16")
    model = net()
    # Of the usual 2^15 these gradients overflow.
    compile_for_scores(
        model, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=256.0)
    )
    scores = fitted(model, name, *images).result()
    reference = formula(name, model, *images, batch_size=8, training=True)
    for layer, expected in reference.items():
        np.testing.assert_allclose(scores[layer], expected, rtol=0.05, atol=0.02 * expected.max())


def test_batches_that_overflow_the_loss_scale_are_left_out_of_taylor_weight(net, images):
    keras.config.set_dtype_policy("mixed_float16")
    model = net()
    inner = keras.optimizers.SGD(0.0)
    compile_for_scores(model, keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**24))
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(20).repeat(16)
    scorer = fitted(model, "taylor_weight", dataset, batch_size=None)
    assert 0 < scorer.examples < scorer.seen == 320
    reference = formula_of_gates(model, *images, batch_size=20, training=True)
    for layer, expected in reference.items():
        actual = scorer.result()[layer]
        np.testing.assert_allclose(actual, expected, rtol=0.05, atol=0.02 * expected.max())


def test_taylor_weight_of_a_frozen_norm_takes_kernel_and_bias(randomized, images):
    norm = layers.BatchNormalization(trainable=False)
    conv = layers.Conv2D(4, 3, name="conv")
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), conv, norm, layers.ReLU(), layers.Flatten(), layers.Dense(3)]
    )
    compile_for_scores(randomized(model))
    scores = kr.score_filters(model, *images, criterion="taylor_weight", batch_size=20)["conv"]
    expected = formula_of_gates(model, *images, batch_size=20, places={"conv": "conv"})
    assert_scores_match({"conv": scores}, expected, rtol=1e-3)


@pytest.mark.usefixtures("grappler")
def test_scoring_weights_leaves_training_bit_for_bit_what_it_is(images):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("bit for bit holds on the CPU")

    def trained(criterion):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((8, 8, 2)), *body()])
        compile_for_scores(model, keras.optimizers.SGD(0.05, momentum=0.9))
        if criterion:
            assert fitted(model, criterion, *images).result()["conv"].max() > 0
        else:
            model.fit(*images, batch_size=8, shuffle=False, verbose=0)
        return model.get_weights()

    def body():
        conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        return [conv, layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(3)]

    plain = trained(None)
    for name in ("taylor_weight", "activation"):
        for ours, theirs in zip(trained(name), plain, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def norm_of(values, name):
    values = np.asarray(values, "float64").ravel()
    return np.sum(np.abs(values)) if name == "magnitude" else np.sqrt(np.sum(values**2))


@pytest.mark.parametrize("name", ["magnitude", "magnitude_l2"])
def test_magnitude_is_the_norm_of_each_kernel(name, randomized):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(6, 3, groups=2, name="grouped"),
            layers.Conv2DTranspose(5, 2, name="transposed"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    scores = kr.score_filters(randomized(model), criterion=name)  # no loss, no examples
    kernel = model.get_layer("grouped").kernel.numpy()
    expected = {"grouped": [norm_of(kernel[:, :, :, k], name) for k in range(6)]}
    kernel = model.get_layer("transposed").kernel.numpy()
    expected["transposed"] = [norm_of(kernel[:, :, k, :], name) for k in range(5)]
    assert_scores_match(scores, {n: np.array(v) for n, v in expected.items()}, rtol=1e-6)


def test_magnitude_after_fit_is_that_of_the_trained_weights(net, images):
    model = net()
    compile_for_scores(model, keras.optimizers.SGD(0.1))
    before = Scorer(model, "magnitude").result()
    scorer = fitted(model, "magnitude", *images)
    assert scorer.ready
    kernel = model.get_layer("first").kernel.numpy()
    expected = [norm_of(kernel[..., k], "magnitude") for k in range(4)]
    np.testing.assert_allclose(scorer.result()["first"], expected, rtol=1e-6)
    assert not np.allclose(expected, before["first"])


@pytest.mark.parametrize("name", ["magnitude", "random"])
def test_what_needs_no_batches_adds_nothing_to_the_step(name, net, images):
    model = net()
    scorers = {None: None, name: Scorer(model, name)}

    def operations(scorer):
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            return tape.gradient(loss, model.trainable_weights)

        def scored_step(x, y):
            with tf.GradientTape() as tape, scorer.record() as maps:
                assert not any("call" in vars(layer) for layer in model.layers)
                loss = model.compute_loss(x, y, model(x, training=True))
            return scorer.gradients(
                tape, loss, model.trainable_weights, maps, batch_size=tf.shape(x)[0]
            )

        function = tf.function(step if scorer is None else scored_step)
        graph = function.get_concrete_function(*map(tf.constant, images)).graph
        return [operation.type for operation in graph.get_operations()]

    plain, scored = (operations(scorer) for scorer in scorers.values())
    # The shape that the caller took to know the batch's size.
    extra = ["Shape", "strided_slice", "StridedSlice", "Const"]
    assert [kind for kind in scored if kind not in extra] == [k for k in plain if k not in extra]
    assert len(scored) - len(plain) <= 5


@pytest.mark.parametrize("name", OF_BATCHES)
def test_criterion_of_batches_is_not_ready_before_the_first(name, net):
    scorer = Scorer(net(), name)
    assert not scorer.ready
    assert all(not of_layer.any() for of_layer in scorer.result().values())


def test_random_scores_are_a_function_of_seed_and_draw(net, images):
    model = net()
    first = Scorer(model, "random", seed=3).result(draw=1)
    again = fitted(model, "random", *images)
    again.seed = 3
    for name, of_layer in first.items():
        np.testing.assert_array_equal(again.result(draw=1)[name], of_layer)
        assert of_layer.dtype == np.float32
        for other in (again.result(draw=2), Scorer(model, "random", seed=4).result(draw=1)):
            assert not np.isin(other[name], of_layer).any()
    seeded = kr.score_filters(model, criterion="random", seed=3)
    np.testing.assert_array_equal(seeded["third"], again.result()["third"])
    assert 0 <= min(map(np.min, first.values())) <= max(map(np.max, first.values())) < 1


@pytest.mark.parametrize("name", BASE)
def test_reversed_criterion_turns_the_order_round(name, net, images):
    model = net()
    scores = kr.score_filters(model, *images, criterion=name)
    turned = kr.score_filters(model, *images, criterion=f"reversed_{name}")
    for layer, of_layer in scores.items():
        np.testing.assert_array_equal(turned[layer], -of_layer)
        if len(set(of_layer)) == len(of_layer):
            assert np.argsort(turned[layer]).tolist() == np.argsort(of_layer)[::-1].tolist()
    chosen = kr.select_filters({"third": turned["third"]}, fraction=0.2)["third"]
    assert scores["third"][chosen[0]] == scores["third"].max()


@pytest.mark.parametrize(
    "name", ["reversed_", "reversed_reversed_taylor", "tayl", None, 3, ["taylor"]]
)
def test_unknown_criterion_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match="criterion must be one of") as error:
        criteria.get(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["activation", "apoz", "gradient"])
def test_channels_first_maps_score_as_channels_last_ones(name):
    rng = np.random.default_rng(0)
    z, gradient = np.maximum(rng.normal(size=(2, 3, 4, 5, 6)), 0).astype("float32")
    saliency = criteria.CRITERIA[name].saliency
    first = saliency(tf.constant(z), tf.constant(gradient), 1)
    last = saliency(*(tf.constant(np.moveaxis(part, 1, -1)) for part in (z, gradient)), -1)
    assert first.shape == (3, 4)
    np.testing.assert_allclose(first, last, rtol=1e-5)


@pytest.mark.parametrize("name", ["activation", "apoz"])
def test_images_of_any_size_need_neither_labels_nor_a_loss(name, net, images):
    model = net(size=None)
    plain = keras.Sequential([keras.Input((None, None, 2)), *model.layers])
    scores = kr.score_filters(plain, images[0], criterion=name, batch_size=8)
    assert_scores_match(scores, formula(name, model, *images, batch_size=8))


def test_activations_of_a_shared_layer_are_averaged_over_its_uses(images, randomized):
    image = keras.Input((8, 8, 2))
    shared = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared")
    logits = layers.Dense(3)(layers.GlobalAveragePooling2D()(shared(shared(image))))
    model = randomized(keras.Model(image, logits))
    run = Float64()
    once = run(shared, tf.constant(images[0].astype("float64")))
    run(shared, once)
    parts = [np.mean(z.numpy() != 0, axis=(0, 1, 2)) for z in run.outputs["shared"]]
    scores = kr.score_filters(model, images[0], criterion="apoz")["shared"]
    np.testing.assert_allclose(scores, np.mean(parts, axis=0), rtol=1e-5)


def test_dead_layer_scores_zero_and_is_finite(net, images):
    model = net()
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([0 * kernel, 0 * bias - 1])
    for name in ("activation", "apoz"):
        assert not kr.score_filters(model, images[0], criterion=name)["first"].any()


def test_a_criterion_of_ones_own_may_look_at_anything(net, images):
    model = net()
    largest = Criterion("largest", Needs.WEIGHTS, lambda kernel: np.abs(kernel).max(axis=0))
    kernel = model.get_layer("first").kernel.numpy()
    expected = np.abs(kernel).max(axis=(0, 1, 2))
    scores = kr.score_filters(model, criterion=largest)
    np.testing.assert_allclose(scores["first"], expected)
    turned = kr.score_filters(model, criterion=largest.reverse())
    np.testing.assert_allclose(turned["first"], -expected)

    squares = Criterion(
        "energy", Needs.ACTIVATION, lambda z, dz, axis: tf.reduce_sum(z * z, axis=(1, 2))
    )
    scores = kr.score_filters(model, images[0], criterion=squares)
    run = Float64()
    chain(model)(run, tf.constant(images[0].astype("float64")))
    expected = np.mean(run.outputs["first"][0].numpy() ** 2, axis=(0, 1, 2))
    np.testing.assert_allclose(scores["first"], expected, rtol=1e-4)


def without_scale():
    body = [layers.Conv2D(3, 3, name="conv"), layers.BatchNormalization(scale=False, name="bn")]
    model = keras.Sequential([keras.Input((8, 8, 2)), *body, layers.Flatten(), layers.Dense(3)])
    compile_for_scores(model)
    return model


@pytest.mark.parametrize(
    ("criterion", "examples", "message"),
    [
        ("taylor", False, "'taylor' needs examples"),
        ("activation", False, "'activation' needs examples"),
        ("taylor_weight", True, "scale of norm 'bn' behind layer 'conv'"),
        (lambda z, dz, axis: tf.reduce_sum(z * dz, -1), True, r"a tensor \[batch, filters\]"),
        (Criterion("two", Needs.WEIGHTS, lambda k: k.max()), True, "'two' must give one number"),
    ],
    ids=["taylor", "activation", "no scale", "own of maps", "own of weights"],
)
def test_what_cannot_be_scored_is_refused_in_one_line(criterion, examples, message, images):
    with pytest.raises(ValueError, match=message) as error:
        kr.score_filters(without_scale(), *(images if examples else ()), criterion=criterion)
    if "in user code" not in str(error.value):  # as TensorFlow writes of a step that it traces
        assert "\n" not in str(error.value)


def test_adding_without_a_backward_pass_is_refused_where_one_is_needed(net, images):
    model = net()
    scorer = Scorer(model, "gradient")
    with scorer.record() as maps:
        model(images[0])
    with pytest.raises(ValueError, match="needs a backward pass"):
        scorer.add(maps, batch_size=20)


def test_the_criteria_without_batches_are_listed():
    found = {name for name, one in criteria.CRITERIA.items() if not one.needs_step}
    assert found == set(WITHOUT_BATCHES)

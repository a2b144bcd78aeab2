"""Scores taken while `fit` trains, against brute force in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from float64_reference import assert_scores_match, brute_force_scores, chain
from keras import layers

import kerasrestart as kr

Z_OF = {"conv": "conv", "second": "second"}


def loss(reduction="sum_over_batch_size"):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


@pytest.fixture
def small(randomized):
    def build(*between, **options):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(4, 3, activation="relu", name="conv", **options),
                *between,
                layers.MaxPooling2D(2),
                layers.Conv2D(3, 2, activation="tanh", name="second"),
                layers.Flatten(),
                layers.Dense(3, dtype="float32", name="logits"),
            ]
        )
        return randomized(model)

    return build


def scores_of_fit(model, x, y, *, optimizer=None, batch_size=8, compiled=None, **fit_options):
    """Scores of an epoch in which the weights stand still."""
    compiled = {"loss": loss()} | (compiled or {})
    model.compile(optimizer or keras.optimizers.SGD(0.0), **compiled)
    restart = kr.PartialRestart(fraction=0.25, monitor="loss")
    model.fit(
        x,
        y,
        batch_size=batch_size,
        verbose=0,
        callbacks=[restart],
        **({"shuffle": False} | fit_options),
    )
    return restart.scores


@pytest.mark.parametrize(
    "compiled",
    [
        {"jit_compile": False},
        {"jit_compile": True},
        {"run_eagerly": True},
        {"steps_per_execution": 4, "jit_compile": False},
    ],
    ids=str,
)
def test_score_is_the_mean_over_examples_however_the_step_is_run(compiled, small, images):
    model = small()
    scores = scores_of_fit(model, *images, compiled=compiled)  # batches of 8, 8 and 4
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, *images))


def test_score_in_a_dataset_of_batches_of_any_size(small, images):
    model, (x, y) = small(), images
    parts = [(0, 3), (3, 14), (14, 15), (15, 20)]
    dataset = tf.data.Dataset.from_generator(
        lambda: ((x[a:b], y[a:b]) for a, b in parts),
        output_signature=(
            tf.TensorSpec((None, 8, 8, 2), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    scores = scores_of_fit(model, dataset, None, batch_size=None)
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, x, y))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_cost_of_an_example_is_weighted_by_its_weight(reduction, small, images):
    model = small()
    weights = np.linspace(0.0, 3.0, 20)
    scores = scores_of_fit(
        model, *images, sample_weight=weights, compiled={"loss": loss(reduction)}
    )
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, *images, weights=weights))


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_score_does_not_depend_on_the_reduction_of_the_loss(reduction, small, images):
    model = small()
    scores = scores_of_fit(model, *images, compiled={"loss": loss(reduction)})
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, *images))


def test_cost_of_an_example_is_weighted_by_its_class(small, images):
    model, (x, y) = small(), images
    by_class = {0: 0.5, 1: 2.0, 2: 1.0}
    scores = scores_of_fit(model, x, y, class_weight=by_class)
    weights = [by_class[k] for k in y]
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, x, y, weights=weights))


def test_penalties_on_weights_change_no_score(small, images):
    model = small(kernel_regularizer=keras.regularizers.L2(10.0))
    scores = scores_of_fit(model, *images)
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, *images))


def test_fixed_loss_scale_is_undone(small, images):
    model = small()
    optimizer = keras.optimizers.SGD(0.0, loss_scale_factor=64.0)
    scores = scores_of_fit(model, *images, optimizer=optimizer)
    assert_scores_match(scores, brute_force_scores(chain(model), Z_OF, *images))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_score_under_mixed_precision(policy, small, images):
    keras.config.set_dtype_policy(policy)
    model = small()
    scores = scores_of_fit(model, *images)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is (
        policy == "mixed_float16"
    )
    reference = brute_force_scores(chain(model), Z_OF, *images)
    assert_scores_match(scores, reference, rtol=0.01 if policy == "mixed_float16" else 0.05)


def overflowing(model):
    """Compiles with a loss scale that overflows in the first steps, each of which halves it."""
    inner = keras.optimizers.SGD(0.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**24)
    model.compile(optimizer, loss=loss())
    return kr.PartialRestart(fraction=0.25, monitor="loss")


def test_batches_that_overflow_the_loss_scale_are_left_out(small, images):
    keras.config.set_dtype_policy("mixed_float16")
    model = small()
    restart = overflowing(model)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(20).repeat(16)
    model.fit(dataset, verbose=0, callbacks=[restart])
    assert model.optimizer.dynamic_scale < 2.0**24
    reference = brute_force_scores(chain(model), Z_OF, *images)
    assert_scores_match(restart.scores, reference, rtol=0.01)


def test_an_epoch_of_overflowing_batches_alone_does_not_end_the_training(small, images):
    keras.config.set_dtype_policy("mixed_float16")
    model = small()
    restart = overflowing(model)
    model.fit(*images, batch_size=20, epochs=16, verbose=0, callbacks=[restart])
    reference = brute_force_scores(chain(model), Z_OF, *images)
    assert_scores_match(restart.scores, reference, rtol=0.01)


@pytest.mark.parametrize(
    ("body", "z"),
    [
        (lambda norm, relu: [norm, relu, layers.AveragePooling2D(2)], "relu"),
        (lambda norm, relu: [relu, norm, layers.AveragePooling2D(2)], "norm"),
        (lambda norm, relu: [layers.Reshape((9, 4, 4)), norm, relu], "relu"),
        (lambda norm, relu: [relu, layers.Permute((2, 1, 3)), norm], "norm"),
        (lambda norm, _: [layers.MaxPooling2D(2), layers.Reshape((9, 4)), norm], "norm"),
        (
            lambda norm, _: [norm, layers.Reshape((36, 4)), layers.Activation("tanh", name="tanh")],
            "tanh",
        ),
        (lambda norm, _: [norm, layers.Permute((2, 1, 3)), layers.ELU(name="elu")], "elu"),
    ],
)
def test_score_with_batch_norm_in_training_mode(body, z, images, randomized):
    norm, relu = layers.BatchNormalization(name="norm"), layers.ReLU(name="relu")
    model = randomized(
        keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(4, 3, name="conv"),
                *body(norm, relu),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            ]
        )
    )
    reference = brute_force_scores(chain(model), {"conv": z}, *images, batch_size=8, training=True)
    assert_scores_match(scores_of_fit(model, *images), reference)


def test_score_with_dropout_in_training_mode(small, images):
    dropout = layers.Dropout(0.5, name="dropout", seed=3)
    model = small(dropout)
    state = dropout.seed_generator.state.numpy()
    scores = scores_of_fit(model, *images, batch_size=20)
    dropout.seed_generator.state.assign(state)
    mask = dropout(np.ones((20, 6, 6, 4), "float32"), training=True).numpy().astype("float64")
    assert 0.3 < (mask == 0).mean() < 0.7
    reference = brute_force_scores(
        chain(model), Z_OF, *images, batch_size=20, training=True, masks={"dropout": mask}
    )
    assert_scores_match(scores, reference)


def test_scores_of_an_epoch_are_of_that_epoch_alone(small, images):
    model, (x, y) = small(), images
    model.compile(keras.optimizers.SGD(0.0), loss=loss())

    class Epochs(keras.utils.PyDataset):
        half = 0

        def __len__(self):
            return 1

        def __getitem__(self, index):
            rows = slice(10 * self.half, 10 * self.half + 10)
            return x[rows], y[rows]

        def on_epoch_end(self):
            self.half = 1

    restart = kr.PartialRestart(fraction=0.25, monitor="loss")
    model.fit(Epochs(), epochs=2, verbose=0, callbacks=[restart])
    reference = brute_force_scores(chain(model), Z_OF, x[10:], y[10:])
    assert_scores_match(restart.scores, reference)


def test_losses_that_mix_means_and_sums_are_refused(images):
    x, y = images
    image = keras.Input((8, 8, 2))
    hidden = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, [layers.Dense(3)(hidden), layers.Dense(3)(hidden)])
    model.compile(keras.optimizers.SGD(0.0), loss=[loss("sum"), loss()])
    restart = kr.PartialRestart(fraction=0.25, monitor="loss")
    with pytest.raises(ValueError, match="All losses must have one reduction"):
        restart.check(model)  # before any batch
    # To others the loss is nothing.
    for criterion in ("activation", "apoz"):
        restart = kr.PartialRestart(fraction=0.25, monitor="loss", criterion=criterion)
        model.fit(x, [y, y], verbose=0, callbacks=[restart])
        assert all(of.any() for of in restart.scores.values())


def test_cost_of_several_outputs_is_their_sum(images, randomized):
    x, y = images
    image = keras.Input((8, 8, 2))
    conv, flat = layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten()
    left = layers.Dense(3, name="left")
    hidden = flat(conv(image))
    model = randomized(keras.Model(image, {"left": left(hidden), "same": left(hidden)}))
    both = {"left": loss(), "same": loss()}
    scores = scores_of_fit(model, x, {"left": y, "same": y}, compiled={"loss": both})

    def forward(run, x):
        return run(left, run(flat, run(conv, x)))

    weights = np.full(20, 2.0)
    assert_scores_match(
        scores, brute_force_scores(forward, {"conv": "conv"}, x, y, weights=weights)
    )


class WithOptionalScale(keras.Model):
    """A convolution whose maps a second input scales, where that is given."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.logits = layers.Dense(3, name="logits")

    def call(self, inputs):
        x = self.conv(inputs["image"])
        scale = inputs.get("scale")
        return self.logits(tf.reduce_mean(x if scale is None else scale * x, (1, 2)))


@pytest.mark.parametrize("built", [True, False])
def test_an_input_may_be_missing(built, images):
    x, y = images
    given = {"image": x, "scale": None}
    model = WithOptionalScale()
    if built:
        model({"image": x[:2], "scale": None})
    scores = scores_of_fit(model, given, y)
    single = keras.Sequential(
        [keras.Input(x.shape[1:]), model.conv, layers.GlobalAveragePooling2D(), model.logits]
    )
    single.compile(keras.optimizers.SGD(0.0), loss())
    reference = kr.score_filters(single, x, y)
    assert_scores_match(scores, reference)
    assert_scores_match(kr.score_filters(model, given, y), reference)
    batches = tf.data.Dataset.from_tensors((given, y))
    assert_scores_match(kr.score_filters(model, batches), reference)
    assert "logits" in kr.describe(model, given)


def test_some_input_must_be_given():
    model = WithOptionalScale()
    model.compile("sgd", loss())
    with pytest.raises(TypeError, match=r"x must be arrays, .* Received: \{'image': None\}"):
        kr.score_filters(model, {"image": None}, np.zeros(4, int))

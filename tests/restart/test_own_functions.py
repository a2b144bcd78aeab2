"""Functions of the user's: their form is checked at once, and what fails in them is named."""

import re
import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.network.own_functions import form_of, takes
from kerasrestart.restart.when import checked_step
from kerasrestart.scoring.criteria import Criterion, Needs

X, Y = np.random.default_rng(0).random((8, 6, 6, 1)).astype("float32"), np.arange(8) % 2


def net(**options):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(8, 3, name="conv", activation="relu", **options),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model=None, **options):
    restart = kr.PartialRestart(
        **{"when": kr.EveryEpochs(1, monitor="loss", recovery_epochs=1)} | options
    )
    model = model or net()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[restart])
    return restart


class Steps(kr.When):
    def __init__(self, returned=None):
        self.monitor = "loss"
        self.returned = returned

    def step(self, progress, value):
        return self.returned


class StepOfValue(kr.When):
    def step(self, value):
        return value


class OneArgument(kr.RestartObserver):
    def on_restart_end(self, event):
        """Misses an argument."""


class OwnRemedy(kr.ResetModel):
    def apply(self, model):
        """Misses two."""


def two(a, b):
    return a


def one(a):
    return a


@pytest.mark.parametrize(
    ("argument", "function", "message"),
    [
        ("select", two, r"\(scores\) -> {layer: indices}\. Received: two\(a, b\)"),
        ("select", lambda: {}, r"Received: <lambda>\(\)"),
        ("select", lambda exclude: {}, r"Received: <lambda>\(exclude\)"),
        ("criterion", two, r"channel_axis\) -> \[batch, filters\]\. Received: two\(a, b\)"),
        ("criterion", Criterion, "criterion must be a name, or a function"),
        ("initializer", two, r"\(kernel, axis, seed, chosen\) -> kernel.* Received: two\(a, b\)"),
        ("reset", two, r"a function \(model\) -> None\. Received: two\(a, b\)"),
        ("reset", OwnRemedy(), r"apply\(model, seed, optimizer\).* OwnRemedy.apply\(model\)"),
        ("reset", OwnRemedy, "reset must be a Reset"),
        ("when", one, r"when must be OnPlateau, .*"),
        ("when", kr.When(), "when must be a When of a class that defines step"),
        ("when", StepOfValue(), r"step\(progress, value\).* Received: StepOfValue.step\(value\)"),
        (
            "observers",
            [OneArgument()],
            r"on_restart_end\(event, restart\). Received: OneArgument.on_restart_end\(event\)",
        ),
    ],
)
def test_a_function_of_another_form_is_refused_as_the_callback_is_made(argument, function, message):
    with pytest.raises(ValueError, match=message) as error:
        kr.PartialRestart(**{argument: function})
    assert str(error.value).startswith(argument)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kr.Scoring(two), "criterion must be"),
        (lambda: kr.Scoring(3), "criterion must be one of"),
        (lambda: kr.NormMatched(two), "base must be"),
        (lambda: kr.Reset(two), "initializer must be"),
        (lambda: kr.select_filters({"a": np.arange(4)}, two), "select must be"),
        (lambda: kr.restart_filters(net(), {"conv": [0]}, initializer=two), "initializer must be"),
        (lambda: kr.score_filters(net(), X, Y, criterion=two), "criterion must be"),
        (lambda: kr.Scorer(net(), two), "criterion must be"),
        (lambda: Criterion("a", Needs.WEIGHTS, two), r"\(kernel\) -> .* Received: two\(a, b\)"),
        (lambda: Criterion("a", Needs.NOTHING, one), r"\(generator, filters\) -> .*one\(a\)"),
        (lambda: Criterion("a", "weights", one), "needs must be"),
        (lambda: Criterion("a", Needs.WEIGHTS, one, of_layer=two), "of_layer must be"),
        (
            lambda: kr.RestartController(net(), when=kr.EverySteps(2)).function(3),
            "step must be a Python function",
        ),
        (lambda: kr.RestartController(net(), when=kr.EverySteps(2), select=two), "select must be"),
    ],
)
def test_all_that_takes_a_function_checks_its_form(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_function_whose_signature_is_not_known_is_accepted():
    unknown = type("Unknown", (), {"__signature__": 3, "__call__": lambda self, scores: {}})()
    assert takes(unknown, 1)
    assert form_of(unknown) == "Unknown"
    kr.PartialRestart(select=unknown, criterion=unknown)


def failing(*arguments):
    return {}["conv9"]


def fails(scores):
    return failing(scores)


def fails_on_a_map(feature_map, gradient, channel_axis):
    return failing(feature_map)


def fails_on_a_kernel(kernel, axis, seed, chosen):
    return failing(kernel)


def fails_on_a_model(model):
    failing(model)


class FailingStep(kr.When):
    monitor = "loss"

    def step(self, progress, value):
        return failing(progress)


@pytest.mark.parametrize(
    ("argument", "function", "name"),
    [
        ("select", fails, "fails"),
        ("criterion", fails_on_a_map, "fails_on_a_map"),
        ("criterion", Criterion("a", Needs.WEIGHTS, fails), "fails"),
        ("criterion", Criterion("a", Needs.WEIGHTS, lambda k: k[0], of_layer=fails), "fails"),
        ("initializer", fails_on_a_kernel, "fails_on_a_kernel for layer 'conv'"),
        ("reset", fails_on_a_model, "fails_on_a_model"),
        ("when", FailingStep(), "FailingStep"),
    ],
)
def test_an_error_inside_a_function_names_it_and_the_argument(argument, function, name):
    with pytest.raises(ValueError, match=f"Received: {name}, which raised KeyError: 'conv9'") as e:
        fit(**{argument: function})
    text = str(e.value)
    if argument == "criterion":
        assert "criterion must not raise" in text or "of_layer must not raise" in text
    elif argument != "when":
        assert text.startswith(f"{argument} must ")
    if "in user code" not in text:  # as TensorFlow writes of a step that it traces
        assert "\n" not in text
        assert "(test_own_functions.py, line " in text
    # fit removes the cause, but the line of the function stays in the traceback.
    assert "failing" in [frame.name for frame in traceback.extract_tb(e.tb)]


def test_the_error_of_a_function_is_the_cause_of_the_one_that_names_it():
    with pytest.raises(ValueError, match=r"^select must not raise an error") as error:
        kr.select_filters({"a": np.arange(4)}, fails)
    assert isinstance(error.value.__cause__, KeyError)


def test_errors_of_the_parts_of_this_package_stay_as_they_are():
    with pytest.raises(ValueError, match=r"^fraction must be 0.125 or more"):
        kr.select_filters({"a": np.arange(4)}, kr.Fraction(0.01))


@pytest.mark.parametrize("returned", [None, 3, ("train", 3), (kr.RoundProgress(),)])
def test_what_a_step_of_a_schedule_returns_is_checked_in_one_line(returned):
    with pytest.raises(ValueError, match=r"Steps\.step must return a RoundProgress and an Act"):
        fit(when=Steps(returned))


def test_a_step_of_a_schedule_may_return_a_list():
    returned = [kr.RoundProgress(), kr.Action.TRAIN]
    assert checked_step(Steps(returned), kr.RoundProgress(), 0.5) == tuple(returned)


@pytest.mark.parametrize(
    ("returned", "received"),
    [(lambda z: None, "None"), (lambda z: z, r"shape \(None, 4, 4, 8\)"), (lambda z: 1.0, "1.0")],
)
def test_what_a_criterion_of_maps_returns_is_checked_before_a_batch_is_trained_on(
    returned, received
):
    model = net()
    with pytest.raises(ValueError, match=rf"must give a tensor \[batch, .* Received: {received}"):
        fit(model, criterion=lambda z, gradient, axis: returned(z))
    assert model.optimizer.iterations == 0


def drawing(value):
    def draw(kernel, axis, seed, chosen):
        return value(kernel)

    return draw


def first_is(number):
    """Draws a number for the first filter, so that a trial draw does, too."""
    return drawing(lambda kernel: np.where(np.arange(kernel.shape[-1]) == 0, number, kernel))


WRONG_DRAWS = {
    "NaN": (first_is(np.nan), "finite numbers.*which drew nan"),
    "infinite": (first_is(np.inf), "finite numbers.*which drew inf"),
    "too large for its dtype": (first_is(1e300), "finite numbers.*which drew inf"),
    "another shape": (drawing(lambda kernel: kernel[..., 0]), r"float32 of shape \(3, 3, 1\)"),
    "the shape turned round": (
        drawing(lambda kernel: tf.transpose(kernel)),
        r"numbers of shape \(3, 3, 1, 8\).* of shape \(8, 1, 3, 3\)",
    ),
    "texts": (drawing(lambda kernel: tf.fill(kernel.shape, "a")), "numbers.* drew string of shape"),
    "complex": (drawing(lambda kernel: tf.cast(kernel, tf.complex64)), "which drew complex64"),
    "nothing": (drawing(lambda kernel: None), "which raised ValueError"),
    "Keras's form, NaN": (lambda shape, dtype: tf.fill(shape, np.nan), "which drew nan"),
    "Keras's form, shape": (lambda shape, dtype: tf.zeros(shape[::-1]), r"of shape \(8, 1, 3, 3\)"),
    "within another": (kr.NormMatched(first_is(np.nan)), "which drew nan"),
}


@pytest.mark.parametrize("name", WRONG_DRAWS)
def test_new_weights_that_cannot_be_written_are_refused_and_nothing_changes(name):
    initializer, message = WRONG_DRAWS[name]
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as e:
        kr.restart_filters(model, {"conv": [0, 3]}, initializer=initializer)
    assert re.match(r"initializer must (draw|not raise) .*for layer 'conv', which ", str(e.value))
    assert "\n" not in str(e.value)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    with pytest.raises(ValueError, match=message):
        fit(model, initializer=initializer)
    assert model.optimizer.iterations == 0


def test_new_weights_of_filters_that_stay_may_be_anything():
    model = net()
    kernel = model.get_layer("conv").kernel
    before = kernel.numpy()
    kr.restart_filters(model, {"conv": [3]}, initializer=first_is(np.nan))
    np.testing.assert_array_equal(np.delete(kernel.numpy(), 3, -1), np.delete(before, 3, -1))


def test_a_restart_whose_weights_are_not_finite_ends_training_before_it():
    """Where only the weights of that time show it, and not the trial before training."""
    trials = []

    def later(kernel, axis, seed, chosen):
        trials.append(seed)
        return kernel if len(trials) == 1 else kernel * np.nan

    model = net()
    with pytest.raises(ValueError, match=r"initializer must draw finite numbers\. Received: later"):
        fit(model, initializer=later)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert model.train_function is None or "train_step" not in vars(model)


def not_a_number(shape, dtype=None):
    return tf.fill(shape, tf.cast(np.nan, dtype))


def test_initializers_of_biases_and_norms_are_checked_too():
    model = net()
    model.get_layer("conv").bias_initializer = not_a_number
    with pytest.raises(ValueError, match=r"bias_initializer must draw finite .* layer 'conv'"):
        kr.restart_filters(model, {"conv": [0]})
    model = net()
    model.get_layer("norm").gamma_initializer = not_a_number
    with pytest.raises(ValueError, match=r"gamma_initializer must draw finite .* layer 'norm'"):
        kr.restart_filters(model, {"conv": [0]})


def test_a_layer_whose_new_weights_are_not_finite_is_not_reset():
    class Wrong(layers.Dense):
        fails = False

        def build(self, shape):
            if Wrong.fails:
                self.kernel_initializer = not_a_number
            super().build(shape)

    model = keras.Sequential([keras.Input((3,)), Wrong(2, name="wrong")])
    before = model.get_weights()
    Wrong.fails = True
    with pytest.raises(ValueError, match=r"initializers of layer .*wrong.* must draw finite"):
        kr.reset_model(model)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)

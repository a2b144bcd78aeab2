"""Optimizers that a training step uses and the model does not hold: their slots are reset."""

import types
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.optimizers import optimizers_of
from tests.own_steps import OneTape

KEPT = {}  # as in a global variable, out of the model's sight


class Stepping(OneTape):
    """Holds no optimizer but that of `compile`, which it does not use."""

    def update(self, gradients, weights):
        KEPT["optimizer"].apply(gradients, weights)


class Applying(Stepping):
    def update(self, gradients, weights):
        KEPT["optimizer"].apply_gradients(zip(gradients, weights, strict=True))


class Wrapper(keras.optimizers.Optimizer):
    """An optimizer around another; its apply does not call that of its base class."""

    def __init__(self, inner):
        super().__init__(learning_rate=0.0)
        self.by = types.SimpleNamespace(inner=inner)

    def apply(self, grads, trainable_variables=None):
        self.by.inner.apply([2 * grad for grad in grads], trainable_variables)


class Wrapped(Stepping):
    def update(self, gradients, weights):
        KEPT["wrapper"].apply([grad / 2 for grad in gradients], weights)


def adam():
    return keras.optimizers.Adam(0.01)


def scaled_adam():
    return keras.optimizers.LossScaleOptimizer(adam(), initial_scale=1.0)


def net(model_class, make=adam):
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="second")(x))
    model = model_class(image, layers.Dense(3, name="logits")(x))
    optimizer = make()
    optimizer.build(model.trainable_variables)
    KEPT.update(optimizer=optimizer, wrapper=Wrapper(optimizer))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Without an optimizer of its own Keras makes an RMSprop, which the step does not use.
    options = {"optimizer": optimizer} if model_class is OneTape else {}
    model.compile(loss=loss, **options)
    return model, optimizer


class Slots(kr.RestartObserver):
    """Notes the slots of the convolutions at each restart: by shape and place."""

    def __init__(self, optimizer):
        self.optimizer, self.notes = optimizer, []

    def on_restart_end(self, event, restart):
        # Adam's variables: its rate and steps, then two slots for each weight.
        slots = [v.numpy() for v in self.optimizer.variables if len(v.shape) == 4]
        self.notes.append((event, slots))


def fit(model, images, optimizer=None, epochs=3, **options):
    x, y = images
    watch = Slots(optimizer)
    arguments = {"when": kr.EveryEpochs(1, monitor="loss"), "stop_on_repeat": False} | options
    restart = kr.PartialRestart(
        select=kr.Fraction(0.25), max_restarts=1, observers=[watch], **arguments
    )
    model.fit(x, y, batch_size=10, epochs=epochs, shuffle=False, verbose=0, callbacks=[restart])
    return restart, watch.notes


@pytest.mark.parametrize(
    ("model_class", "make"), [(Stepping, scaled_adam), (Applying, adam), (Wrapped, adam)]
)
def test_slots_of_an_optimizer_out_of_sight_are_reset(model_class, make, images):
    model, optimizer = net(model_class, make)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    _, ((event, slots),) = fit(model, images, inner)
    assert len(slots) == 4  # two means of two kernels
    for number, slot in enumerate(slots):
        chosen = event.layers[("conv", "second")[number // 2]].filters
        np.testing.assert_array_equal(slot[..., chosen], 0)
        assert (np.delete(slot, chosen, axis=-1) != 0).any(axis=(0, 1, 2)).all()


@pytest.mark.parametrize("options", [{}, {"criterion": "magnitude"}, {"control": "slots"}], ids=str)
def test_training_is_as_with_the_optimizer_in_sight(options, images):
    ends = []
    for model_class in (OneTape, Stepping):
        model, optimizer = net(model_class)
        restart, _ = fit(model, images, optimizer, **options)
        assert len(restart.events) == 1
        ends.append([v.numpy() for v in (*model.weights, *optimizer.variables)])
    for ours, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("model_class", "make", "factor"),
    [(Stepping, adam, 1), (Stepping, scaled_adam, 1), (Wrapped, adam, 1 / 4)],
)
def test_weights_are_scored_by_the_gradients_that_it_is_given(model_class, make, factor, images):
    expected, _ = fit(net(OneTape)[0], images, criterion="taylor_weight", epochs=1)
    restart, _ = fit(net(model_class, make)[0], images, criterion="taylor_weight", epochs=1)
    for name, of_layer in expected.scores.items():
        assert of_layer.max() > 0
        # The wrapper gets half of the gradient, of which the score is the square.
        np.testing.assert_allclose(restart.scores[name], factor * of_layer, rtol=1e-5)


def test_an_optimizer_that_was_heard_is_known_after_fit(images):
    model, optimizer = net(Stepping)
    fit(model, images, epochs=1)
    kr.restart_filters(model, {"conv": [1]})
    momentum = next(v.numpy() for v in optimizer.variables if len(v.shape) == 4)
    assert np.flatnonzero(~momentum.any(axis=(0, 1, 2))).tolist() == [1]


@pytest.mark.parametrize("model_class", [Stepping, keras.Model])
def test_an_optimizer_is_forgotten_when_the_model_is_compiled_again(model_class, images):
    model, optimizer = net(model_class)
    first = model.optimizer  # kept alive, as by a variable of the user's
    fit(model, images, epochs=1)
    assert first in optimizers_of(model)
    model.compile("sgd", model.loss)
    assert optimizers_of(model) == [model.optimizer]
    assert optimizer.built


def test_an_optimizer_inside_another_is_heard_once(images):
    model, optimizer = net(Stepping, scaled_adam)
    fit(model, images, epochs=1)
    assert optimizers_of(model) == [model.optimizer, optimizer]


class ByHand(Stepping):
    def update(self, gradients, weights):
        for gradient, weight in zip(gradients, weights, strict=True):
            weight.assign_sub(0.01 * gradient)


def test_filters_that_no_optimizer_trains_are_reported_at_a_restart(images):
    with pytest.warns(UserWarning, match="No Keras optimizer was found that trains 'by_hand"):
        fit(net(ByHand)[0], images, adam())


class Counting(OneTape):
    """Counts how often its step is traced, past what a traced pass restores."""

    runs: ClassVar = []

    def train_step(self, data):
        self.runs.append(1)
        return super().train_step(data)


class HeadFirst(Counting):
    def update(self, gradients, weights):
        self.optimizer.apply_gradients(zip(gradients[::-1], weights[::-1], strict=True))


class TwoOptimizers(Counting):
    """Another one, held in a list, trains the first convolution; the compiled one the others."""

    def update(self, gradients, weights):
        self.optimizer.apply(gradients[2:], weights[2:])
        self.more[0].apply(gradients[:2], weights[:2])


class Lazy(Counting):
    """Makes an optimizer in the step, when it is first run."""

    def update(self, gradients, weights):
        if len(self.more) == 1:
            self.more.append(keras.optimizers.SGD(0.1, momentum=0.9))
        self.optimizer.apply(gradients[2:], weights[2:])
        self.more[1].apply(gradients[:2], weights[:2])


class GivenTwice(Counting):
    """As where two tasks have some weights in common."""

    def update(self, gradients, weights):
        self.optimizer.apply([*gradients, *gradients[:2]], [*weights, *weights[:2]])


class OfAnIterator(Counting):
    def update(self, gradients, weights):
        self.optimizer.apply(gradients, iter(weights))


class ClippedFirst(keras.optimizers.SGD):
    """Builds itself for the convolutions alone, though it is given all variables."""

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build([v for v in trainable_variables if "conv" in v.path])
        known = [index for index, v in enumerate(trainable_variables) if "conv" in v.path]
        super().apply([grads[n] for n in known], [trainable_variables[n] for n in known])


def by_layer():
    convolutions, others = adam(), keras.optimizers.SGD(0.1, momentum=0.9)
    return keras.optimizers.MultiOptimizer(
        lambda variable: convolutions if "conv" in variable.path else others
    )


def trained(model_class, make, images, callbacks=()):
    keras.backend.clear_session()  # optimizers are numbered from one again
    model, _ = net(model_class)
    model.more = [scaled_adam()]
    model.compile(make(), model.loss)
    Counting.runs.clear()
    x, y = images
    model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))
    optimizers = [model.optimizer, *model.more]
    variables = [*model.variables, *(v for one in optimizers for v in one.variables)]
    return [v.path for v in variables], [v.numpy() for v in variables], len(Counting.runs)


@pytest.mark.parametrize(
    ("model_class", "make", "traces"),
    [
        (Counting, adam, 1),
        (Counting, scaled_adam, 1),
        (HeadFirst, adam, 1),
        (TwoOptimizers, adam, 1),
        (OfAnIterator, adam, 1),
        (Lazy, adam, 1),
        (GivenTwice, adam, 1),
        # It may build itself in another way.
        (Counting, lambda: ClippedFirst(0.1, momentum=0.9), 2),
        # Keras loses what it assigns when it is built.
        (Counting, lambda: keras.optimizers.ScheduleFreeAdamW(0.01), 2),
        (keras.Model, lambda: keras.optimizers.ScheduleFreeAdamW(0.01), None),
        pytest.param(
            *(Counting, by_layer, 1),
            marks=pytest.mark.skipif(
                not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has none"
            ),
        ),
    ],
)
def test_optimizers_are_built_as_by_the_step_which_is_traced_once(
    model_class, make, traces, images
):
    """TensorFlow traces a step twice that makes variables, such as slots."""
    paths, expected, _ = trained(model_class, make, images)
    never = kr.PartialRestart(select=kr.Fraction(0.25), when=kr.EveryEpochs(9, monitor="loss"))
    ours, values, runs = trained(model_class, make, images, [never])
    if traces is not None:
        assert runs == 1 + traces  # one shows what the step computes
    assert ours == paths
    for value, same in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, same)

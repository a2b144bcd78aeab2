"""Reading and setting the learning rate, of one optimizer or of several."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from kerasrestart.restart.learning_rate import learning_rate_of, set_learning_rate

Y = np.random.default_rng(1).integers(0, 3, 24)


@pytest.mark.parametrize("rate", [0.01, 1 / 30, 0.123456789, 1e-7, 3.0])
def test_a_rate_is_read_so_that_it_can_be_reset_exactly(rate):
    optimizer = keras.optimizers.SGD(rate)
    before = optimizer.learning_rate.numpy()
    read = learning_rate_of(optimizer)
    set_learning_rate(optimizer, 5.0)
    set_learning_rate(optimizer, read)
    assert optimizer.learning_rate.numpy() == before


def test_a_rate_is_returned_as_it_was_written():
    assert learning_rate_of(keras.optimizers.SGD(0.01)) == 0.01


def several(*rates):
    """A `MultiOptimizer` of the first layer's optimizer and that of the others, and these two."""
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    parts = keras.optimizers.Adam(rates[0]), keras.optimizers.SGD(rates[1])
    by_path = keras.optimizers.OptimizerMap(parts[1], {"conv/.*": parts[0]})
    return keras.optimizers.MultiOptimizer(by_path), parts


class Rates(kr.RestartObserver):
    """Keeps the learning rates of some optimizers, at the end of each epoch."""

    def __init__(self, optimizers):
        self.optimizers, self.seen = optimizers, []

    def on_epoch_end(self, epoch, restart):
        self.seen.append([float(f"{float(o.learning_rate):.7g}") for o in self.optimizers])


def fit_with_restart(optimizer, parts=(), others=(), drops=0):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)
    rates = Rates(parts)
    restart = kr.PartialRestart(
        fraction=0.25,
        when=kr.EveryEpochs(2, "loss", learning_rate_drops=drops),
        max_restarts=1,
        observers=[rates],
    )
    x = np.random.default_rng(0).normal(size=(24, 6, 6, 1)).astype("float32")
    history = model.fit(x, Y, epochs=4, callbacks=[restart, *others], verbose=0).history
    return restart, history, rates.seen


@pytest.mark.parametrize("rates", [(0.01, 0.003), (0.002, 0.5)])
def test_each_of_several_optimizers_has_its_own_rate_reset(rates):
    optimizer, parts = several(*rates)
    restart, history, seen = fit_with_restart(optimizer, parts, drops=1)
    low = [pytest.approx(rate / 10) for rate in rates]
    assert seen == [[*rates], low, [*rates], low]
    assert history["learning_rate"] == [of[np.argmax(rates)] for of in seen]
    assert restart.events[0].learning_rate == max(rates)


def test_optimizers_that_a_function_names_have_their_rates_reset_too():
    _, parts = several(0.01, 0.003)
    optimizer = keras.optimizers.MultiOptimizer(lambda variable: parts["conv" not in variable.path])
    assert learning_rate_of(optimizer) is None  # it does not know them yet

    class Lower(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                set_learning_rate(optimizer, 0.005)

    _, history, seen = fit_with_restart(optimizer, parts, others=[Lower()])
    low = [pytest.approx(0.005), pytest.approx(0.0015)]
    assert seen == [[0.01, 0.003], low, [0.01, 0.003], [0.01, 0.003]]
    assert history["learning_rate"] == [0.01, 0.005, 0.01, 0.01]


def test_several_optimizers_of_which_one_has_a_schedule_keep_their_rates():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer, parts = several(0.01, schedule)
    restart, history, seen = fit_with_restart(optimizer, parts[:1])
    assert len(restart.events) == 1
    assert seen == [[0.01]] * 4
    assert "learning_rate" not in history
    with pytest.raises(ValueError, match="learning_rate_drops must be 0, or"):
        fit_with_restart(several(0.01, schedule)[0], drops=1)


def test_rates_of_zero_stay():
    optimizer, parts = several(0.0, 0.0)
    optimizer.build([keras.Variable(1.0, name="conv"), keras.Variable(1.0, name="other")])
    set_learning_rate(optimizer, learning_rate_of(optimizer))
    assert [float(part.learning_rate) for part in parts] == [0, 0]

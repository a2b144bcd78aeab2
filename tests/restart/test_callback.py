"""The life of `PartialRestart` in a real, small fit.

Where a test needs to know when a plateau comes, a callback before it writes the monitored metric.
"""

import copy
import csv
import inspect
import json
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.arguments import PARTS

TRACES = []


@keras.saving.register_keras_serializable("tests")
class CountsTraces(layers.Layer):
    def call(self, x):
        TRACES.append(self.name)
        return x


class Scripted(keras.callbacks.Callback):
    """Writes chosen values of an epoch's metric."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values, self.metric = list(values), name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.metric] = self.values[epoch]


class Weights(keras.callbacks.Callback):
    """Keeps for each epoch the weights that the next begins with, restarted where they are."""

    def __init__(self):
        super().__init__()
        self.of_epoch = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            self.of_epoch.append({w.path: w.numpy() for w in self.model.weights})

    def on_train_end(self, logs=None):
        self.of_epoch.append({w.path: w.numpy() for w in self.model.weights})


def net(optimizer=None, **compiled):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            CountsTraces(name="counts"),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 2, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ],
        name="net",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.01), loss=loss, **compiled)
    return model


def by_index(feature_map, gradient, channel_axis):
    """A criterion by which the first filters of a layer are always the lowest."""
    return 0 * tf.reduce_sum(feature_map * gradient, axis=(1, 2)) + tf.range(
        1.0, feature_map.shape[channel_axis] + 1
    )


def restart_of(when=None, select=None, **options):
    return kr.PartialRestart(select=select or kr.Fraction(0.25), when=when or plateau(), **options)


def plateau(monitor="val_loss", **options):
    return kr.OnPlateau(monitor, patience=1, **options)


def fit(images, restart, values=None, *, model=None, before=(), after=(), **options):
    """Fits with a scripted `val_loss`, one epoch for each of its values."""
    model = model or net()
    script = [] if values is None else [Scripted(values)]
    epochs = {} if values is None else {"epochs": len(values)}
    model.fit(
        *images,
        batch_size=10,
        callbacks=[*before, *script, restart, *after],
        **({"verbose": 0} | epochs | options),
    )
    return model


FLAT = [1.0] * 12


def test_event_describes_what_was_done(images):
    weights = Weights()
    values = [2.0, 2.5, 3.5, 3.0, 2.0, 1.0, 0.5, 0.1]
    restart = restart_of(max_restarts=1)
    fit(images, restart, values, after=[weights])
    (event,) = restart.events
    assert (event.restart, event.epoch, event.initializer) == (1, 1, "uniform")
    assert event.reason == "val_loss has not improved for 1 epoch"
    assert event.learning_rate == 0.01
    assert event.metrics_before["val_loss"] == 2.5
    assert event.metrics_after["val_loss"] == 3.5
    assert event.metrics_before.keys() >= {"loss", "val_loss"}
    assert (event.metric_drop, event.epochs_to_recover) == (1.0, 3)
    assert {name: len(of.filters) for name, of in event.layers.items()} == {
        "first": 2,
        "second": 1,
    }
    for name, of in event.layers.items():
        assert of.filters == sorted(np.argsort(of.scores, kind="stable")[: len(of.filters)])
        assert of.reselected is None
        new = weights.of_epoch[1][f"net/{name}/kernel"][..., of.filters]
        assert 0.03 < np.abs(new).max() <= 0.05
        others = np.delete(weights.of_epoch[1][f"net/{name}/kernel"], of.filters, axis=-1)
        assert np.abs(others).max() > 0.05


def test_rounds_lie_between_the_restarts(images):
    restart = restart_of(max_restarts=2, stop_on_repeat=False)
    fit(images, restart, [3, 2, 2, 5, 4, 4, 1, 1, 1])
    assert [(r.round, r.first_epoch, r.epochs) for r in restart.rounds] == [
        (0, 0, 3),
        (1, 3, 3),
        (2, 6, 2),
    ]
    assert [r.best_epoch for r in restart.rounds] == [1, 4, 6]
    assert [e.epoch for e in restart.events] == [2, 5]
    assert all(r.ended == "val_loss has not improved for 1 epoch" for r in restart.rounds)
    assert restart.state.finished == "max_restarts=2 reached"
    again = restart.events[1].layers["first"]
    before = restart.events[0].layers["first"]
    assert again.reselected == len(set(again.filters) & set(before.filters))


def test_state_is_json(images):
    restart = restart_of(max_restarts=1)
    fit(images, restart, FLAT)
    state = json.loads(json.dumps(restart.state.to_dict()))
    assert state["events"][0]["layers"]["first"]["filters"] == (
        restart.events[0].layers["first"].filters
    )
    assert state["rounds"][0]["ended"]
    assert state == restart.state.to_dict()


def test_training_ends_with_the_plateau_after_the_last_restart(images):
    restart = restart_of(max_restarts=2, stop_on_repeat=False)
    model = fit(images, restart, FLAT)
    assert len(restart.events) == 2
    assert len(model.history.epoch) == 2 + 2 + 2
    assert "train_step" not in vars(model)


def test_training_continues_where_it_does_not_stop_when_done(images):
    restart = restart_of(plateau(stop_when_done=False), max_restarts=1)
    model = fit(images, restart, FLAT)
    assert len(model.history.epoch) == len(FLAT)
    assert len(restart.events) == 1
    assert [r.epochs for r in restart.rounds] == [2, 10]
    assert restart.rounds[-1].ended == "training ended"


def test_no_restart_at_all_with_max_restarts_of_zero(images):
    restart = restart_of(max_restarts=0)
    model = fit(images, restart, FLAT)
    assert restart.events == []
    assert len(model.history.epoch) == 2


@pytest.mark.parametrize(
    ("target", "mode", "values", "epochs"),
    [(1.5, "min", [3, 2, 1.5, 1, 0.5], 3), (0.9, "max", [0.1, 0.5, 0.9, 0.95, 1], 3)],
)
def test_training_ends_at_the_target(target, mode, values, epochs, images):
    restart = restart_of(plateau(target=target, mode=mode))
    model = fit(images, restart, values)
    assert len(model.history.epoch) == epochs
    assert restart.state.finished == "target reached"
    assert restart.rounds[-1].ended == f"val_loss has reached {target:g}"


def still(**options):
    """With a learning rate of zero: the filters that score lowest are the same at each restart."""
    return restart_of(max_restarts=4, **options)


def test_restarts_end_when_the_same_filters_are_selected_again(images):
    restart = still(initializer="zeros")
    model = fit(images, restart, FLAT, model=net(keras.optimizers.SGD(0.0)))
    assert len(restart.events) == 1
    assert restart.state.finished == "the same filters were selected as at the last restart"
    assert len(model.history.epoch) == 4


def test_restarts_continue_with_the_same_filters_if_asked(images):
    restart = still(initializer="zeros", stop_on_repeat=False)
    fit(images, restart, FLAT, model=net(keras.optimizers.SGD(0.0)))
    assert len(restart.events) == 4
    assert [e.layers["first"].reselected for e in restart.events] == [None, 2, 2, 2]


def test_control_without_reset_trains_as_long_and_changes_no_weight(images):
    weights = Weights()
    restart = still(control="none")
    fit(images, restart, FLAT, model=net(keras.optimizers.SGD(0.0)), after=[weights])
    assert len(restart.events) == 4
    assert {e.initializer for e in restart.events} == {"none"}
    first, last = weights.of_epoch[0], weights.of_epoch[-1]
    assert all(np.array_equal(first[path], last[path]) for path in first)


def test_restart_that_leaves_too_few_epochs_is_left_out(images):
    restart = restart_of(kr.EveryEpochs(3, "loss"))
    model = fit(images, restart, epochs=8)
    assert [e.epoch for e in restart.events] == [2]  # after the sixth epoch two would be left
    assert len(model.history.epoch) == 8
    assert restart.state.finished == "2 epochs left, too few for a filter to recover in"
    exact = restart_of(kr.EveryEpochs(3, "loss"), stop_on_repeat=False)
    fit(images, exact, epochs=9)
    assert [e.epoch for e in exact.events] == [2, 5]


def test_no_filter_is_restarted_at_the_last_epoch(images):
    when = kr.EveryEpochs(2, "loss", recovery_epochs=0)
    restart = restart_of(when, stop_on_repeat=False)
    fit(images, restart, epochs=4)
    assert [e.epoch for e in restart.events] == [1]


def test_learning_rate_is_lowered_and_reset(images):
    rates = []
    see = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    model = net(keras.optimizers.Adam(0.02))
    when = plateau(learning_rate_drops=2, learning_rate_factor=0.5)
    restart = restart_of(when, max_restarts=1, stop_on_repeat=False)
    fit(images, restart, FLAT, model=model, after=[see])
    of_round = [0.02, 0.02, 0.01, 0.005]
    np.testing.assert_allclose(rates, of_round * 2, rtol=1e-6)
    np.testing.assert_allclose(model.history.history["learning_rate"], of_round * 2, rtol=1e-6)


def test_learning_rate_is_reset_under_a_loss_scale(images):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.04))
    model = net(optimizer)
    restart = restart_of(plateau(learning_rate_drops=1), max_restarts=1)
    fit(images, restart, FLAT, model=model)
    np.testing.assert_allclose(
        model.history.history["learning_rate"], [0.04, 0.04, 0.004] * 2, rtol=1e-5
    )


def test_a_model_compiled_again_during_fit_has_its_new_learning_rate_reset(images):
    class Compiles(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.compile(keras.optimizers.Adam(0.5), loss=self.model.loss)

    restart = restart_of(kr.EveryEpochs(3, "loss", learning_rate_drops=1), max_restarts=1)
    model = fit(images, restart, epochs=6, after=[Compiles()])
    np.testing.assert_allclose(
        model.history.history["learning_rate"], [0.01, 0.5, 0.05, 0.5, 0.5, 0.05], rtol=1e-6
    )
    assert len(restart.events) == 1
    assert restart.events[0].learning_rate == 0.5


@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
@pytest.mark.parametrize("unfreezes", [True, False])
def test_layers_that_train_since_the_model_was_compiled_again_are_those_watched(
    criterion, unfreezes, images, capsys
):
    class Compiles(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.get_layer("first").trainable = unfreezes
                self.model.compile(keras.optimizers.SGD(0.5), loss=self.model.loss)
                self.model.make_train_function()  # Keras needs it where no scorer is attached

    model = net()
    model.get_layer("first").trainable = not unfreezes
    model.compile("sgd", loss=model.loss)
    every = kr.EveryEpochs(2, "loss", recovery_epochs=1)
    restart = restart_of(every, criterion=criterion, max_restarts=2, stop_on_repeat=False)
    fit(images, restart, model=model, after=[Compiles()], epochs=5, verbose=2)
    both = ["first", "second"]
    layers_of = [list(event.layers) for event in restart.events]
    # The first restart, selected before and made after, is of what trained before and still does.
    assert layers_of == [["second"], both if unfreezes else ["second"]]
    assert list(restart.scores) == (both if unfreezes else ["second"])
    assert [event.learning_rate for event in restart.events] == [0.5, 0.5]
    lines = capsys.readouterr().out.splitlines()
    counts = [" ".join(line.split()[:4]) for line in lines if line.startswith("Watching")]
    assert counts == (["Watching 4 of 12", "Watching 12 of 12"][:: 1 if unfreezes else -1])
    assert any("'first' is not restarted: it is not trainable" in line for line in lines) == (
        not unfreezes
    )
    assert not {"make_train_function", "train_step"} & set(vars(model))


@pytest.mark.parametrize("unfreezes", [True, False])
def test_layers_that_another_callback_unfreezes_as_training_begins_are_watched(unfreezes, images):
    class Unfreezes(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.get_layer("first").trainable = unfreezes

    model = net()
    model.get_layer("first").trainable = not unfreezes
    model.compile("adam", loss=model.loss)
    restart = restart_of(kr.EveryEpochs(1, "loss"), max_restarts=1)
    fit(images, restart, model=model, after=[Unfreezes()], epochs=2)
    (event,) = restart.events
    assert list(event.layers) == (["first", "second"] if unfreezes else ["second"])


def test_layers_unfrozen_without_compiling_again_are_refused_in_one_line(images):
    model = net()
    model.get_layer("first").trainable = False
    model.compile("adam", loss=model.loss)
    fit(images, restart_of(kr.EveryEpochs(1, "loss")), model=model, epochs=1)
    model.get_layer("first").trainable = True
    with pytest.raises(ValueError, match=r"must know .* without net/first/kernel, net/first/bias"):
        fit(images, restart_of(kr.EveryEpochs(1, "loss")), model=model, epochs=1)


def two_heads(*trained):
    """A network whose heads `a` and `b` read a convolution each; some of them have a loss."""
    image = keras.Input((8, 8, 2))
    heads = {
        name: layers.Dense(3, name=name)(
            layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name=f"conv_{name}")(image))
        )
        for name in "ab"
    }
    model = keras.Model(image, heads)
    model.compile("sgd", loss=dict.fromkeys(trained, "sparse_categorical_crossentropy"))
    return model


def test_a_layer_that_no_loss_depends_on_is_named_and_left_out(images, capsys):
    x, y = images
    restart = restart_of(kr.EveryEpochs(1, "loss"), max_restarts=1)
    two_heads("a").fit(x, {"a": y}, epochs=2, verbose=2, callbacks=[restart])
    assert list(restart.scores) == list(restart.events[0].layers) == ["conv_a"]
    out = capsys.readouterr().out
    assert out.count("Layer 'conv_b' is not scored: no gradient of the loss reaches it.") == 1


def test_schedule_is_left_alone(images):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    model = net(keras.optimizers.SGD(schedule))
    restart = restart_of(max_restarts=1)
    fit(images, restart, FLAT, model=model)
    assert restart.events[0].learning_rate is None
    assert "learning_rate" not in model.history.history
    with pytest.raises(ValueError, match="schedule"):
        fit(images, restart_of(plateau(learning_rate_drops=1)), FLAT, model=model)
    assert "train_step" not in vars(model)


def test_metric_that_is_not_there_is_named_with_those_that_are(images):
    expected = r"one of \['loss'\]: a name with 'val_' needs .* Received: 'val_loss'"
    with pytest.raises(ValueError, match=expected):
        fit(images, restart_of())


@pytest.mark.parametrize(
    "arguments",
    [
        {"fraction": 0},
        {"patience": 0},
        {"max_restarts": -1},
        {"seed": None},
        {"initializer": "unifrom"},
        {"criterion": "taylr"},
        {"criterion": 3},
        {"control": "zeros"},
        {"layers": []},
        {"observers": [print]},
    ],
    ids=str,
)
def test_argument_out_of_range_is_refused_at_once_in_one_line(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}.*: ") as error:
        kr.PartialRestart(**arguments)
    assert "\n" not in str(error.value)


# A value of each argument of a part that `PartialRestart` does not have itself.
OF_PARTS = {
    **{"cap": 0.5, "normalize": "l2", "min_survivors": 2},
    **{"mode": "min", "min_delta": 0.001, "target": 0.1, "recovery_epochs": 3, "epochs": 4},
    **{"learning_rate_drops": 1, "learning_rate_factor": 0.5, "stop_when_done": False},
    **{"steps": 5, "replacement_rate": 1e-4, "maturity": 3, "decay": 0.9},
    **{"outgoing": "zero", "second_moment": "survivors", "norms": False, "compensate_bias": True},
    **{"grace_restarts": 2, "drop_epochs": 3, "every": 4, "window": 1},
}


def own_arguments(part):
    return set(inspect.signature(part).parameters)


def test_each_argument_of_a_part_is_an_own_one_or_explained():
    of_parts = set().union(*map(own_arguments, PARTS))
    assert of_parts - own_arguments(kr.PartialRestart) == set(OF_PARTS)


@pytest.mark.parametrize("name", OF_PARTS)
def test_a_misplaced_argument_is_refused_with_the_parts_that_have_it(name):
    with pytest.raises(TypeError, match=f"^{name} is an argument of [A-Z].*: ") as error:
        kr.PartialRestart(**{name: OF_PARTS[name]})
    whose, example = str(error.value).split(": ", 1)
    public = {n: getattr(kr, n) for n in kr.__all__}
    named = {public[part] for part in re.findall(r"[A-Z]\w+", whose)}
    assert named == {part for part in PARTS if name in own_arguments(part)}
    kr.PartialRestart(**eval(f"dict({example})", public))  # what it advises is accepted
    assert f"{name}={OF_PARTS[name]!r}" in example


def test_the_advice_keeps_the_class_that_is_given():
    with pytest.raises(TypeError, match=r"when=EveryEpochs\(epochs=7, target=0.1\)$"):
        kr.PartialRestart(when=kr.EveryEpochs(7), target=0.1)
    with pytest.raises(TypeError, match=r"when=EverySteps\(steps=1000, target=0.1\)$"):
        kr.PartialRestart.preset("redo", target=0.1)
    with pytest.raises(TypeError, match=r"^verbose is an argument of fit: model.fit\(..., verb"):
        kr.PartialRestart(verbose=0)


@pytest.mark.parametrize(
    ("short", "part"),
    [
        ({"fraction": 0.1}, {"select": kr.Fraction(0.1)}),
        ({"initializer": "uniform"}, {"reset": kr.Reset("uniform")}),
        ({"monitor": "val_loss"}, {"when": kr.OnPlateau("val_loss")}),
        ({"patience": 5}, {"when": kr.EveryEpochs(5)}),
    ],
    ids=str,
)
def test_a_short_form_beside_its_part_is_refused_in_one_line(short, part):
    (name,), (replaced_by,) = short, part
    with pytest.raises(ValueError, match=f"{name} is replaced by {replaced_by}") as error:
        kr.PartialRestart(**short, **part)
    assert "\n" not in str(error.value)
    kr.PartialRestart(**short)
    kr.PartialRestart(**part)


@pytest.mark.parametrize("control", ["none", "slots"])
def test_a_control_is_no_initializer(control):
    with pytest.raises(ValueError, match=f"PartialRestart\\(control='{control}'\\)"):
        kr.PartialRestart(control)


def test_it_has_14_arguments_and_shows_its_parts():
    assert len(inspect.signature(kr.PartialRestart).parameters) == 14
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected .* 'fractoin'"):
        kr.PartialRestart(fractoin=0.1)
    shown = repr(restart_of(kr.EveryEpochs(4), control="none"))
    assert "select=Fraction(fraction=0.25" in shown
    assert "when=EveryEpochs(epochs=4" in shown
    assert "reset=Reset(initializer='uniform'" in shown
    assert "control='none'" in shown
    assert repr(eval(shown, {name: getattr(kr, name) for name in kr.__all__})) == shown


def test_a_copy_keeps_the_records_and_can_be_used_again(images):
    restart = restart_of(max_restarts=1)
    model = fit(images, restart, FLAT)
    for other in (copy.deepcopy(restart), pickle.loads(pickle.dumps(restart))):
        assert other.state == restart.state
        assert repr(other) == repr(restart)
        fit(images, other, FLAT)
        assert len(other.events) == 1
    assert restart.model is model


def test_fraction_that_selects_nothing_is_refused_before_the_first_step(images):
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match="selects no filter"):
        fit(images, restart_of(select=kr.Fraction(0.01)), FLAT, model=model)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_nothing_is_retraced_at_a_restart(images):
    x, y = images
    model, restart = net(), restart_of(max_restarts=3, stop_on_repeat=False)
    traces = []
    see = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: traces.append(len(TRACES))
    )
    fit((x, y), restart, FLAT, model=model, after=[see], validation_data=(x, y))
    assert len(restart.events) == 3
    assert traces[0] > 0
    assert set(traces) == {traces[0]}


def test_same_seed_gives_the_same_run(images):
    def run(seed):
        keras.utils.set_random_seed(2)
        weights, restart = Weights(), restart_of(seed=seed, max_restarts=2, stop_on_repeat=False)
        fit(images, restart, FLAT, after=[weights], shuffle=False)
        return restart, weights.of_epoch

    (restart, first), (again, second), (_, other) = run(0), run(0), run(1)
    assert restart.state == again.state
    for ours, theirs in zip(first, second, strict=True):
        assert all(np.array_equal(ours[path], theirs[path]) for path in ours)
    filters = restart.events[0].layers["first"].filters
    new, new_of_other = (of[1]["net/first/kernel"][..., filters] for of in (first, other))
    assert (new != new_of_other).mean() > 0.9


@pytest.mark.parametrize("initializer", ["uniform", keras.initializers.HeNormal(seed=1)])
def test_each_restart_draws_other_weights(initializer, images):
    weights = Weights()
    restart = restart_of(
        initializer=initializer, criterion=by_index, max_restarts=2, stop_on_repeat=False
    )
    fit(images, restart, FLAT, after=[weights])
    assert [e.layers["first"].filters for e in restart.events] == [[0, 1], [0, 1]]
    first, second = (weights.of_epoch[e.epoch]["net/first/kernel"][..., :2] for e in restart.events)
    assert (first != second).mean() > 0.9


def test_dead_filters_are_found_and_learn_again(images):
    model, weights = net(keras.optimizers.Adam(0.01)), Weights()
    conv = model.get_layer("first")
    kernel, bias = conv.get_weights()
    dead = [1, 6]
    kernel[..., dead], bias[dead] = 0.0, -1.0
    conv.set_weights([kernel, bias])
    restart = restart_of(initializer="he_normal", max_restarts=1)
    fit(images, restart, [2, 2, 1.5, 1.2, 1.1, 1.0], model=model, after=[weights])
    (event,) = restart.events
    assert event.layers["first"].filters == dead
    assert max(np.array(event.layers["first"].scores)[dead]) == 0
    assert restart.scores["first"][dead].max() > 0
    new, later = (weights.of_epoch[i]["net/first/kernel"][..., dead] for i in (1, 5))
    assert np.abs(later - new).max() > 1e-3
    assert np.isfinite(model.evaluate(*images, verbose=0))


def test_runs_beside_the_callbacks_of_keras(images, tmp_path):
    x, y = images
    path = tmp_path / "log.csv"
    restart = restart_of(plateau("val_accuracy"), max_restarts=2, stop_on_repeat=False)
    model = fit(
        images,
        restart,
        model=net(metrics=["accuracy"]),
        before=[keras.callbacks.TensorBoard(tmp_path / "tb", update_freq=1)],
        after=[
            keras.callbacks.CSVLogger(path),
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=50),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        ],
        epochs=20,
        validation_data=(x, y),
    )
    assert len(restart.events) == 2
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(model.history.epoch)
    assert {"learning_rate", "val_accuracy"} <= rows[0].keys()
    assert all(value for row in rows for value in row.values())
    assert list((tmp_path / "tb" / "train").iterdir())
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert best.predict(x, verbose=0).shape == (20, 3)


def test_training_that_another_callback_ends_is_not_restarted(images):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    restart = restart_of(max_restarts=3)
    fit(images, restart, FLAT, before=[Stop()])
    assert restart.events == []
    assert restart.state.finished == "another callback has ended the training"
    assert restart.rounds[-1].ended == "training ended"


def test_observers_are_called_in_order(images):
    calls = []

    class Notes(kr.RestartObserver):
        def on_round_end(self, ended, restart):
            calls.append(f"round {ended.round} over")

        def on_restart_begin(self, event, restart):
            self.kernel = restart.model.get_layer("first").kernel.numpy()
            calls.append(f"restart {event.restart}")

        def on_restart_end(self, event, restart):
            now = restart.model.get_layer("first").kernel.numpy()
            changed = (now != self.kernel).any(axis=(0, 1, 2))
            assert np.flatnonzero(changed).tolist() == event.layers["first"].filters
            calls.append("done")

        def on_epoch_begin(self, epoch, restart):
            calls.append(f"begin {epoch}")

        def on_epoch_end(self, epoch, restart):
            calls.append(f"end {epoch}")

        def on_decision(self, epoch, restart):
            pending = "" if restart.state.pending is None else ": restart"
            calls.append(f"decided {epoch}{pending}")

        def on_train_end(self, restart):
            assert restart.rounds[-1].ended
            calls.append("over")

    fit(images, restart_of(max_restarts=1, observers=[Notes()]), FLAT)
    assert calls == [
        *("begin 0", "end 0", "decided 0"),
        *("begin 1", "end 1", "round 0 over", "decided 1: restart"),
        *("begin 2", "restart 1", "done", "end 2", "decided 2"),
        *("begin 3", "end 3", "round 1 over", "decided 3", "over"),
    ]


def test_second_fit_with_the_same_callback_starts_again(images):
    restart = restart_of(max_restarts=1)
    model = fit(images, restart, FLAT)
    fit(images, restart, FLAT, model=model)
    assert len(restart.events) == 1
    assert [r.first_epoch for r in restart.rounds] == [0, 2]


def test_fit_that_begins_at_a_later_epoch(images):
    restart = restart_of(kr.EveryEpochs(2, "loss"), stop_on_repeat=False)
    fit(images, restart, initial_epoch=3, epochs=8)
    assert [r.first_epoch for r in restart.rounds] == [3, 5]
    assert [e.epoch for e in restart.events] == [4]


@pytest.mark.parametrize("verbose", [0, 2])
def test_prints_a_line_at_each_restart_where_fit_prints(verbose, images, capsys):
    fit(images, restart_of(max_restarts=1), FLAT, verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    if not verbose:
        assert lines == []
        return
    own = [line for line in lines if re.match("Epoch 2: |No more|Best", line)]
    assert len(own) == 3
    assert own[0].startswith("Epoch 2: val_loss has not improved for 1 epoch. Restarted 3 of 12")
    assert own[1] == "No more restarts: max_restarts=1 reached."
    assert own[2] == "Best val_loss by round: baseline 1 (epoch 1), restart 1 1 (epoch 3)."


def test_a_schedule_is_reported(images, capsys):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    fit(images, restart_of(), [1.0], model=net(keras.optimizers.SGD(schedule)), verbose=2)
    assert "The optimizer has a schedule" in capsys.readouterr().out


@pytest.mark.parametrize("control", ["none", "slots"])
def test_a_control_continues_where_the_same_filters_are_selected_again(images, control):
    restart = restart_of(control=control, criterion=by_index, max_restarts=3)
    fit(images, restart, FLAT)
    assert [e.layers["first"].filters for e in restart.events] == [[0, 1]] * 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["batch", "observer"])
def test_after_an_error_the_model_has_its_own_step(images, error, where):
    def fail(*args):
        raise error

    class Fails(kr.RestartObserver):
        on_train_begin = fail

    model = net()
    if where == "batch":
        model.compile(keras.optimizers.SGD(0.01), lambda y, y_pred: fail(), run_eagerly=True)
    observers = [Fails()] if where == "observer" else []
    with pytest.raises(error):
        fit(images, restart_of(observers=observers), FLAT, model=model)
    assert "train_step" not in vars(model)
    assert model.train_function is None


def test_plateau_of_a_real_loss_restarts_a_real_model(images):
    x, y = images
    restart = kr.PartialRestart(fraction=0.25, patience=2, max_restarts=2)
    model = fit(
        (x, y),
        restart,
        model=net(keras.optimizers.Adam(0.03)),
        epochs=40,
        validation_data=(x[:5], 2 - y[:5]),  # what fits the training set fits this ever less
    )
    assert 1 <= len(restart.events) <= 2
    history = model.history.history["val_loss"]
    for event in restart.events:
        in_round = history[restart.rounds[event.restart - 1].first_epoch : event.epoch + 1]
        assert min(in_round) < min(in_round[-2:])


def test_a_restart_of_no_filter_resets_the_learning_rate_and_later_ones_may_select_some(images):
    """`BelowMean` may select none, as in a network without useless filters at first."""
    epochs = []

    def useless_later(feature_map, gradient, channel_axis):
        zeros = 0 * tf.reduce_sum(feature_map * gradient, axis=(1, 2))
        others = tf.range(feature_map.shape[channel_axis]) > 0
        return zeros + 1e-3 + useful * tf.cast(others, "float32")

    useful = tf.Variable(0.0)

    class Later(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(float(self.model.optimizer.learning_rate))
            useful.assign(0.0 if epoch < 2 else 1.0)

    when = kr.EveryEpochs(2, "loss", learning_rate_drops=1)
    restart = restart_of(
        when, kr.BelowMean(0.1), criterion=useless_later, stop_on_repeat=False, max_restarts=2
    )
    fit(images, restart, epochs=8, after=[Later()])
    assert [list(event.layers) for event in restart.events] == [[], ["first", "second"]]
    assert (
        restart.events[0].summary().endswith("No filter was selected; learning rate reset to 0.01")
    )
    assert [layer.filters for layer in restart.events[1].layers.values()] == [[0], [0]]
    np.testing.assert_allclose(epochs, [0.01, 0.001] * 3, rtol=1e-6)


def test_a_loop_of_fits_of_one_epoch_says_what_it_needs(images, capsys):
    fit(images, restart_of(kr.EveryEpochs(1, "loss")), epochs=1, verbose=2)
    line = "a loop continues with initial_epoch and when=EveryEpochs(..., recovery_epochs=0)"
    assert line in capsys.readouterr().out
    when = kr.EveryEpochs(1, "loss", recovery_epochs=0)
    restart = restart_of(when, max_restarts=2, stop_on_repeat=False)
    model = net()
    for epoch in range(4):
        fit(images, restart, model=model, initial_epoch=epoch, epochs=epoch + 1)
    assert [event.epoch for event in restart.events] == [0, 1]


def own_loop(model, images, restart, train, **params):
    """Three epochs of two batches, in a loop that is not `fit`."""
    callbacks = keras.callbacks.CallbackList([restart], model=model, **params)
    callbacks.on_train_begin()
    for epoch in range(3):
        callbacks.on_epoch_begin(epoch)
        for rows in (slice(0, 10), slice(10, 20)):
            loss = train(images[0][rows], images[1][rows])
        callbacks.on_epoch_end(epoch, {"loss": float(loss)})
    callbacks.on_train_end()


def every_epoch():
    return kr.EveryEpochs(1, "loss", recovery_epochs=1)


def test_a_loop_of_ones_own_restarts_filters_or_says_what_it_needs(images, capsys):
    model, restart = net(), restart_of(every_epoch(), max_restarts=1)
    with pytest.raises(ValueError, match=r"CallbackList\(\[restart\], model=model, epochs="):
        own_loop(model, images, restart, model.train_on_batch)
    assert "make_train_function" not in vars(model)
    own_loop(model, images, restart, model.train_on_batch, epochs=3)
    assert len(restart.events) == 1
    model = net()

    def plain_step(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    capsys.readouterr()
    own_loop(model, images, restart, plain_step, epochs=3)
    assert restart.events == []
    assert "no batch was scored. A loop of your own needs" in capsys.readouterr().out


def test_an_epoch_without_batches_leaves_the_scores_as_they_were(images):
    """Keras warns and continues where the data end, and starts them again at the next epoch."""
    seen = []

    class Scores(kr.RestartObserver):
        def on_epoch_end(self, epoch, restart):
            seen.append({name: of.copy() for name, of in restart.scores.items()})

    data = tf.data.Dataset.from_tensor_slices(images).batch(10).filter(lambda *_: True)
    restart = restart_of(kr.OnPlateau("loss", 9), observers=[Scores()])
    model = net()
    steps = -(-len(images[0]) // 10)
    model.fit(data, epochs=3, steps_per_epoch=steps, verbose=0, callbacks=[restart])
    for name in ("first", "second"):
        np.testing.assert_array_equal(seen[0][name], seen[1][name])
        assert (seen[2][name] != seen[0][name]).any()


@pytest.mark.parametrize("kind", [keras.Sequential, kr.RestartModel])
def test_an_interrupt_in_validation_leaves_no_step_on_the_model(kind, images):
    class Interrupted(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    stack = net()
    model = stack if kind is keras.Sequential else kind(stack.inputs, stack.outputs)
    if model is not stack:
        model.compile("sgd", loss=stack.loss)
    callbacks = [restart_of(), Interrupted()]
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, epochs=2, verbose=0, validation_data=images, callbacks=callbacks)
    assert "train_step" not in vars(model)
    assert getattr(model, "scorer", None) is None
    examples = callbacks[0].scorer.examples
    model.compile("sgd", loss=stack.loss)
    model.fit(*images, verbose=0)
    assert callbacks[0].scorer.examples == examples > 0


@pytest.mark.parametrize("model", [None, layers.Conv2D(2, 3)])
def test_check_refuses_what_is_no_model_in_one_line(model):
    with pytest.raises(TypeError, match=r"model must be a Keras 3 model.* Received: "):
        restart_of().check(model)


def test_the_model_must_be_compiled():
    model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(2, 3)], name="net")
    with pytest.raises(ValueError, match=r"Model 'net' is not compiled: call model\.compile"):
        restart_of().check(model)

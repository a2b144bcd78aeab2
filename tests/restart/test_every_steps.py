"""Restarts between batches: in fit, in a loop of its own, resumed, and what they cost."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.every_steps import EverySteps, StepState
from kerasrestart.restart.records import RestartState
from kerasrestart.scoring.running_scorer import RunningScorer


def net(optimizer=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, activation="relu", name="dense"),
            layers.Dense(3, name="logits"),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


RESET = {"reset": kr.Reset("he_uniform", outgoing="zero", compensate_bias=True), "layers": ".*"}


def fit(model, restart, images, epochs=3, **options):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0} | options
    model.fit(*images, epochs=epochs, callbacks=[restart], **options)
    return restart


def chosen(restart):
    return [(e.step, {n: of.filters for n, of in e.layers.items()}) for e in restart.events]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("maturity", [0, 5])
def test_due_filters_are_the_sum_of_the_rate_over_mature_filters(steps, maturity):
    when = EverySteps(steps, replacement_rate=0.03, maturity=maturity)
    state = StepState()
    state.follow({"a": 7, "b": 40})
    age = {"a": [0] * 7, "b": [0] * 40}
    due = {"a": 0.0, "b": 0.0}
    rng = np.random.default_rng(0)
    not_before = 0  # the latest step that was said to be without a restart
    for step in range(1, 60):
        earliest = state.min_steps_to_restart(when)
        state.advance(when)
        for name in age:
            age[name] = [one + 1 for one in age[name]]
            due[name] += 0.03 * sum(one > maturity for one in age[name])
        is_due = step % steps == 0 and any(int(of) for of in due.values())
        not_before = max(not_before, step - 1 + earliest - 1)
        assert not is_due or step > not_before
        assert (state.interval_is_over(when) and state.is_due(when)) == is_due
        if is_due:
            assert earliest == 1
            for name, count in state.whole(when).items():
                assert count == int(due[name])
                mature = [k for k, one in enumerate(age[name]) if one > maturity]
                assert state.mature(when, name).nonzero()[0].tolist() == mature
                for k in rng.choice(mature, count, replace=False):
                    age[name][k] = 0
                    state.since[name][k] = step
                due[name] -= count
                state.due[name] -= count


def test_a_layer_of_one_filter_never_asks_for_scores():
    when = EverySteps(1, replacement_rate=0.1, maturity=0)
    state = StepState()
    state.follow({"one": 1, "more": 2})
    state.due = {"one": 40.0, "more": 0.0}
    assert state.min_steps_to_restart(when) > 1


def test_running_score_is_the_bias_corrected_mean_of_batches_since_the_restart():
    model = net()
    scorer = RunningScorer(model, "magnitude", decay=0.8)
    batches = np.random.default_rng(1).random((6, 8)).astype("float32") * 4
    for number, sums in enumerate(batches):
        if number == 3:
            scorer.forget({"conv": np.array([2])})
        scorer._accumulate(tf.constant(sums), tf.constant(4.0), tf.constant(4.0))
    # A batch that overflows changes nothing.
    scorer._accumulate(tf.zeros(8), tf.constant(4.0), tf.constant(0.0))

    def mean(of_batches):
        weights = 0.8 ** np.arange(len(of_batches))[::-1]
        return (weights[:, None] * of_batches / 4).sum(axis=0) / weights.sum()

    expected = mean(batches.astype("float64"))
    expected[2] = mean(batches[3:].astype("float64"))[2]
    np.testing.assert_allclose(scorer._mean_values(), expected, rtol=1e-5)


def test_filters_are_selected_every_so_many_batches_once_they_are_mature(images):
    when = kr.EverySteps(4)  # maturity: the same
    restart = kr.PartialRestart(select=kr.Fraction(0.25), when=when, **RESET)
    fit(net(), restart, images, epochs=5)
    steps = [step for step, _ in chosen(restart)]
    assert steps == [8, 12, 16, 20, 24]  # 25 batches; none is older than 4 after 4
    for (_, before), (_, after) in zip(chosen(restart)[:-1], chosen(restart)[1:], strict=True):
        for name in ("conv", "dense"):
            assert not set(before[name]) & set(after[name])
    event = restart.events[1]
    assert (event.restart, event.epoch, event.learning_rate) == (2, 2, None)
    assert event.layers["conv"].count == 8
    assert len(event.layers["conv"].scores) == 2
    assert "Restarted 4 of 14 filters (conv 2/8, dense 2/6) with he_uniform" in event.summary()
    assert "4-5      5  conv       4/8" in restart.summary()


@pytest.mark.parametrize("length_is_known", [True, False])
def test_batches_that_run_as_one_are_counted_and_not_divided(length_is_known, images):
    model = net()
    model.compile(model.optimizer, model.loss, steps_per_execution=3)
    restart = kr.PartialRestart(when=kr.EverySteps(4, maturity=0), **RESET)
    data = tf.data.Dataset.from_tensor_slices(images).batch(4)
    if not length_is_known:
        data = data.filter(lambda x, y: True)
    model.fit(data, epochs=3, verbose=0, callbacks=[restart])  # 5 batches: 3 and 2
    assert [step for step, _ in chosen(restart)] == [5, 8, 13]
    assert restart.state.steps.step == 15


def test_restarts_between_batches_never_trace_a_step_again_and_read_nothing(images, monkeypatch):
    model, traces, reads = net(), [], []
    loss = model.loss

    def counting(y, y_pred):
        traces.append(1)
        return loss(y, y_pred)

    model.compile(model.optimizer, counting)
    read = RunningScorer.state
    monkeypatch.setattr(RunningScorer, "state", lambda self: reads.append(1) or read(self))
    restart = kr.PartialRestart(when=kr.EverySteps(7, maturity=0), **RESET)
    at_batches = []

    class Reads(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            at_batches.append((len(restart.events), batch == 0, len(reads)))

    model.fit(*images, batch_size=1, epochs=3, verbose=0, callbacks=[restart, Reads()])
    assert len(restart.events) == 8
    assert len(traces) == 1
    for (events, _, before), (later, new_epoch, after) in itertools.pairwise(at_batches):
        if not new_epoch:  # at the end of an epoch the state is read for the records
            assert after - before == 3 * (later - events)


def test_scoring_window_scores_the_batches_before_a_restart(images):
    model = net()
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(restart.scorer.seen)

    restart = kr.PartialRestart(
        when=kr.EverySteps(8, maturity=0), criterion=kr.Scoring(window=2), **RESET
    )
    fit(model, restart, images, epochs=4)  # 20 batches of 4
    assert [step for step, _ in chosen(restart)] == [8, 16]
    assert restart.scorer.seen == 4 * 4  # batches 7, 8, 15, 16
    model.fit(*images, batch_size=4, verbose=0, shuffle=False, callbacks=[restart, Seen()])
    assert seen == [0, 0, 0, 4, 8]  # batches 21 to 25, of which 23 and 24 are scored


def test_a_later_fit_continues_with_ages_and_running_scores(images):
    def restarts():
        when = kr.EverySteps(2, replacement_rate=0.05, maturity=3)
        return kr.PartialRestart(when=when, **RESET)

    straight, parts = net(), net()
    one = fit(straight, restarts(), images, epochs=4)
    several = restarts()
    for _ in range(4):
        fit(parts, several, images, epochs=1)  # each begins with epoch 0
    assert chosen(one) == chosen(several)
    assert len(one.events) > 3
    for a, b in zip(straight.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_in_json_resumes_exactly(images):
    def restarts():
        when = kr.EverySteps(2, replacement_rate=0.05, maturity=3)
        return kr.PartialRestart(when=when, criterion="contribution", **RESET)

    model, first = net(), restarts()
    fit(model, first, images, epochs=2)
    kept = [np.array(v) for v in (*model.weights, *model.optimizer.variables)]
    written = json.dumps(first.state.to_dict())
    fit(model, first, images, epochs=4, initial_epoch=2)

    again, resumed = net(), restarts()
    again.optimizer.build(again.trainable_variables)
    for variable, value in zip((*again.weights, *again.optimizer.variables), kept, strict=True):
        variable.assign(value)
    resumed.resume(RestartState.from_dict(json.loads(written)))
    fit(again, resumed, images, epochs=4, initial_epoch=2)
    assert chosen(first) == chosen(resumed)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_killed_fit_resumes_beside_backup_and_restore(images, tmp_path):
    class KilledError(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.params["kill"] and self.model.optimizer.iterations == 13:
                raise KilledError

    def train(model, kill):
        restart = kr.PartialRestart(
            when=kr.EverySteps(2, replacement_rate=0.05, maturity=3),
            observers=[kr.RestartBackup(tmp_path / "restarts.json")],
            **RESET,
        )
        keep = keras.callbacks.BackupAndRestore(tmp_path / "model")
        own = Kill()
        own.set_params = lambda params: setattr(own, "params", {**params, "kill": kill})
        options = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": 4}
        model.fit(*images, callbacks=[restart, keep, own], **options)
        return restart

    straight = net()
    expected = train(straight, kill=False)
    with pytest.raises(KilledError):
        train(net(), kill=True)
    resumed = net()
    assert chosen(train(resumed, kill=False)) == chosen(expected)
    for a, b in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_remedy_is_applied_every_so_many_batches(images):
    model = net()
    restart = kr.PartialRestart(when=kr.EverySteps(4), reset=kr.ResetLayer("logits"))
    fit(model, restart, images, epochs=2)
    assert [(e.step, e.initializer) for e in restart.events] == [
        (4, "remedy ResetLayer(layers='logits')"),
        (8, "remedy ResetLayer(layers='logits')"),
    ]
    applied = []
    counts = kr.PartialRestart(when=kr.EverySteps(4), reset=applied.append)
    fit(model, counts, images, epochs=2)
    assert applied == [model] * len(counts.events) != []


def test_max_restarts_ends_restarts_and_not_training(images, capsys):
    restart = kr.PartialRestart(when=kr.EverySteps(2, maturity=0), max_restarts=2, **RESET)
    fit(net(), restart, images, epochs=3, verbose=2)
    assert [e.step for e in restart.events] == [2, 4]
    assert restart.state.finished == "max_restarts=2 reached"
    out = capsys.readouterr().out
    assert "A restart follows when 2 batches have passed, at most 2 times." in out
    assert "Epoch 1: 2 restarts between batches, 4 filters (conv 2, dense 2)." in out
    assert "Epoch 3/3" in out


def test_why_no_filter_was_restarted_is_said(images, capsys):
    for when, why in (
        (kr.EverySteps(5, maturity=4), "after 5, before the next batch (steps=5, maturity=4)"),
        (kr.EverySteps(2, maturity=6), "after 8, before the next batch (steps=2, maturity=6)"),
        (
            kr.EverySteps(2, replacement_rate=1e-4, maturity=0),
            "maturity=0, replacement_rate=0.0001)",
        ),
    ):
        fit(net(), kr.PartialRestart(when=when, **RESET), images, epochs=1, verbose=2)
        out = capsys.readouterr().out
        assert (
            "No filter was restarted: 5 batches passed, and the first restart comes after " in out
        )
        assert f"{why}." in out
    none = kr.PartialRestart(when=kr.EverySteps(1, maturity=0), select=lambda scores: {})
    fit(net(), none, images, epochs=1, verbose=2)
    assert "No filter was restarted: after 5 batches none was selected." in capsys.readouterr().out


def test_diverged_training_is_restarted_no_more(images, capsys):
    model = net(keras.optimizers.SGD(1e30))
    restart = kr.PartialRestart(when=kr.EverySteps(2, maturity=0), **RESET)
    fit(model, restart, images, verbose=2)
    assert restart.state.finished == "training has diverged, the scores are not finite"
    # And that is all that is said.
    out = capsys.readouterr().out
    assert "No more restarts: training has diverged" in out
    assert "No filter was restarted" not in out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kr.EverySteps(0), "steps must be a whole number, 1 or more. Received: 0"),
        (lambda: kr.EverySteps(5, decay=1), "decay must be a number 0 or more and below 1"),
        (lambda: kr.EverySteps(5, replacement_rate=0), "replacement_rate must be a number above 0"),
        (lambda: kr.EverySteps(5, maturity=-1), "maturity must be a whole number, 0 or more"),
        (
            lambda: kr.PartialRestart(
                when=kr.EverySteps(5, replacement_rate=0.1), select=kr.Fraction(0.2)
            ),
            "select must be left out. Received: select=Fraction",
        ),
        (
            lambda: kr.PartialRestart(
                when=kr.EverySteps(5), reset=kr.Reset(outgoing="zero", drop_epochs=1)
            ),
            "as filters are dropped for whole epochs. Received: when=",
        ),
        (lambda: kr.Reset(drop_epochs=1), "outgoing must be 'zero' beside drop_epochs"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)

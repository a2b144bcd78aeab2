"""What the callback says at the start and at the end of `fit`, and `fit` in a loop."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.restart import messages
from kerasrestart.restart.plan import SAME_SELECTED, RestartPlan
from kerasrestart.restart.when import Action


@pytest.fixture
def network(images):
    x, y = images

    def build(rate=0.05):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [layers.Input((8, 8, 2)), layers.Conv2D(8, 3, activation="relu", name="conv")]
        )
        model.add(layers.Flatten())
        model.add(layers.Dense(3))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
        return model

    def fit(model, restart, **options):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=2, callbacks=[restart], **options)

    return build, fit


def test_the_first_lines_tell_what_is_watched_and_when_a_restart_follows(network, capsys):
    build, fit = network
    fit(build(), kr.PartialRestart(monitor="loss", patience=2), epochs=2)
    out = capsys.readouterr().out
    assert out.index("Watching 8 of 8 filters in 1 layer") < out.index("Epoch 1/2")
    assert "when loss has not improved for 2 epochs, at most 3 times." in out


def test_messages_are_wrapped_in_a_terminal_only(monkeypatch):
    message = "Epoch 2: " + "the round is over " * 9
    assert messages.fit_to_screen(message) == message
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    lines = messages.fit_to_screen(message).splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(lines) == message.strip()


def test_a_control_says_that_it_restarts_no_filter(network, capsys):
    build, fit = network
    fit(build(), kr.PartialRestart(monitor="loss", control="none"), epochs=1)
    assert "The learning rate is reset, and no filter restarted, when" in capsys.readouterr().out


def test_a_training_without_a_restart_tells_why(network, capsys):
    build, fit = network
    fit(build(), kr.PartialRestart(monitor="loss", patience=1), epochs=2)
    assert "No filter was restarted: loss still improved" in capsys.readouterr().out


def test_an_early_end_names_the_argument_that_changes_it(network, capsys):
    build, fit = network
    restart = kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss"), max_restarts=1)
    fit(build(), restart, epochs=5)
    out = capsys.readouterr().out
    assert "Training ends 3 epochs early: max_restarts=1 reached" in out
    assert "stop_when_done=False" in out


@dataclasses.dataclass(frozen=True)
class AtOnce(kr.When):
    """A rule whose attributes are not arguments."""

    def step(self, progress, value):
        return progress, Action.END_ROUND


@pytest.mark.parametrize(
    ("why", "when", "hints", "expected"),
    [
        ("max_restarts=1 reached", AtOnce(), True, "; stop_when_done = False in class AtOnce"),
        ("max_restarts=1 reached", AtOnce(), False, "early: max_restarts=1 reached."),
        (
            SAME_SELECTED,
            AtOnce(),
            True,
            "; stop_on_repeat=False restarts",
        ),
        ("target reached", kr.OnPlateau("loss", target=0.5), True, "early: target=0.5 reached."),
    ],
)
def test_an_early_end_names_only_what_can_be_set(why, when, hints, expected):
    line = messages.early_end_line(RestartPlan(when=when), why, 3, hints)
    assert line.startswith("Training ends 3 epochs early: ")
    assert expected in line


def test_a_loop_of_fits_that_are_too_short_says_so_once(network, capsys):
    build, fit = network
    model, restart = build(), kr.PartialRestart(monitor="loss", patience=3)
    for _ in range(3):
        fit(model, restart, epochs=1)
    out = capsys.readouterr().out
    assert out.count("No filter was restarted: fit had 1 epoch, and OnPlateau needs 6") == 1
    assert out.count("No filter was restarted") == 1


def test_a_loop_that_does_not_continue_the_last_fit_says_so_once(network, capsys):
    build, fit = network
    when = kr.EveryEpochs(1, monitor="loss", recovery_epochs=0)
    model, restart = build(), kr.PartialRestart(when=when)
    for _ in range(3):
        fit(model, restart, epochs=1)
    out = capsys.readouterr().out
    assert out.count("This fit begins at epoch 0, so that restarts begin again, too.") == 1
    assert "initial_epoch=1." in out


def test_a_new_callback_says_that_it_does_not_know_of_earlier_restarts(network, capsys):
    build, fit = network
    restart = kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss"))
    fit(build(), restart, epochs=2, initial_epoch=1)
    assert "begins at epoch 1 without the state of earlier restarts" in capsys.readouterr().out
    resumed = kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss"))
    resumed.resume(restart.state)
    fit(build(), resumed, epochs=3, initial_epoch=2)
    assert "earlier restarts" not in capsys.readouterr().out


def test_what_stopped_the_last_training_does_not_stop_restarts_of_a_loop(network, images, capsys):
    build, _ = network
    model, restart = build(), kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss"))
    model.stop_training = True
    callbacks = keras.callbacks.CallbackList([restart], model=model, epochs=2)
    for expected in (1, 0):
        callbacks.on_train_begin()
        for epoch in range(2):
            callbacks.on_epoch_begin(epoch)
            logs = model.train_on_batch(*images, return_dict=True)
            callbacks.on_epoch_end(epoch, dict(logs))
        callbacks.on_train_end()
        assert len(restart.events) == expected
        model.stop_training = True  # left so by this loop, between two trainings
    assert "model.stop_training is True as training begins" in capsys.readouterr().out


def test_a_loop_of_fits_restarts_as_one_fit_does(network):
    build, fit = network
    options = {"max_restarts": 2, "stop_on_repeat": False}
    once = kr.PartialRestart(when=kr.EveryEpochs(2, monitor="loss"), **options)
    whole = build()
    fit(whole, once, epochs=6)
    when = kr.EveryEpochs(2, monitor="loss", recovery_epochs=0)
    looped = kr.PartialRestart(when=when, **options)
    model = build()
    for epoch in range(6):
        fit(model, looped, epochs=epoch + 1, initial_epoch=epoch)
    assert [event.epoch for event in looped.events] == [1, 3]
    assert [e.layers["conv"].filters for e in looped.events] == [
        e.layers["conv"].filters for e in once.events
    ]
    for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_later_fit_restarts_where_the_last_had_too_few_epochs_left(network):
    build, fit = network
    restart = kr.PartialRestart(when=kr.EveryEpochs(2, monitor="loss"), max_restarts=1)
    model = build()
    fit(model, restart, epochs=2)
    assert not restart.events
    fit(model, restart, initial_epoch=2, epochs=6)
    assert [event.epoch for event in restart.events] == [2]


def test_a_later_fit_keeps_the_rate_that_it_was_compiled_with(network):
    build, fit = network
    when = kr.EveryEpochs(1, monitor="loss", recovery_epochs=0)
    restart = kr.PartialRestart(when=when, max_restarts=2)
    model = build(rate=0.05)
    fit(model, restart, epochs=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.001), loss)
    fit(model, restart, initial_epoch=1, epochs=2)
    assert [event.learning_rate for event in restart.events] == [0.001]


def test_a_fit_from_the_first_epoch_begins_with_a_new_baseline(network):
    build, fit = network
    restart = kr.PartialRestart(when=kr.EveryEpochs(1, monitor="loss", recovery_epochs=0))
    model = build()
    fit(model, restart, epochs=2)
    fit(model, restart, epochs=1)
    assert len(restart.rounds) == 1
    assert not restart.events

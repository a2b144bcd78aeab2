"""Scores are taken where a restart can use them, and the restarts are the same."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr


class Scripted(keras.callbacks.Callback):
    """Puts chosen values of `val_loss` into the logs."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


class ScoredEpochs(kr.RestartObserver):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, epoch, restart):
        if restart.scorer.seen:
            assert restart.state.scored_epoch == epoch
            self.epochs.append(epoch)


def fit(images, values, **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss=loss)
    seen = ScoredEpochs()
    restart = kr.PartialRestart(
        fraction=0.25, stop_on_repeat=False, verbose=0, observers=[seen], **options
    )
    callbacks = [Scripted(values), restart]
    model.fit(*images, batch_size=10, epochs=len(values), verbose=0, callbacks=callbacks)
    return restart, seen.epochs, model.get_weights()


FLAT = [1.0] * 10


@pytest.mark.parametrize(
    ("values", "options", "scored"),
    [
        # Rounds of 4 epochs; no third restart comes.
        (FLAT, {"round_epochs": 4, "score_window": 1, "max_restarts": 2}, [3, 7]),
        (FLAT, {"round_epochs": 4, "score_window": 2, "max_restarts": 1}, [2, 3]),
        # The first epoch is the best, and a plateau of 3 follows.
        (FLAT, {"patience": 3, "score_window": 1, "max_restarts": 1}, [3]),
        # One that improves in its last epoch, and goes on.
        (
            [4, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2],
            {"patience": 3, "score_window": 1, "max_restarts": 1},
            [4, 7],
        ),
        # The learning rate falls first, at epoch 2, and a second plateau follows.
        (
            FLAT,
            {"patience": 2, "learning_rate_drops": 1, "score_window": 1, "max_restarts": 1},
            [4],
        ),
        (FLAT, {"round_epochs": 4, "max_restarts": 2}, list(range(10))),
    ],
    ids=str,
)
def test_scores_are_taken_where_a_restart_can_come(values, options, scored, images):
    restart, epochs, _ = fit(images, values, **options)
    assert epochs == scored
    assert restart.events
    assert set(epochs) >= {event.epoch for event in restart.events}


@pytest.mark.parametrize("options", [{"round_epochs": 3}, {"patience": 2}], ids=str)
def test_a_window_changes_no_restart_and_no_weight(options, images):
    runs = [fit(images, FLAT, score_window=n, **options) for n in (None, 1)]
    (all_epochs, _, weights), (window, epochs, same_weights) = runs
    assert len(epochs) < len(FLAT)
    assert len(window.events) >= 2
    for ours, theirs in zip(window.events, all_epochs.events, strict=True):
        assert ours.layers == theirs.layers
    for ours, theirs in zip(same_weights, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("option", [{"score_every": 0}, {"score_window": 0}], ids=str)
def test_less_than_one_is_refused_at_once(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be 1 or more. Received: 0"):
        kr.PartialRestart(**option)

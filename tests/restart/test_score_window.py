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


def fit(images, values, when, window, max_restarts=3):
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
        fraction=0.25,
        when=when,
        criterion=kr.Scoring(window=window),
        max_restarts=max_restarts,
        stop_on_repeat=False,
        observers=[seen],
    )
    callbacks = [Scripted(values), restart]
    model.fit(*images, batch_size=10, epochs=len(values), verbose=0, callbacks=callbacks)
    return restart, seen.epochs, model.get_weights()


FLAT = [1.0] * 10


@pytest.mark.parametrize(
    ("values", "when", "window", "max_restarts", "scored"),
    [
        # Rounds of 4 epochs; there is no third restart.
        (FLAT, kr.EveryEpochs(4), 1, 2, [3, 7]),
        (FLAT, kr.EveryEpochs(4), 2, 1, [2, 3]),
        # The first epoch is the best, and a plateau of 3 follows.
        (FLAT, kr.OnPlateau(patience=3), 1, 1, [3]),
        # A plateau that improves in its last epoch continues.
        ([4, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2], kr.OnPlateau(patience=3), 1, 1, [4, 7]),
        # The learning rate is lowered first, after epoch 2, and a second plateau follows.
        (FLAT, kr.OnPlateau(patience=2, learning_rate_drops=1), 1, 1, [4]),
        (FLAT, kr.EveryEpochs(4), None, 2, list(range(10))),
    ],
    ids=str,
)
def test_scores_are_taken_where_a_restart_can_come(
    values, when, window, max_restarts, scored, images
):
    restart, epochs, _ = fit(images, values, when, window, max_restarts)
    assert epochs == scored
    assert restart.events
    assert set(epochs) >= {event.epoch for event in restart.events}


@pytest.mark.parametrize("when", [kr.EveryEpochs(3), kr.OnPlateau(patience=2)], ids=str)
@pytest.mark.usefixtures("grappler")
def test_a_window_changes_no_restart_and_no_weight(when, images):
    runs = [fit(images, FLAT, when, window) for window in (None, 1)]
    (all_epochs, _, weights), (windowed, epochs, same_weights) = runs
    assert len(epochs) < len(FLAT)
    assert len(windowed.events) >= 2
    for ours, theirs in zip(windowed.events, all_epochs.events, strict=True):
        assert ours.layers == theirs.layers
    for ours, theirs in zip(same_weights, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

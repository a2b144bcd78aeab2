"""The rules for the end of a round, epoch by epoch."""

import dataclasses

import numpy as np
import pytest

from kerasrestart.restart.when import Action, EveryEpochs, OnPlateau, RoundProgress, When

NAN = float("nan")
LETTERS = {Action.TRAIN: ".", Action.LOWER_LEARNING_RATE: "v", Action.END_ROUND: "X"}


def actions(when, values):
    """One letter for each epoch; a round that has ended is followed by a new one."""
    progress, letters = RoundProgress(), ""
    for value in values:
        progress, action = when.step(progress, value)
        letters += LETTERS[action]
        if action is Action.END_ROUND:
            progress = RoundProgress()
    return letters


@pytest.mark.parametrize(
    ("when", "values", "expected"),
    [
        (OnPlateau("loss", 2), [5, 4, 3, 2, 1], "....."),
        (OnPlateau("loss", 2), [5, 5, 5, 5, 5, 5], "..X..X"),
        (OnPlateau("loss", 2), [5, 6, 4, 6, 6], "....X"),
        (OnPlateau("loss", 1), [5, 4, 5, 9, 8], "..X.."),
        (OnPlateau("accuracy", 2), [1, 2, 3, 3, 2], "....X"),
        (OnPlateau("accuracy", 2), [5, 4, 3], "..X"),
        # Against the best so far, not against the epoch before.
        (OnPlateau("loss", 3), [1, 9, 8, 7], "...X"),
        # A gain of exactly min_delta is none; slow gains add up against the same best.
        (OnPlateau("loss", 2, min_delta=1), [5, 4, 3.5, 3.4], "...."),
        (OnPlateau("loss", 2, min_delta=1), [5, 4, 4], "..X"),
        (OnPlateau("accuracy", 2, min_delta=0.5), [1, 1.25, 1.5, 1.5], "..X."),
        (OnPlateau("loss", 1, learning_rate_drops=2), [5, 5, 5, 5, 5], ".vvX."),
        # An improvement at the lower rate resets the wait, not the number of drops.
        (OnPlateau("loss", 2, learning_rate_drops=1), [5, 5, 5, 4, 4, 4], "..v..X"),
        (OnPlateau("loss", 2), [NAN, NAN, NAN], ".X."),
        (OnPlateau("loss", 2), [NAN, 5, NAN, 4, NAN, NAN], ".....X"),
        (EveryEpochs(3), [1, 2, 3, 4, 5, 6], "..X..X"),
        (EveryEpochs(1), [1, 1], "XX"),
        (EveryEpochs(4, learning_rate_drops=1), [9] * 8, ".v.X.v.X"),
        (EveryEpochs(6, learning_rate_drops=2), [9] * 6, ".v.v.X"),
        (EveryEpochs(3, learning_rate_drops=2), [9] * 3, "vvX"),
    ],
)
def test_actions_epoch_by_epoch(when, values, expected):
    assert actions(when, values) == expected


def test_progress_says_how_far_the_round_has_come():
    when, progress = OnPlateau("accuracy", 2, learning_rate_drops=1), RoundProgress()
    seen = []
    for value in (1, 3, 2, 2, 4):
        progress, _ = when.step(progress, value)
        seen.append((progress.epochs, progress.best, progress.wait, progress.drops))
    assert seen == [(1, 1, 0, 0), (2, 3, 0, 0), (3, 3, 1, 0), (4, 3, 0, 1), (5, 4, 0, 1)]


def test_the_best_value_is_never_one_that_is_not_a_number():
    when, progress = OnPlateau("loss"), RoundProgress()
    for value in (NAN, 3.0, NAN):
        progress, _ = when.step(progress, value)
    assert progress.best == 3.0


@pytest.mark.parametrize(
    ("monitor", "mode", "higher"),
    [
        ("val_loss", "auto", False),
        ("accuracy_loss", "auto", False),
        ("val_accuracy", "auto", True),
        ("sparse_categorical_crossentropy", "auto", False),
        ("mae", "auto", False),
        ("val_auc", "auto", True),
        ("val_accuracy", "min", False),
        ("whatever", "max", True),
    ],
)
def test_direction_of_a_metric(monitor, mode, higher):
    assert OnPlateau(monitor, mode=mode).higher_is_better is higher
    assert EveryEpochs(2, monitor, mode).higher_is_better is higher


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: OnPlateau("whatever"),
            "mode must be 'min' or 'max'.*Received: monitor='whatever'",
        ),
        (lambda: OnPlateau("val_los"), r"Received: monitor='val_los'.*Did you mean val_loss\?"),
        (lambda: OnPlateau("vall_accuraci", mode="maxx"), r"Received: 'maxx'. Did you mean max\?"),
        (lambda: OnPlateau(mode=np.ones(2)), "mode must be one of"),
        (lambda: OnPlateau(mode="sideways"), r"mode must be one of .* Received: 'sideways'"),
        (lambda: OnPlateau(3), "monitor must be the name of a metric. Received: 3"),
        (lambda: OnPlateau(patience=0), "patience must be a whole number, 1 or more. Received: 0"),
        (lambda: OnPlateau(patience=2.5), "patience must be"),
        (lambda: OnPlateau(min_delta=-0.1), "min_delta must be a finite number, 0 or more"),
        (lambda: OnPlateau(target=NAN), "target must be a finite number"),
        (lambda: OnPlateau(recovery_epochs=-1), "recovery_epochs must be"),
        (lambda: OnPlateau(learning_rate_drops=-1), "learning_rate_drops must be"),
        (lambda: OnPlateau(learning_rate_factor=1.0), "learning_rate_factor must be"),
        (lambda: EveryEpochs(0), "epochs must be a whole number, 1 or more. Received: 0"),
        (
            lambda: EveryEpochs(2, learning_rate_drops=2),
            "epochs must be more than learning_rate_drops=2. Received: 2",
        ),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_reason_is_part_of_a_sentence():
    assert OnPlateau("loss", 1).describe() == "loss has not improved for 1 epoch"
    assert OnPlateau("loss", 3).describe() == "loss has not improved for 3 epochs"
    assert EveryEpochs(4).describe() == "the round's 4 epochs are over"


@pytest.mark.parametrize(
    ("when", "epochs"),
    [
        (OnPlateau(patience=4), 4),
        (EveryEpochs(7), 7),
        (OnPlateau(recovery_epochs=2), 2),
        (EveryEpochs(7, recovery_epochs=0), 0),
    ],
    ids=str,
)
def test_epochs_that_follow_a_restart_at_least(when, epochs):
    assert when.min_epochs_after_restart == epochs


@pytest.mark.parametrize(
    "when",
    [
        EveryEpochs(4, learning_rate_drops=1),
        OnPlateau("loss", patience=1),
        OnPlateau("loss", patience=2, learning_rate_drops=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("values", [[1.0] * 12, [3.0, 2.0, 2.5, 1.0] + [1.0] * 12, [NAN] * 9])
def test_no_round_ends_earlier_than_predicted(when, values):
    progress, predicted = RoundProgress(), []
    for value in values:
        predicted.append(when.min_epochs_to_end(progress))
        progress, action = when.step(progress, value)
        if action is Action.END_ROUND:
            break
    assert action is Action.END_ROUND
    took = range(len(predicted), 0, -1)
    assert all(1 <= n <= left for n, left in zip(predicted, took, strict=True))
    assert predicted[-1] == 1
    assert when.min_epochs_to_end(progress) == 1  # where a round did not end that could


@dataclasses.dataclass(frozen=True)
class BelowLoss(When):
    loss: float

    def step(self, progress, value):
        progress = dataclasses.replace(progress, epochs=progress.epochs + 1)
        return progress, Action.END_ROUND if value < self.loss else Action.TRAIN


def test_a_rule_of_ones_own_has_the_defaults_of_the_base_class():
    when = BelowLoss(0.5)
    assert actions(when, [3, 2, 0.4, 1, 0.1]) == "..X.X"
    assert (when.monitor, when.higher_is_better, when.min_epochs_after_restart) == (
        "val_loss",
        False,
        1,
    )
    assert when.describe() == "BelowLoss has ended the round"
    assert not when.reaches_target(0.0)

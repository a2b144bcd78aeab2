import pytest

from kerasrestart.restart.trigger import (
    Action,
    EpochsTrigger,
    PlateauTrigger,
    TriggerState,
    higher_is_better,
)

NAN = float("nan")
LETTERS = {Action.TRAIN_ON: ".", Action.LOWER_LEARNING_RATE: "v", Action.END_ROUND: "X"}


def actions(trigger, values):
    """One letter for each epoch; a round that has ended is followed by a new one."""
    state, letters = TriggerState(), ""
    for value in values:
        state, action = trigger.step(state, value)
        letters += LETTERS[action]
        if action is Action.END_ROUND:
            state = TriggerState()
    return letters


@pytest.mark.parametrize(
    ("trigger", "values", "expected"),
    [
        (PlateauTrigger(False, 2), [5, 4, 3, 2, 1], "....."),
        (PlateauTrigger(False, 2), [5, 5, 5, 5, 5, 5], "..X..X"),
        (PlateauTrigger(False, 2), [5, 6, 4, 6, 6], "....X"),
        (PlateauTrigger(False, 1), [5, 4, 5, 9, 8], "..X.."),
        (PlateauTrigger(True, 2), [1, 2, 3, 3, 2], "....X"),
        (PlateauTrigger(True, 2), [5, 4, 3], "..X"),
        # Against the best so far, not against the epoch before.
        (PlateauTrigger(False, 3), [1, 9, 8, 7], "...X"),
        # A gain of just min_delta is none; slow gains add up against the same best.
        (PlateauTrigger(False, 2, min_delta=1), [5, 4, 3.5, 3.4], "...."),
        (PlateauTrigger(False, 2, min_delta=1), [5, 4, 4], "..X"),
        (PlateauTrigger(True, 2, min_delta=0.5), [1, 1.25, 1.5, 1.5], "..X."),
        (PlateauTrigger(False, 1, drops=2), [5, 5, 5, 5, 5], ".vvX."),
        # An improvement at the lower rate waits anew; the number of falls goes on.
        (PlateauTrigger(False, 2, drops=1), [5, 5, 5, 4, 4, 4], "..v..X"),
        (PlateauTrigger(False, 2), [NAN, NAN, NAN], ".X."),
        (PlateauTrigger(False, 2), [NAN, 5, NAN, 4, NAN, NAN], ".....X"),
        (EpochsTrigger(3), [1, 2, 3, 4, 5, 6], "..X..X"),
        (EpochsTrigger(1), [1, 1], "XX"),
        (EpochsTrigger(4, drops=1), [9] * 8, ".v.X.v.X"),
        (EpochsTrigger(6, drops=2), [9] * 6, ".v.v.X"),
        (EpochsTrigger(3, drops=2), [9] * 3, "vvX"),
    ],
)
def test_actions_epoch_by_epoch(trigger, values, expected):
    assert actions(trigger, values) == expected


def test_state_tells_how_far_the_round_has_come():
    trigger, state = PlateauTrigger(True, 2, drops=1), TriggerState()
    seen = []
    for value in (1, 3, 2, 2, 4):
        state, _ = trigger.step(state, value)
        seen.append((state.epochs, state.best, state.wait, state.drops))
    assert seen == [(1, 1, 0, 0), (2, 3, 0, 0), (3, 3, 1, 0), (4, 3, 0, 1), (5, 4, 0, 1)]


def test_best_value_is_never_one_that_is_not_a_number():
    trigger, state = PlateauTrigger(False), TriggerState()
    for value in (NAN, 3.0, NAN):
        state, _ = trigger.step(state, value)
    assert state.best == 3.0


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
    assert higher_is_better(monitor, mode) is higher


@pytest.mark.parametrize(("monitor", "mode"), [("whatever", "auto"), ("val_loss", "sideways")])
def test_direction_that_cannot_be_told_is_refused(monitor, mode):
    with pytest.raises(ValueError, match="mode"):
        higher_is_better(monitor, mode)


def test_reason_is_part_of_a_sentence():
    assert PlateauTrigger(False, 1).describe("loss") == "loss has not improved for 1 epoch"
    assert PlateauTrigger(False, 3).describe("loss") == "loss has not improved for 3 epochs"
    assert EpochsTrigger(4).describe("loss") == "the round's 4 epochs are over"


@pytest.mark.parametrize(
    "trigger",
    [
        EpochsTrigger(4, drops=1),
        PlateauTrigger(False, patience=1),
        PlateauTrigger(False, patience=2, drops=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("values", [[1.0] * 12, [3.0, 2.0, 2.5, 1.0] + [1.0] * 12, [NAN] * 9])
def test_no_round_ends_sooner_than_foretold(trigger, values):
    state, foretold = TriggerState(), []
    for value in values:
        foretold.append(trigger.min_epochs_to_end(state))
        state, action = trigger.step(state, value)
        if action is Action.END_ROUND:
            break
    assert action is Action.END_ROUND
    took = range(len(foretold), 0, -1)
    assert all(1 <= n <= left for n, left in zip(foretold, took, strict=True))
    assert foretold[-1] == 1
    assert trigger.min_epochs_to_end(state) == 1  # a round that was to end, and did not

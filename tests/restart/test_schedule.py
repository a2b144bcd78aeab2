"""What the end of an epoch leads to, decided without a model."""

import dataclasses

import numpy as np
import pytest

from kerasrestart.restart.records import LayerRestart, RestartEvent, RestartState
from kerasrestart.restart.rule import RestartRule
from kerasrestart.restart.schedule import Decision, RestartSchedule
from kerasrestart.restart.selection import Selection
from kerasrestart.restart.trigger import TriggerState

RULE = RestartRule("uniform", "taylor", Selection(0.25), None, "keep", 1, "zero", True, False, 0)
SCORES = {"conv": np.array([4.0, 1.0, 3.0, 2.0])}
PLATEAU = TriggerState(epochs=4, best=0.5, wait=1)


def schedule(**changed):
    usual = {
        "monitor": "val_loss", "higher_is_better": False, "patience": 2, "min_delta": 0.0,
        "round_epochs": None, "learning_rate_drops": 0, "target": None, "max_restarts": 3,
        "stop_on_repeat": True, "stop_when_done": True, "recovery_epochs": None,
    }  # fmt: skip
    return RestartSchedule(**(usual | changed))


def restarted(*filters):
    layers = {"conv": LayerRestart(list(filters), SCORES["conv"].tolist())}
    return RestartEvent(1, 3, "why", "uniform", 0.01, layers, {"val_loss": 1.0})


def decide(
    value=0.6, *, events=(), finished=None, trigger=PLATEAU, left=9, scores=SCORES, rule=RULE, **own
):
    state = RestartState(trigger=trigger, events=list(events), finished=finished)
    return schedule(**own).decide(state, value, epochs_left=left, scores=scores, rule=rule)


def without_trigger(decision: Decision):
    chosen = {name: filters.tolist() for name, filters in (decision.chosen or {}).items()}
    return decision.round_over, chosen, decision.finished, decision.ends_training


OVER = "val_loss has not improved for 2 epochs"


def test_at_a_plateau_the_lowest_filter_is_chosen():
    assert without_trigger(decide()) == (OVER, {"conv": [1]}, None, False)


def test_an_improvement_leads_to_nothing():
    decision = decide(0.4)
    assert without_trigger(decision) == (None, {}, None, False)
    assert (decision.trigger.best, decision.trigger.wait) == (0.4, 0)


def test_the_rate_falls_before_filters_are_restarted():
    decision = decide(learning_rate_drops=1)
    assert decision.lowers_rate
    assert without_trigger(decision) == (None, {}, None, False)
    then = decide(learning_rate_drops=1, trigger=decision.trigger)
    assert not then.lowers_rate
    assert without_trigger(then) == (None, {}, None, False)


@pytest.mark.parametrize(
    ("circumstances", "why", "ends"),
    [
        ({"value": 0.1, "target": 0.2}, "target reached", True),
        ({"events": [restarted(0)], "max_restarts": 1}, "max_restarts=1 reached", True),
        ({"events": [restarted(1)]}, "the same filters were selected as at the last", True),
        ({"left": None}, "another callback has ended the training", False),
        ({"left": 1}, "1 epochs left, too few", False),
        ({"left": 0, "recovery_epochs": 0}, "0 epochs left, too few", False),
        ({"scores": {"conv": np.array([1.0, np.nan, 2.0, 3.0])}}, "has diverged", False),
    ],
    ids=str,
)
def test_restarts_end(circumstances, why, ends):
    decision = decide(**circumstances)
    assert decision.finished.startswith(why) or why in decision.finished
    assert not decision.chosen
    assert decision.ends_training is ends
    assert (decision.round_over is not None) is ends


def test_restarts_go_on_where_they_are_to():
    assert decide(events=[restarted(1)], stop_on_repeat=False).chosen
    assert decide(events=[restarted(2)]).chosen
    assert decide(left=1, recovery_epochs=0).chosen
    assert decide(left=2).chosen


def test_where_no_filter_is_useless_restarts_end_or_pass():
    none_below = dataclasses.replace(RULE, selection=Selection(threshold=0.1))
    decision = decide(rule=none_below)
    assert without_trigger(decision) == (OVER, {}, "no filter was selected", True)
    assert decision.chosen is None
    passed = decide(rule=none_below, stop_on_repeat=False)
    assert without_trigger(passed) == (OVER, {}, None, False)
    assert passed.chosen == {}


def test_training_goes_on_after_the_last_restart_if_asked():
    decision = decide(events=[restarted(0)], max_restarts=1, stop_when_done=False)
    assert without_trigger(decision) == (None, {}, "max_restarts=1 reached", False)
    assert without_trigger(decide(finished="max_restarts=1 reached")) == (None, {}, None, False)


def test_without_scores_the_next_epoch_tells():
    assert without_trigger(decide(scores=None)) == (None, {}, None, False)


def test_the_state_is_left_as_it_is():
    state = RestartState(trigger=PLATEAU)
    before = state.to_dict()
    schedule().decide(state, 0.6, epochs_left=9, scores=SCORES, rule=RULE)
    assert state.to_dict() == before

"""What the end of an epoch leads to, decided without a model."""

import numpy as np
import pytest

from kerasrestart.restart.plan import Decision, RestartPlan
from kerasrestart.restart.records import LayerRestart, RestartEvent, RestartState
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction
from kerasrestart.restart.when import EveryEpochs, OnPlateau, RoundProgress
from kerasrestart.scoring.scoring import Scoring

SCORES = {"conv": np.array([4.0, 1.0, 3.0, 2.0])}
PLATEAU = RoundProgress(epochs=4, best=0.5, wait=1)


def restarted(*filters):
    layers = {"conv": LayerRestart(list(filters), SCORES["conv"].tolist())}
    return RestartEvent(1, 3, "why", "uniform", 0.01, layers, {"val_loss": 1.0})


def decide(
    value=0.6, *, events=(), finished=None, progress=PLATEAU, left=9, scores=SCORES, when=None,
    **arguments,
):  # fmt: skip
    state = RestartState(progress=progress, events=list(events), finished=finished)
    plan = RestartPlan(**{"select": Fraction(0.25), "when": plateau(**(when or {})), **arguments})
    return plan.decide(state, value, epochs_left=left, scores=scores)


def plateau(**arguments):
    return OnPlateau("val_loss", patience=2, **arguments)


def outcome(decision: Decision):
    chosen = {name: filters.tolist() for name, filters in (decision.chosen or {}).items()}
    return decision.round_over, chosen, decision.finished, decision.ends_training


OVER = "val_loss has not improved for 2 epochs"


def test_at_a_plateau_the_lowest_filter_is_chosen():
    assert outcome(decide()) == (OVER, {"conv": [1]}, None, False)


def test_an_improvement_leads_to_nothing():
    decision = decide(0.4)
    assert outcome(decision) == (None, {}, None, False)
    assert (decision.progress.best, decision.progress.wait) == (0.4, 0)


def test_the_rate_is_lowered_before_filters_are_restarted():
    decision = decide(when={"learning_rate_drops": 1})
    assert decision.lowers_rate
    assert outcome(decision) == (None, {}, None, False)
    then = decide(when={"learning_rate_drops": 1}, progress=decision.progress)
    assert not then.lowers_rate
    assert outcome(then) == (None, {}, None, False)


@pytest.mark.parametrize(
    ("circumstances", "why", "ends"),
    [
        ({"value": 0.1, "when": {"target": 0.2}}, "target reached", True),
        ({"events": [restarted(0)], "max_restarts": 1}, "max_restarts=1 reached", True),
        ({"events": [restarted(1)]}, "the same filters were selected as at the last", True),
        ({"left": None}, "another callback has ended the training", False),
        ({"left": 1}, "1 epochs left, too few", False),
        ({"left": 0, "when": {"recovery_epochs": 1}}, "0 epochs left, too few", False),
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


def test_restarts_continue_otherwise():
    assert decide(events=[restarted(1)], stop_on_repeat=False).chosen
    assert decide(events=[restarted(2)]).chosen
    assert decide(left=0, when={"recovery_epochs": 0}).chosen  # the next fit restarts them
    assert decide(left=2).chosen


def test_where_no_filter_is_useless_restarts_end_or_only_the_rate_restarts():
    decision = decide(select=BelowMean(0.1))
    assert outcome(decision) == (OVER, {}, "no filter was selected", True)
    assert decision.chosen is None
    passed = decide(select=BelowMean(0.1), stop_on_repeat=False)
    assert outcome(passed) == (OVER, {}, None, False)
    assert passed.chosen == {}


@pytest.mark.parametrize("control", ["none", "slots"])
def test_a_control_may_select_the_same_filters_again(control):
    assert decide(events=[restarted(1)], control=control).chosen


@pytest.mark.parametrize(("grace", "chosen"), [(0, [1]), (1, [3]), (2, [2])])
def test_filters_in_their_grace_period_are_not_selected(grace, chosen):
    reset = Reset(outgoing="zero", grace_restarts=grace)
    decision = decide(events=[restarted(3), restarted(1)], reset=reset, stop_on_repeat=False)
    assert outcome(decision)[1] == {"conv": chosen}


def test_a_function_of_ones_own_selects():
    assert outcome(decide(select=lambda scores: {"conv": [0, 2]}))[1] == {"conv": [0, 2]}
    with pytest.raises(ValueError, match="each filter of layer 'conv' once"):
        decide(select=lambda scores: {"conv": [0, 0]})


def test_training_continues_after_the_last_restart_if_asked():
    decision = decide(events=[restarted(0)], max_restarts=1, when={"stop_when_done": False})
    assert outcome(decision) == (None, {}, "max_restarts=1 reached", False)
    assert outcome(decide(finished="max_restarts=1 reached")) == (None, {}, None, False)


def test_without_scores_the_next_epoch_decides():
    assert outcome(decide(scores=None)) == (None, {}, None, False)


def test_the_state_is_not_changed():
    state = RestartState(progress=PLATEAU)
    before = state.to_dict()
    plan = RestartPlan(select=Fraction(0.25), when=plateau())
    plan.decide(state, 0.6, epochs_left=9, scores=SCORES)
    assert state.to_dict() == before


def test_whether_a_restart_can_come_within_some_epochs():
    plan = RestartPlan(when=EveryEpochs(4), max_restarts=1)
    assert not plan.may_restart_within(2, RestartState(progress=RoundProgress(epochs=1)))
    assert plan.may_restart_within(3, RestartState(progress=RoundProgress(epochs=1)))
    assert not plan.may_restart_within(9, RestartState(finished="why"))
    assert not plan.may_restart_within(9, RestartState(events=[restarted(1)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": 0.1}, "select must be Fraction"),
        ({"when": "plateau"}, "EveryEpochs, EverySteps or a When. Received: 'plateau'"),
        ({"reset": "uniform"}, "reset must be a Reset. Received: 'uniform'"),
        ({"control": "zeros"}, r"control must be one of \[None, 'none', 'slots'\]"),
        ({"layers": "conv("}, r"layers must be a regular expression.*Received: 'conv\('"),
        ({"layers": []}, "a list of at least one name"),
        ({"layers": [1]}, "a list of at least one name"),
        ({"max_restarts": -1}, "max_restarts must be a whole number, 0 or more"),
        ({"stop_on_repeat": None}, "stop_on_repeat must be True or False"),
        ({"seed": 0.5}, "seed must be a whole number, 0 or more. Received: 0.5"),
        ({"control": "slots", "reset": Reset(outgoing="zero")}, "outgoing must be 'keep'"),
        (
            {"scoring": Scoring("reversed_taylor"), "select": BelowMean(0.1)},
            "needs scores of 0 or more. Received: criterion='reversed_taylor'",
        ),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused_at_once_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        RestartPlan(**arguments)
    assert "\n" not in str(error.value)


def test_logs_of_other_callbacks_need_not_be_numbers():
    logs = {"val_loss": np.float32(0.5), "time": "12:00", "none": None, "list": [1.0, 2.0]}
    assert RestartPlan(when=plateau()).metrics(logs) == {"val_loss": 0.5}


@pytest.mark.parametrize(
    ("monitor", "logged", "reason", "hint"),
    [
        ("val_acuracy", ["loss", "val_accuracy"], "", ". Did you mean val_accuracy?"),
        ("score", ["loss", "val_accuracy"], "", ""),
        ("val_los", ["loss"], ": a name with 'val_' needs validation data in every epoch", ""),
    ],
)
def test_a_metric_that_is_not_logged_is_named_beside_those_that_are(monitor, logged, reason, hint):
    plan = RestartPlan(when=OnPlateau(monitor, mode="min"))
    with pytest.raises(ValueError, match="monitor must be a metric in the logs") as error:
        plan.metrics(dict.fromkeys(logged, 0.5))
    assert str(error.value).endswith(f"one of {logged}{reason}. Received: {monitor!r}{hint}")


def test_where_the_layers_with_a_score_are_too_small_no_filter_is_selected():
    # All layers were checked before training; then some turned out to have no gradient.
    ended = decide(select=Fraction(0.1), scores={"conv": np.arange(4.0)})
    assert outcome(ended)[1:] == ({}, "no filter was selected", True)

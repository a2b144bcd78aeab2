"""Tuning: each arm gets the best of the same values, found on seeds of its own."""

import dataclasses
import json
import math
import pathlib

import pytest
from synthetic_study import result

from kerasrestart.experiments.study import tuning
from kerasrestart.experiments.study.grid import PlanError
from kerasrestart.experiments.study.study_plan import StudyPlan
from kerasrestart.experiments.study.tuning import Trial, Tuning, find_values

BASE = {"dataset": "shapes", "round_epochs": 2, "max_restarts": 1}


def study(**changes):
    options = {
        "networks": ["mininet"],
        "arms": ["he", "leaky:activation=leaky_relu,init=none"],
        "seeds": [0, 1],
        "tune": ["learning_rate=0.1,0.01"],
        "tune_seeds": [8, 9],
        "outcome": "online",
    }
    return StudyPlan(pathlib.Path("st"), BASE, **{**options, **changes})


@pytest.fixture
def scores(monkeypatch):
    """Outcomes by arm, value and seed; a run without one has no record."""
    found = {}

    def load_cell(folder, cell):
        accuracy = found[cell.arm, cell.variation, cell.seed]
        one = result(cell.arm, cell.seed, (accuracy,), epochs=1)
        return dataclasses.replace(one, cell=cell)

    def is_done(job, folder):
        assert folder.name == job.settings.baseline.split("/")[-2]
        return (job.cell.arm, job.cell.variation, job.cell.seed) in found

    monkeypatch.setattr(tuning, "load_cell", load_cell)
    monkeypatch.setattr(tuning, "is_done", is_done)
    for arm in ("none", "he", "leaky"):
        for seed in (8, 9):
            found[arm, "learning_rate=0.1", seed] = 0.5
            found[arm, "learning_rate=0.01", seed] = 0.4
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tuning").mkdir()
    return tmp_path / "tuning"


def test_every_arm_is_tried_equally_often_the_control_too():
    cells = [job.cell for job in study().tuning_jobs if job.cell]
    assert len(cells) == len(set(cells)) == 3 * 2 * 2
    assert {(c.variation, c.seed, c.outcome) for c in cells if c.arm == "none"} == {
        (f"learning_rate={rate}", seed, "online") for rate in (0.1, 0.01) for seed in (8, 9)
    }


def test_each_arm_gets_the_value_of_the_highest_mean(scores, folder):
    scores["he", "learning_rate=0.01", 8] = 0.7  # 0.55 on average
    found = find_values(study().tuning_jobs, folder, {})
    assert found.chosen == {
        ("mininet", "none"): {"learning_rate": 0.1},
        ("mininet", "he"): {"learning_rate": 0.01},
        ("mininet", "leaky"): {"learning_rate": 0.1},
    }
    assert found.seeds == (8, 9)
    rows = {row[1]: row[2:] for row in found.table().rows}
    assert rows["he"] == ("50.00", "**55.00**")
    assert "mean training accuracy" in found.sentence()


def test_of_equal_values_the_first_is_chosen_and_nan_never(scores, folder):
    for seed in (8, 9):
        scores["he", "learning_rate=0.01", seed] = 0.5
        scores["leaky", "learning_rate=0.1", seed] = math.nan
    chosen = find_values(study().tuning_jobs, folder, {}).chosen
    assert chosen["mininet", "he"] == {"learning_rate": 0.1}
    assert chosen["mininet", "leaky"] == {"learning_rate": 0.01}


def test_a_value_with_a_failed_run_is_not_chosen_also_when_collected_later(scores, folder):
    del scores["he", "learning_rate=0.1", 9]
    failed = {"mininet-he-learning_rate=0.1-s9": "its loss diverged"}
    now = find_values(study().tuning_jobs, folder, failed)
    assert now.chosen["mininet", "he"] == {"learning_rate": 0.01}
    assert ("failed", "**40.00**") in [row[2:] for row in now.table().rows]
    assert json.loads((folder / "failed.json").read_text()) == failed
    assert find_values(study().tuning_jobs, folder, None) == now


def test_a_tuning_that_has_not_ended_is_refused(scores, folder):
    del scores["he", "learning_rate=0.1", 9]
    with pytest.raises(PlanError, match=r"Received: 1 missing runs, such as mininet-he-.*-s9"):
        find_values(study().tuning_jobs, folder, None)


def test_an_arm_that_fails_with_every_value_is_named(scores, folder):
    failed = {}
    for value in ("learning_rate=0.1", "learning_rate=0.01"):
        del scores["he", value, 8]
        failed[f"mininet-he-{value}-s8"] = "its loss diverged"
    with pytest.raises(PlanError, match="Arm 'he' of 'mininet' failed with each value"):
        find_values(study().tuning_jobs, folder, failed)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("criterion", ("taylor", f"{__file__}:score")),
        ("learning_rate", (0.1, 1e16)),  # written 1e+16
        ("layers", ("a+b", "a=b:c/d")),
    ],
)
def test_values_are_found_whatever_their_characters(scores, folder, name, values):
    jobs = study(tune=[f"{name}={','.join(map(str, values))}"]).tuning_jobs
    best = {
        job.cell.variation for job in jobs if job.cell and getattr(job.settings, name) == values[1]
    }
    for job in jobs:
        if job.cell:
            place = job.cell.arm, job.cell.variation, job.cell.seed
            scores[place] = 0.5 if job.cell.variation in best else 0.4
    chosen = find_values(jobs, folder, {}).chosen
    assert set(map(str, chosen.values())) == {str({name: values[1]})}


def score(feature_map, gradient, channel_axis):
    """A criterion of the user's own, which is only named here."""
    raise NotImplementedError


def trial(network, rate, is_chosen):
    values = {"learning_rate": rate}
    return Trial(network, "he", f"learning_rate={rate}", values, {8: 0.5}, is_chosen)


def test_a_best_value_at_an_edge_is_said():
    def sentence(best, values=(0.1, 0.01, 0.001)):
        trials = [trial("m", v, v == best) for v in values]
        return Tuning(tuple(trials), (8,), "accuracy").sentence()

    assert "may be better: he (--learning_rate=0.1)" in sentence(0.1)
    assert "edge" in sentence(0.001)
    assert "edge" not in sentence(0.01)


def test_an_arm_at_an_edge_is_named_with_its_network_where_there_are_several():
    trials = [
        trial(network, value, value == best)
        for network, best in (("one", 0.01), ("two", 0.1))
        for value in (0.1, 0.01, 0.001)
    ]
    sentence = Tuning(tuple(trials), (8,), "accuracy").sentence()
    assert "may be better: he of two (--learning_rate=0.1)." in sentence


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tune_seeds": [1, 2]}, "Received: 1 in --seeds too"),
        ({"sweep": ["fraction=0.1,0.2"]}, "--sweep and --tune must not be given together"),
        ({"arms": ["own:learning_rate=0.3"]}, "--learning_rate is tuned"),
        ({"tune": ["learning_rate=fast"]}, "--tune=learning_rate=fast"),
        ({"tune": ["seed=1,2"]}, "--tune=seed cannot be set"),
        ({"pairs": [("he", "clone")]}, "none, he, leaky.*Received: 'clone'"),
        ({"tune": ["init=he,none"]}, "--tune=init cannot be set"),
    ],
)
def test_a_study_that_cannot_be_tuned_is_refused(changes, text):
    with pytest.raises(PlanError, match=text):
        study(**changes).check()


def test_a_study_without_tuning_has_no_runs_of_it():
    plain = study(tune=[], tune_seeds=[])
    plain.check()
    assert plain.tuning_jobs == []

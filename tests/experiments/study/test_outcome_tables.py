"""Other outcomes of a study, and arms against each other."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from synthetic_study import result

from kerasrestart.experiments.study.comparison import compare
from kerasrestart.experiments.study.grid import PlanError, parse_pair
from kerasrestart.experiments.study.outcome_tables import by_outcome, pairs

ARMS = {"none": (0.2, 0.24, 0.21), "he": (0.5, 0.52, 0.55), "random": (0.4, 0.46, 0.41)}


def groups(outcome="online"):
    runs = []
    for arm, values in ARMS.items():
        for seed, value in enumerate(values):
            # Online accuracy is that of the curve, here the validation accuracies.
            one = result(arm, seed, (0.1, 0.9 - value), (0.1, value), tasks="shuffled_classes")
            runs.append(
                dataclasses.replace(one, cell=dataclasses.replace(one.cell, outcome=outcome))
            )
    return compare(runs)


def online(arm):
    return 100 * np.array([(0.09 + 0.1 + v - 0.01 + v) / 4 for v in ARMS[arm]])


def test_pairs_are_compared_by_a_paired_t_test_with_a_family_of_their_own():
    rows = pairs(groups(), [("he", "random"), ("random", "none")]).data
    mine = [row for row in rows if row["outcome"] == "online"]
    for row, (one, other) in zip(mine, [("he", "random"), ("random", "none")], strict=True):
        test = stats.ttest_rel(online(one), online(other))
        assert row["difference"] == pytest.approx((online(one) - online(other)).mean())
        assert row["p"] == pytest.approx(test.pvalue)
        low, high = test.confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((low, high))
    lower, higher = sorted(row["p"] for row in mine)
    adjusted = sorted(row["p after Holm"] for row in mine)
    assert adjusted == pytest.approx([2 * lower, max(2 * lower, higher)])


def test_the_variations_of_a_model_are_one_family_of_tests():
    runs = [
        result(arm, seed, (0.1, value * scale), (0.1, value), variation=f"fraction={scale}")
        for arm, values in ARMS.items()
        for scale in (0.5, 1)
        for seed, value in enumerate(np.array(values) ** (1 / scale))
    ]
    rows = pairs(compare(runs), [("he", "random")]).data
    assert [row["variation"] for row in rows] == ["fraction=0.5", "fraction=1"]
    lower, higher = sorted(row["p"] for row in rows)
    adjusted = sorted(row["p after Holm"] for row in rows)
    assert adjusted == pytest.approx([2 * lower, max(2 * lower, higher)])


def test_a_pair_is_also_compared_by_test_accuracy():
    table = pairs(groups(), [("he", "random")])
    assert [row[3] for row in table.rows] == ["online", "test"]
    assert table.rows[1][5] == "-10.00"  # the test accuracies are the other way round


def test_a_pair_without_runs_has_no_row():
    assert pairs(groups(), [("he", "clone")]).rows == []


def test_other_outcomes_are_shown_with_their_difference_from_the_control():
    rows = {row[1]: row[2:] for row in by_outcome(groups()).rows}
    none, he = online("none").mean(), online("he").mean()
    assert rows["none"][1] == f"{none:.2f}"
    assert rows["he"][:2] == ("3", f"{he:.2f} ({he - none:+.2f})")
    assert rows["he"][2] == "37.67 (-30.67)"  # the test accuracy after the first round


def test_a_study_of_test_accuracy_has_no_other_outcomes():
    assert by_outcome(groups("test")).rows == []


@pytest.mark.parametrize("text", ["he", "he:", ":he", "he:he", "a:b:c", "a b:c"])
def test_a_pair_is_two_names(text):
    with pytest.raises(PlanError, match="--pair must be two arms, ARM:OTHER"):
        parse_pair(text)

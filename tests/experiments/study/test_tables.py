"""Comparisons and tables, on numbers that can be checked by hand."""

import csv
import io
import re

import numpy as np
import pytest
from scipy import stats
from synthetic_study import result

from kerasrestart.experiments.study import tables
from kerasrestart.experiments.study.comparison import compare

# Outcomes of the control 0.70, 0.72, 0.74; of `he` 0.72, 0.75, 0.78: differences of 2, 3 and 4
# points, so mean 3, deviation 1, standard error 1/sqrt(3), t = 5.196; t(0.975, 2) = 4.303.
RUNS = [
    *(result("none", s, (0.6, 0.70 + 0.02 * s)) for s in range(3)),
    *(result("he", s, (0.6, 0.72 + 0.03 * s)) for s in range(3)),
]


def rows(table):
    return {row[0]: row for row in table.rows}


def data(table):
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def test_differences_are_those_computed_by_hand():
    (group,) = compare(RUNS)
    control, he = group.arms
    assert control.verdict == "control"
    assert (control.summary.mean, control.summary.deviation) == pytest.approx((72, 2))
    assert (he.difference.mean, he.difference.deviation) == pytest.approx((3, 1))
    assert (he.difference.low, he.difference.high) == pytest.approx((0.516, 5.484), abs=1e-3)
    assert he.difference.p == pytest.approx(0.0351, abs=1e-4)
    assert he.verdict == "better"
    (_, row) = tables.differences([group]).rows
    assert row == (
        *("mininet", "he", "better", "75.00 ± 3.00", "75.00 ± 3.00", "3"),
        *("+3.00", "+0.52 to +5.48", "0.035", "0.035", "10"),
    )


def test_verdicts_go_by_holms_correction_over_the_arms_of_a_model():
    more = [result(arm, s, (0.6, 0.72 + 0.03 * s)) for arm in ("uniform",) for s in range(3)]
    other_model = [result(arm, s, (0.6, 0.5), model="b") for arm in ("none", "he") for s in (0, 1)]
    groups = compare([*RUNS, *more, *other_model])
    he = groups[0].arms[1]
    assert he.adjusted_p == pytest.approx(2 * he.difference.p)
    assert he.verdict == "not told apart"
    assert "not told apart with 3 seeds: +3.00 points" in he.sentence()
    assert "p = 0.07 after Holm" in he.sentence()
    needed = re.search(r"(\d+) seeds would be needed to find a true difference", he.sentence())
    assert int(needed[1]) == he.seeds_needed > 10  # by the correction for two; 10 is for one alone
    assert "at a level of 5% / 2, Holm's first and strictest step." in he.sentence()
    # The differences have a deviation of 1: so many seeds are the least whose test at 2.5 % has a
    # power of 80 %.
    powers = {n: simulated_power(n, 0.025) for n in (he.seeds_needed - 1, he.seeds_needed)}
    assert powers[he.seeds_needed - 1] < 0.8 < powers[he.seeds_needed]


def simulated_power(n, level):
    """How often a t test of `n` differences finds that their mean, 1 deviation, is not 0."""
    differences = np.random.default_rng(n).normal(1, 1, (200_000, n))
    return np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < level)


def test_one_arm_alone_needs_no_correction():
    runs = [*RUNS[:3], *(result("he", s, (0.6, 0.72 + 0.07 * s)) for s in range(3))]
    (_, he) = compare(runs)[0].arms
    assert (he.verdict, he.comparisons) == ("not told apart", 1)
    assert he.sentence().endswith("with a power of 80% at a level of 5%.")


@pytest.mark.parametrize(
    ("outcomes", "verdict", "told"),
    [
        ({0: 0.60, 1: 0.63, 2: 0.65}, "worse", "is worse than the control: -9.33 points"),
        ({0: 0.70, 1: 0.72, 2: 0.74}, "equal", "are equal in each of 3 seeds"),
        ({0: 0.71, 1: 0.73, 2: 0.75}, "not told apart", "+1.00 points in each of them"),
        ({1: 0.8}, "not told apart", "with 1 seed: +8.00 points, and one seed tells nothing"),
        ({7: 0.8}, "unknown", "no seed in common with the control"),
    ],
)
def test_sentences_say_no_more_than_the_seeds_do(outcomes, verdict, told):
    arm = [result("he", seed, (0.6, value)) for seed, value in outcomes.items()]
    he = compare([*RUNS[:3], *arm])[0].arms[1]
    assert he.verdict == verdict
    assert told in he.sentence()


def test_the_control_comes_first_and_models_stay_together():
    runs = [
        result(arm, seed, (0.6, 0.7), model=model)
        for seed in (0, 1)
        for model in ("b", "a")
        for arm in ("he", "none", "clone")
    ]
    groups = compare(runs)
    assert [group.name for group in groups] == ["b", "a"]
    assert [arm.name for arm in groups[0].arms] == ["none", "he", "clone"]


def test_by_initialisation_has_models_as_columns_and_arms_as_rows():
    other = [result("none", 0, (0.5, 0.55), model="alexnet")]
    table = tables.by_initialisation(compare([*RUNS, *other]))
    assert table.header == ("arm", "mininet", "alexnet")
    assert rows(table) == {
        "baseline": ("baseline", "60.00 ± 0.00 (3)", "50.00 (1)"),
        "none": ("none", "72.00 ± 2.00 (3)", "55.00 (1)"),
        "he": ("he", "75.00 ± 3.00 (3)", ""),
    }
    found = data(table)
    assert [row["arm"] for row in found] == ["baseline", "none", "he", "baseline", "none"]
    assert float(found[1]["standard deviation"]) == pytest.approx(2)
    assert found[4]["standard deviation"] == ""


def test_by_restart_has_a_column_for_each_round():
    short = [result("he", 9, (0.6,))]  # a run that diverged makes fewer
    table = tables.by_restart(compare([result("none", 9, (0.6, 0.7, 0.8)), *short]))
    assert table.header == ("model", "arm", "n", "baseline", "restart 1", "restart 2")
    assert table.rows == [
        ("mininet", "none", "1", "60.00", "70.00", "80.00"),
        ("mininet", "he", "1", "60.00", "", ""),
    ]
    assert [row["round"] for row in data(table)] == [
        *("baseline", "restart 1", "restart 2"),
        "baseline",
    ]


def test_a_sweep_is_a_column_of_its_own():
    runs = [
        result(arm, 0, (0.6, 0.7), variation=f"fraction={f}")
        for f in (0.1, 0.2)
        for arm in ("none", "he")
    ]
    groups = compare(runs)
    assert tables.by_restart(groups).header[:3] == ("model", "variation", "arm")
    assert [row[:2] for row in tables.by_initialisation(groups).rows] == [
        *(("fraction=0.1", "baseline"), ("fraction=0.1", "none"), ("fraction=0.1", "he")),
        *(("fraction=0.2", "baseline"), ("fraction=0.2", "none"), ("fraction=0.2", "he")),
    ]
    assert tables.differences(groups).header[:4] == ("model", "variation", "arm", "verdict")


def test_markdown_has_as_many_cells_in_each_row():
    table = tables.by_restart(compare(RUNS))
    lines = table.to_markdown().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    assert all(set(cell.strip()) <= set("-:") and "-" in cell for cell in lines[1].split("|")[1:-1])


def test_runs_that_did_not_train_equally_long_are_found():
    (group,) = compare([*RUNS, result("early", 0, (0.6,))])
    assert group.budgets == {(4, 1): ["none", "he"], (2, 0): ["early"]}
